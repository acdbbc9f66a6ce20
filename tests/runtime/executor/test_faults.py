"""What goes wrong on real machines: in each case one outcome per input, right values, and no process left behind."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import executor_jobs as jobs
import psutil
import pytest
from scripted import without_pressure

from pytest_membudget import ExecutorPolicy, FallbackExecutor, MemoryEstimator, WorkerKilledError
from pytest_membudget.runtime.workers import in_process
from pytest_membudget.runtime.workers import process as process_worker
from pytest_membudget.runtime.workers.protocol import CannotStartError
from waiting import is_alive, wait_until

pytestmark = pytest.mark.processes

HERE = str(Path(__file__).parents[1])


def workers_of(pid):
    """Worker processes below `pid`, by what they have open: children of its fork server or its own."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if "forkserver" in line and child.ppid() != pid:
            found.append(child)
    return found


def killer(stop, kills, seed, killed):
    """Sends SIGKILL to random workers of this process, and notes whom."""
    chance = random.Random(seed)
    while len(killed) < kills and not stop.is_set():
        workers = workers_of(os.getpid())
        if workers:
            victim = chance.choice(workers)
            try:
                victim.send_signal(signal.SIGKILL)
                killed.append(victim.pid)
            except psutil.Error:
                pass
        time.sleep(chance.uniform(0.005, 0.03))


def run_under_fire(tasks, kills):
    stop = threading.Event()
    policy = ExecutorPolicy(retries=25)
    with FallbackExecutor(2, budget="1 GB", policy=policy, levels=("process",)) as executor:
        killed = []
        thread = threading.Thread(target=killer, args=(stop, kills, 7, killed))
        thread.start()
        try:
            batch = executor.run(jobs.square_slowly, range(tasks))
        finally:
            stop.set()
            thread.join()
    assert batch.values == [number * number for number in range(tasks)]
    assert not workers_of(os.getpid())
    assert len(killed) == kills


def test_workers_killed_at_random_lose_nothing():
    run_under_fire(400, 12)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_kills_in_five_thousand_tasks_lose_nothing():
    run_under_fire(5000, 200)


def refusing(error):
    def start(self):
        raise CannotStartError(str(error))

    return start


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OSError(errno.EAGAIN, "Resource temporarily unavailable"),
        RuntimeError("can't start new thread"),
        ImportError("This platform lacks a functioning sem_open implementation"),
    ],
)
def test_where_processes_cannot_start_threads_take_over(monkeypatch, caplog, error):
    def no_pool(*args, **kwargs):
        raise error

    monkeypatch.setattr(process_worker, "ProcessWorker", no_pool)
    with FallbackExecutor(2, budget="1 GB") as executor:
        batch = executor.run(jobs.square, range(20))
    assert batch.values == [number * number for number in range(20)]
    assert {outcome.level for outcome in batch.outcomes} == {"thread"}
    (event,) = batch.events
    assert (event.kind, event.level) == ("fallback", "process")
    assert str(error) in event.cause
    assert [record.getMessage() for record in caplog.records] == [str(event)]


def test_where_threads_cannot_start_either_it_goes_on_one_by_one(monkeypatch):
    monkeypatch.setattr(process_worker.ProcessLauncher, "start", refusing("no process"))
    monkeypatch.setattr(in_process.ThreadLauncher, "start", refusing("no thread"))
    with FallbackExecutor(2, budget="1 GB") as executor:
        batch = executor.run(jobs.square, range(20))
        assert executor.submit(jobs.square, 5).result() == 25
    assert batch.values == [number * number for number in range(20)]
    assert {outcome.level for outcome in batch.outcomes} == {"sequential"}
    assert [event.level for event in batch.events] == ["process", "thread"]


def test_without_any_thread_the_caller_does_it(monkeypatch):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with FallbackExecutor(2, budget="1 GB") as executor:
        assert executor.run(jobs.square, range(5)).values == [0, 1, 4, 9, 16]
        assert executor.level == "sequential"


def test_without_a_lower_level_it_is_said(monkeypatch):
    monkeypatch.setattr(process_worker.ProcessLauncher, "start", refusing("no process"))
    with FallbackExecutor(2, budget="1 GB", levels=("process",)) as executor:
        error = executor.submit(jobs.square, 2).exception()
    assert "no process worker can be started: no process" in str(error)


def test_one_worker_is_enough_where_a_second_cannot_start(monkeypatch):
    real = process_worker.ProcessLauncher.start
    started = []

    def once(self):
        if started:
            raise CannotStartError("full")
        started.append(real(self))
        return started[0]

    monkeypatch.setattr(process_worker.ProcessLauncher, "start", once)
    policy = ExecutorPolicy(max_tasks_per_child=None)
    with FallbackExecutor(4, budget="1 GB", policy=policy) as executor:
        batch = executor.run(jobs.square, range(20))
    assert batch.values == [number * number for number in range(20)]
    assert {outcome.level for outcome in batch.outcomes} == {"process"}


PROGRAM = """
import json, resource, sys
sys.path.insert(0, {here!r})
import executor_jobs as jobs
from pytest_membudget import FallbackExecutor, ExecutorPolicy

if __name__ == "__main__":
    {setup}
    with FallbackExecutor(2, budget="500 MB"{more}) as executor:
        batch = executor.run({job}, {items})
    print(json.dumps([[outcome.cause, outcome.level, outcome.attempts] for outcome in batch.outcomes]))
"""


def program(tmp_path, job="jobs.square", items="range(8)", setup="", more=""):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.format(here=HERE, setup=setup, job=job, items=items, more=more))
    return [sys.executable, str(path)]


def finished(argv, **kwargs):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False, **kwargs)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="limits by user id and processes are Linux's")
@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become a user without processes"
)
def test_a_user_who_may_not_start_processes_gets_every_result(tmp_path):
    # A user id of its own has no processes yet: two threads are all that the limit leaves.
    # It may not be able to read our files either, so all modules are loaded before.
    setup = (
        "import os, pytest_membudget.runtime.executor.batch; "
        "resource.setrlimit(resource.RLIMIT_NPROC, (2, 2)); os.setuid(54321)"
    )
    outcomes, errors = finished(program(tmp_path, setup=setup))
    assert [cause for cause, _, _ in outcomes] == ["ok"] * 8
    assert {level for _, level, _ in outcomes} <= {"thread", "sequential"}
    assert "no process worker can be started" in errors


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no RLIMIT_AS")
def test_a_task_beyond_the_address_space_is_repeated_then_reported(tmp_path):
    setup = "resource.setrlimit(resource.RLIMIT_AS, (700_000_000, 700_000_000))"
    outcomes, _ = finished(program(tmp_path, "jobs.fill", "[1000, 2_000_000_000, 1000, 1000]", setup))
    assert outcomes[0] == ["ok", "process", 1]
    assert outcomes[1] == ["out-of-memory", "process", 3]
    assert [cause for cause, _, _ in outcomes[2:]] == ["ok", "ok"]


@pytest.mark.kernel
def test_the_kernels_oom_killer_costs_one_outcome(tmp_path, memory_group):
    limit_bytes = 400 * 1024 * 1024
    join = memory_group(limit_bytes)
    items = "[1000, 2_000_000_000, 1000, 1000, 1000]"
    argv = program(tmp_path, "jobs.fill", items, more=", policy=ExecutorPolicy(retries=1)")
    outcomes, _ = finished(argv, preexec_fn=join)
    assert [cause for cause, _, _ in outcomes] == ["ok", "killed", "ok", "ok", "ok"]
    assert outcomes[1][2] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be told whom to end first")
def test_workers_offer_themselves_before_the_coordinator():
    here = Path("/proc/self/oom_score_adj")
    with FallbackExecutor(1, budget="1 GB") as executor:
        offered = int(executor.submit(here.read_text).result())
        server_pid = executor.submit(os.getppid).result()
        servers = int(Path(f"/proc/{server_pid}/oom_score_adj").read_text())
    own = int(here.read_text())
    if own > 0:
        pytest.skip("this process is offered itself")
    # While the memory of a worker is being freed, the server is the next: its loss costs nothing that runs.
    assert own < servers < offered


@pytest.fixture
def memory_group():
    """Makes a memory control group and returns what joins it; skipped where none can be made."""
    made = []
    roots = {Path("/sys/fs/cgroup/memory"): "memory.limit_in_bytes", Path("/sys/fs/cgroup"): "memory.max"}

    def make(limit_bytes):
        for root, limit in roots.items():
            group = root / f"membudget-test-{os.getpid()}"
            try:
                group.mkdir()
                made.append(group)
                (group / limit).write_text(str(limit_bytes))
            except OSError:
                continue
            return lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
        return pytest.skip(
            "no memory control group can be made here (it needs root and a writable hierarchy)"
        )

    yield make
    for group in made:
        wait_until(lambda group=group: not (group / "cgroup.procs").read_text().strip())
        group.rmdir()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_when_the_coordinator_is_ended_nobody_stays_behind(tmp_path, number):
    setup = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    of_known_memory = "range(6), memory='1 MB'"  # so that two start at once
    argv = program(tmp_path, "jobs.hang", of_known_memory, setup)
    child = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until(lambda: len(workers_of(child.pid)) >= 2)
        family = psutil.Process(child.pid).children(recursive=True)
        child.send_signal(number)
        assert child.wait(timeout=60) != 0
        wait_until(lambda: not [each for each in family if is_alive(each)])
    finally:
        child.kill()
        child.wait()


def test_eight_programs_at_once_all_finish(tmp_path):
    argv = program(tmp_path, items="range(40)")
    children = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    for child in children:
        output, _ = child.communicate(timeout=110)
        assert [cause for cause, _, _ in json.loads(output)] == ["ok"] * 40


def test_a_script_without_a_guard_still_runs_its_work_once(tmp_path):
    path = tmp_path / "unguarded.py"
    path.write_text(
        "from pytest_membudget import FallbackExecutor\n"
        "print('begins')\n"
        "with FallbackExecutor(2, budget='1 GB') as executor:\n"
        "    print(executor.run(abs, [-1, -2, -3, -4]).values)\n"
    )
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout.count("[1, 2, 3, 4]") == 1
    (line,) = without_pressure(done.stderr).splitlines()
    assert "put it under `if __name__" in line
    assert line.endswith("continues with level 'thread'")


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 3),
    reason="Python 3.12.0 to 3.12.2 start no thread once the script has ended",
)
def test_what_was_submitted_is_finished_before_the_interpreter_ends(tmp_path):
    path = tmp_path / "leaves_early.py"
    path.write_text(
        f"import sys; sys.path.insert(0, {HERE!r})\n"
        "import executor_jobs as jobs\n"
        "from pytest_membudget import FallbackExecutor\n"
        "if __name__ == '__main__':\n"
        "    executor = FallbackExecutor(1, budget='1 GB')\n"
        "    for _ in range(5):\n"
        "        executor.submit(jobs.pid_after, 0.05).add_done_callback(lambda future: print(future.result() > 0))\n"
    )
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stdout.split(), without_pressure(done.stderr)) == (["True"] * 5, "")


def test_a_dropped_executor_finishes_and_ends():
    executor = FallbackExecutor(1, budget="1 GB")
    futures = [executor.submit(jobs.pid_after, 0.01) for _ in range(5)]
    del executor
    (pid,) = {future.result() for future in futures}
    wait_until(lambda: not psutil.pid_exists(pid))


def test_overruns_are_charged_and_told():
    estimator = MemoryEstimator(gamma=0, overhead="1 MB")
    with FallbackExecutor(1, budget="500 MB", estimator=estimator) as executor:
        executor.submit(jobs.fill_and_wait, 50_000_000, 0.5).result()
    assert "overrun" in {event.kind for event in executor.events}


def test_killed_tasks_are_reported_with_what_killed_them():
    with FallbackExecutor(1, budget="1 GB", policy=ExecutorPolicy(retries=0)) as executor:
        error = executor.submit(jobs.die, 0).exception()
    assert isinstance(error, WorkerKilledError)
    assert "was killed by SIGKILL while it ran die(0), tried once" in str(error)


def test_a_crash_is_told_apart_from_a_kill():
    with FallbackExecutor(1, budget="1 GB", policy=ExecutorPolicy(retries=0)) as executor:
        outcomes = executor.run(jobs.crash, ["SIGSEGV", "", "SIGKILL", "SIGABRT"]).outcomes
    assert [outcome.cause for outcome in outcomes] == ["killed"] * 4
    assert ["a crash rather" in str(outcome.error) for outcome in outcomes] == [True, True, False, False]


@pytest.mark.skipif(sys.platform != "linux", reason="there is no fork server of ours")
def test_a_fork_server_that_was_killed_is_started_again(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        """
import os, signal
from pytest_membudget.runtime.workers.fork_server import server_for
from pytest_membudget import FallbackExecutor

def job(item):
    return -item

if __name__ == "__main__":
    servers = set()
    for moment in range(4):
        with FallbackExecutor(2, budget="1 GB") as executor:
            if moment:
                os.kill(server_for(()).pid, signal.SIGKILL)
            values = executor.run(job, range(5)).values
            print(values, executor.level, [event for event in executor.events if event.kind != "pressure"])
        servers.add(server_for(()).pid)
    print(len(servers))
"""
    )
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=80, check=False, cwd=tmp_path
    )
    assert done.stdout.splitlines() == ["[0, -1, -2, -3, -4] process []"] * 4 + ["4"], done.stderr
