"""Workers that never come to their first call: an answer within a limit of its own, and no process left behind."""

import contextlib
import signal
import subprocess
import sys
import textwrap
import time

import executor_jobs as jobs
import psutil
import pytest

from pytest_membudget import ExecutorPolicy, FallbackExecutor, StartTimeoutError

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

SOON = ExecutorPolicy(start_timeout_s=3.0)
"""Longer than a fork server that is up takes to fork a worker, on a busy machine as well."""


@pytest.fixture
def _fork_server():
    """Up before the test begins: its own start, an interpreter with its imports, has no limit here."""
    with FallbackExecutor(1, budget="1 GB", policy=ExecutorPolicy(start_timeout_s=None)) as executor:
        assert executor.submit(jobs.square, 3).result() == 9


@pytest.fixture
def hanging_module(tmp_path, monkeypatch):
    """A module that never ends its import in a worker."""
    (tmp_path / "hangs_there.py").write_text(
        "import multiprocessing, time\n"
        "if multiprocessing.parent_process() is not None:\n"
        "    time.sleep(3600)\n"
        "def job(item):\n"
        "    return 2 * item\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import hangs_there

    yield hangs_there
    del sys.modules["hangs_there"]


def test_a_module_that_never_ends_its_import_leads_to_threads(hanging_module, caplog):
    with FallbackExecutor(2, budget="1 GB", policy=SOON) as executor:
        batch = executor.run(hanging_module.job, range(8))
        processes = [each.pid for each in executor._engine.driver.readings() if each.pid is not None]
    assert batch.values == [2 * item for item in range(8)]
    assert {outcome.level for outcome in batch.outcomes} == {"thread"}
    assert processes == []
    assert [event.kind for event in batch.events if event.kind == "fallback"] == ["fallback"]
    assert "within 3 s; continues with level 'thread'" in caplog.text


def test_without_a_lower_level_every_task_is_told_at_once(hanging_module):
    with FallbackExecutor(2, budget="1 GB", policy=SOON, levels=("process",)) as executor:
        batch = executor.run(hanging_module.job, range(40))
    assert {outcome.cause for outcome in batch.outcomes} == {"timeout"}
    assert all(isinstance(outcome.error, StartTimeoutError) for outcome in batch.outcomes)


@pytest.mark.usefixtures("_fork_server")
@pytest.mark.parametrize("levels", [("process",), ("thread",)])
def test_an_initializer_that_never_returns_is_told(levels):
    with FallbackExecutor(
        2, budget="1 GB", policy=SOON, levels=levels, initializer=time.sleep, initargs=(90,)
    ) as executor:
        began_s = time.monotonic()
        futures = [executor.submit(jobs.square, number) for number in range(5)]
        errors = {str(future.exception()) for future in futures}
        executor.shutdown()
        assert time.monotonic() - began_s < 80
    (error,) = errors
    assert "the initializer did not return within" in error


SCRIPT = """
    import sys, time
    from pytest_membudget import ExecutorPolicy, FallbackExecutor

    if __name__ != "__main__":
        time.sleep(3600)

    def job(item):
        return 2 * item

    if __name__ == "__main__":
        policy = ExecutorPolicy(start_timeout_s={limit})
        with FallbackExecutor(2, budget="1 GB", policy=policy, mp_context={context!r}) as executor:
            print(executor.run(job, range(5)).values, executor.level, flush=True)
"""


def script(tmp_path, context, limit):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(SCRIPT.format(context=context, limit=limit)))
    return [sys.executable, str(path)]


@pytest.mark.parametrize("context", [pytest.param("spawn", marks=pytest.mark.slow), None])
def test_a_script_that_blocks_when_workers_import_it_leads_to_threads(tmp_path, context):
    done = subprocess.run(
        script(tmp_path, context, 3), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout == "[0, 2, 4, 6, 8] thread\n"
    assert "was not up within" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_program_that_waits_for_such_a_script_can_be_ended(tmp_path, number):
    child = subprocess.Popen(
        script(tmp_path, None, None), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not (family := servers_of(child.pid)):
            time.sleep(0.05)
        if number == signal.SIGINT:
            time.sleep(0.5)  # so that the program waits for it
        child.send_signal(number)
        assert child.wait(timeout=60) != 0
        psutil.wait_procs(family, timeout=30)
        assert not [each for each in family if each.is_running() and each.status() != "zombie"]
    finally:
        child.kill()
        child.wait()


def servers_of(pid):
    found = []
    for each in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ends just now
            if "fork_server_main" in str(each.cmdline()):
                found.append(each)
    return found
