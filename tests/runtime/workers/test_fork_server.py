"""The fork server of our own: it shares nothing of the script, outlives nothing, and its loss costs nothing that runs."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import psutil
import pytest
from scripted import without_pressure

from pytest_membudget import FallbackExecutor
from pytest_membudget.runtime.workers.fork_server import ForkServer, server_for
from waiting import is_alive, wait_until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(90),
    pytest.mark.skipif(sys.platform != "linux", reason="fork servers are Linux's"),
]


def output_of(tmp_path, code, **modules):
    """What a program prints, its workers' output included, and its exit within the time."""
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    return done.stdout.splitlines(), without_pressure(done.stderr)


def test_what_a_script_opens_and_draws_is_each_workers_own(tmp_path):
    lines, errors = output_of(
        tmp_path,
        """
        import os, threading
        from pytest_membudget import ExecutorPolicy, FallbackExecutor

        TOKEN = os.urandom(4).hex()
        FILE = open(__file__)
        LOCK = threading.Lock()
        threading.Thread(target=lambda: LOCK.acquire() and threading.Event().wait(), daemon=True).start()

        def tell(_):
            assert FILE.tell() == 0 and FILE.read(1)
            return TOKEN, os.getpid()

        if __name__ == "__main__":
            with FallbackExecutor(2, budget="1 GB", policy=ExecutorPolicy(max_tasks_per_child=1)) as executor:
                told = executor.run(tell, range(4)).values
            print(len({token for token, _ in told}), len({pid for _, pid in told}))
        """,
    )
    assert (lines, errors) == (["4 4"], "")


def test_a_script_that_reads_arguments_at_its_top_runs(tmp_path):
    lines, errors = output_of(
        tmp_path,
        """
        import argparse
        from pytest_membudget import FallbackExecutor
        argparse.ArgumentParser().parse_args()

        def double(item):
            return 2 * item

        if __name__ == "__main__":
            with FallbackExecutor(1, budget="1 GB") as executor:
                print(executor.run(double, range(4)).values)
        """,
    )
    assert (lines, errors) == (["[0, 2, 4, 6]"], "")


PRELOADING = """
    import sys
    from pytest_membudget.runtime.workers.process import ProcessLauncher
    from pytest_membudget.runtime.workers.protocol import Call
    import threading

    def call(worker, fn, *args):
        ended, replies = threading.Event(), []
        worker.send([(Call(1, fn, args, {}), lambda reply: (replies.append(reply), ended.set()))])
        assert ended.wait(30)
        return replies[0].value

    def is_loaded(name):
        return name in sys.modules

    if __name__ == "__main__":
        worker = ProcessLauncher(preload=("loaded_before",)).start()
        print(call(worker, is_loaded, "loaded_before"))
        worker.retire()
        worker.join()
    """


def test_modules_that_are_named_are_loaded_before_the_fork(tmp_path):
    lines, errors = output_of(tmp_path, PRELOADING, loaded_before="LOADED = True")
    assert (lines, errors) == (["True"], "")


@pytest.mark.parametrize("library", ["numpy", "pandas"])
def test_libraries_whose_threads_survive_a_fork_are_preloaded(tmp_path, library):
    pytest.importorskip(library)
    lines, errors = output_of(tmp_path, PRELOADING, loaded_before=f"import {library}")
    assert (lines, errors) == (["True"], "")


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (
            "import threading; threading.Thread(target=threading.Event().wait, name='pool', daemon=True).start()",
            "left 1 thread running, pool",
        ),
        ("FILE = open(__file__)", "left open: "),
        ("import socket; PAIR = socket.socketpair()", "left open: socket:"),
        ("1 / 0", "importing loaded_before raised ZeroDivisionError: division by zero"),
    ],
)
def test_what_would_be_shared_is_not_preloaded_and_said(tmp_path, module, why):
    lines, errors = output_of(tmp_path, PRELOADING, loaded_before=module)
    assert lines == ["False"]
    assert f"the fork server does not preload loaded_before: it {why}".replace(": it imp", ": imp") in errors


def test_the_programs_other_pools_keep_their_own_server(tmp_path):
    lines, errors = output_of(
        tmp_path,
        """
        import multiprocessing, pathlib
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import forkserver
        from pytest_membudget import FallbackExecutor

        def score():
            return int(pathlib.Path("/proc/self/oom_score_adj").read_text())

        if __name__ == "__main__":
            with FallbackExecutor(1, budget="1 GB") as executor:
                executor.submit(score).result()
            print(forkserver._forkserver._preload_modules, forkserver._forkserver._forkserver_pid)
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
                print(pool.submit(score).result() == score())
        """,
    )
    assert (lines, errors) == (["['__main__'] None", "True"], "")


def test_workers_go_on_when_their_server_is_killed():
    with FallbackExecutor(1, budget="1 GB") as executor:
        pid = executor.submit(os.getpid).result()
        os.kill(server_for(()).pid, signal.SIGKILL)
        assert executor.submit(os.getpid).result() == pid
        executor.submit(os.kill, pid, signal.SIGKILL)
        assert executor.submit(os.getpid).result() != pid
    assert {event.level for event in executor.events} <= {"process"}


def test_a_standard_stream_that_is_closed_is_no_other_file_in_a_worker(tmp_path):
    """A program that a task starts would write its output there."""
    lines, errors = output_of(
        tmp_path,
        """
        import os, subprocess, sys
        from pytest_membudget import FallbackExecutor

        def target(_):
            subprocess.run(["echo", "hello"], check=True)
            return os.readlink("/proc/self/fd/1")

        if __name__ == "__main__":
            os.close(1)
            with FallbackExecutor(1, budget="1 GB") as executor:
                print(executor.run(target, [0]).values, file=sys.stderr)
        """,
    )
    assert (lines, errors) == ([], "['/dev/null']\n")


def test_workers_start_where_the_key_of_the_process_is_of_another_type(monkeypatch):
    """In celery's workers it is billiard's, which can be pickled by billiard alone."""

    class Key(bytes):
        def __reduce__(self):
            raise TypeError("not to be pickled")

    monkeypatch.setitem(multiprocessing.current_process()._config, "authkey", Key(b"key"))
    with FallbackExecutor(1, budget="1 GB", levels=("process",)) as executor:
        assert executor.submit(abs, -1).result() == 1


def test_a_server_that_is_gone_before_its_end_is_known_is_started_again(monkeypatch):
    """A killed process closes its socket first; until its parent can wait for it, it seems to run."""
    server = ForkServer()
    starts = []

    def start():
        starts.append(0)
        server._control, theirs = socket.socketpair()
        server._process = SimpleNamespace(poll=lambda: None)
        if len(starts) == 1:
            theirs.close()
        else:
            monkeypatch.setattr(server, "_theirs", theirs, raising=False)

    monkeypatch.setattr(server, "_start", start)
    server.fork([])
    assert len(starts) == 2
    server._control.close()
    server._theirs.close()


def test_a_stopped_server_is_replaced():
    with FallbackExecutor(1, budget="1 GB") as executor:
        pid = executor.submit(os.getpid).result()
        server_pid = server_for(()).pid
        os.kill(server_pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        assert executor.submit(os.getpid).result(30) != pid
        assert executor.level == "process"
        assert not is_alive(server_pid)


LEAVES_DAEMON = """
    import os, time
    from pytest_membudget import FallbackExecutor

    def leave_daemon(_):
        pid = os.fork()
        if pid == 0:
            os.setsid()
            time.sleep(600)
        return pid

    if __name__ == "__main__":
        with FallbackExecutor(1, budget="1 GB") as executor:
            print(*executor.run(leave_daemon, [1, 2, 3, 4]).values)
    """


def test_what_tasks_leave_running_ends_with_the_program(tmp_path):
    lines, errors = output_of(tmp_path, LEAVES_DAEMON)
    assert errors == ""
    wait_until(lambda: not any(is_alive(int(pid)) for pid in lines[0].split()))


def run_executor(numbers):
    with FallbackExecutor(2, budget="500 MB") as executor:
        return executor.run(abs, numbers).values, executor.level


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_an_executor_runs_in_a_worker_of_a_pool(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(run_executor, ([-1, -2, -3, -4],)) == ([1, 2, 3, 4], "process")


STUCK = """
    import time
    from pytest_membudget import FallbackExecutor

    if __name__ == "__mp_main__":
        time.sleep(600)

    if __name__ == "__main__":
        with FallbackExecutor(2, budget="1 GB") as executor:
            executor.submit(abs, 1).result()
    """


@pytest.mark.parametrize("is_stopped", [False, True])
def test_nothing_stays_behind_a_program_that_was_killed(tmp_path, is_stopped):
    (tmp_path / "program.py").write_text(textwrap.dedent(STUCK))
    program = subprocess.Popen([sys.executable, tmp_path / "program.py"])
    try:
        wait_until(lambda: len(psutil.Process(program.pid).children(recursive=True)) >= 3)
        children = psutil.Process(program.pid).children(recursive=True)
        family = [each for each in children if "forkserver" in str(each.cmdline())]  # and no resource tracker
        if is_stopped:
            for each in family:
                each.send_signal(signal.SIGSTOP)
    finally:
        program.kill()
        program.wait()
    wait_until(lambda: not any(map(is_alive, family)))
