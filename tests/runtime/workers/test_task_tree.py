"""A call takes what it starts, too: programs, pools, what left its session, and what it leaves running."""

import multiprocessing
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pytest_membudget import FallbackExecutor, measure
from pytest_membudget.measurement.process.children import descendants
from pytest_membudget.measurement.system.control_group import make_control_group
from pytest_membudget.runtime.workers.process import ProcessLauncher
from pytest_membudget.runtime.workers.protocol import Call

MB = 1_000_000
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.processes,
    pytest.mark.timeout(90),
    pytest.mark.skipif(sys.platform != "linux", reason="trees are followed on Linux only"),
]

PROGRAM = "import sys, time; block = bytearray(b'x') * int(sys.argv[1]); time.sleep(float(sys.argv[2]))"


def command(size, hold_s):
    return [sys.executable, "-S", "-c", PROGRAM, str(size), str(hold_s)]


def run_program(size):
    subprocess.run(command(size, 0.2), check=True)


def run_shell(size):
    assert os.system(shlex.join(command(size, 0.2))) == 0


def hold(size):
    block = bytearray(b"x") * size
    time.sleep(0.2)
    return len(block)


def run_pool(size):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(hold, [size // 2, size // 2], 1)


def fork_twice(size):
    """What holds the memory has left the session, and its parent has ended."""
    ended, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            hold(size)
            os.write(theirs, b"x")
        os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    assert os.read(ended, 1) == b"x"


def run_two_at_once(size):
    """Two threads start a program each, in the same moment, and both programs hold until the last one does."""
    program = "import sys; block = bytearray(b'x') * int(sys.argv[1]); print(flush=True); sys.stdin.read()"
    at_once, both = threading.Barrier(2), threading.Barrier(2)

    def run():
        at_once.wait()
        words = [sys.executable, "-S", "-c", program, str(size // 2)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            both.wait()
            time.sleep(0.2)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def leave_running(size):
    child = subprocess.Popen(command(size, 60))
    time.sleep(0.3)
    return child.pid


def start_without_python(size):
    """A start that no hook of Python's sees, as libraries in C make it."""
    import ctypes

    assert ctypes.CDLL(None).system(shlex.join(command(size, 0.2)).encode()) == 0


def start_nothing(size):
    return len(bytearray(b"x") * size)


@pytest.fixture
def worker():
    started = ProcessLauncher().start()
    call(started, start_nothing, 0, sequence=0)  # it imports this module
    yield started
    started.kill()
    started.join()


def call(worker, fn, *args, sequence=1):
    ended, replies = threading.Event(), []
    worker.send(
        [(Call(sequence, fn, args, {}, exact=True), lambda reply: (replies.append(reply), ended.set()))]
    )
    assert ended.wait(60)
    return replies[0]


alone_with_shared_memory = pytest.mark.usefixtures("alone_with_shared_memory")


@alone_with_shared_memory
@pytest.mark.parametrize("fn", [run_program, run_shell, run_pool, run_two_at_once, fork_twice, leave_running])
def test_a_call_takes_what_it_starts(worker, fn):
    figures = call(worker, fn, 60 * MB).figures
    upper_bytes = figures.peak_upper_bytes or figures.peak_bytes
    assert 57 * MB < figures.peak_bytes < 72 * MB
    assert figures.peak_bytes <= upper_bytes < 90 * MB


def test_a_call_that_starts_nothing_is_exact_and_has_no_helper(worker):
    figures = call(worker, start_nothing, 30 * MB).figures
    assert figures.peak_bytes == pytest.approx(30 * MB, abs=2 * MB)
    assert figures.peak_upper_bytes is None
    assert descendants(worker.pid) == []


@alone_with_shared_memory
def test_what_nothing_told_of_is_bounded_and_the_next_call_is_measured(worker):
    first = call(worker, start_without_python, 60 * MB, sequence=1).figures
    second = call(worker, start_without_python, 60 * MB, sequence=2).figures
    assert first.peak_bytes < 60 * MB < first.peak_upper_bytes
    assert 57 * MB < second.peak_bytes < 72 * MB


def test_what_a_call_leaves_running_is_kept_by_its_worker_and_ends_with_it(worker):
    reply = call(worker, leave_running, 60 * MB)
    assert reply.figures.kept_bytes > 57 * MB
    assert worker.reading().held_bytes > 57 * MB
    worker.retire()
    worker.join()
    end_s = time.monotonic() + 20
    while _lives(reply.value) and time.monotonic() < end_s:
        time.sleep(0.02)
    assert not _lives(reply.value)


def measure_here(size):
    return measure(start_nothing, size).peak_bytes


@alone_with_shared_memory
def test_a_call_may_measure_itself(worker):
    reply = call(worker, measure_here, 30 * MB)
    assert reply.value == pytest.approx(30 * MB, abs=2 * MB)
    assert reply.figures.peak_bytes == pytest.approx(30 * MB, abs=12 * MB)  # what starts its helper among it


def run_executor(numbers):
    with FallbackExecutor(2, budget="500 MB") as executor:
        return executor.run(abs, numbers).values, executor.level


def test_an_executor_runs_in_a_worker_of_another(worker):
    assert call(worker, run_executor, [-1, -2, -3, -4]).value == ([1, 2, 3, 4], "process")


@alone_with_shared_memory
def test_neighbours_are_told_apart(worker):
    neighbour = ProcessLauncher().start()
    call(neighbour, start_nothing, 0, sequence=0)
    ended, replies = threading.Event(), []
    large = Call(1, run_program, (80 * MB,), {}, exact=True)
    neighbour.send([(large, lambda reply: (replies.append(reply), ended.set()))])
    small = call(worker, run_program, 10 * MB).figures
    assert ended.wait(60)
    neighbour.kill()
    neighbour.join()
    assert small.peak_bytes == pytest.approx(13 * MB, abs=10 * MB)
    assert replies[0].figures.peak_bytes == pytest.approx(83 * MB, abs=10 * MB)


def end_under(worker, fn, size):
    """Ends the worker while it holds that much; everything that was below it then."""
    ended = threading.Event()
    worker.send([(Call(1, fn, (size,), {}), lambda _: ended.set())])
    end_s = time.monotonic() + 20
    while worker.reading().held_bytes < 0.9 * size and time.monotonic() < end_s:
        time.sleep(0.01)
    family = [worker.pid, *descendants(worker.pid)]
    worker.kill()
    assert ended.wait(20)
    return family


def hold_for_long(size):
    block = bytearray(b"x") * size
    time.sleep(60)
    return len(block)


def leave_the_session(size):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            hold_for_long(size)
        os._exit(0)
    time.sleep(60)


def fill_memory_file(size):
    file = os.memfd_create("held")
    os.truncate(file, size)
    for _ in range(size // MB):
        os.write(file, b"x" * MB)
    time.sleep(60)


def fill_unlinked_file(size):
    with Path(f"/dev/shm/membudget-test-{os.getpid()}").open("wb") as file:
        Path(file.name).unlink()
        file.write(b"x" * size)
        file.flush()
        time.sleep(60)


@alone_with_shared_memory
@pytest.mark.parametrize("fn", [fill_memory_file, fill_unlinked_file])
def test_files_in_memory_that_a_call_holds_open_are_seen_while_it_runs(worker, fn):
    before_bytes = worker.reading().held_bytes
    worker.send([(Call(1, fn, (60 * MB,), {}), lambda _: None)])
    end_s = time.monotonic() + 20
    while worker.reading().held_bytes - before_bytes < 57 * MB and time.monotonic() < end_s:
        time.sleep(0.01)
    assert 57 * MB < worker.reading().held_bytes - before_bytes < 130 * MB


def share_with_three_forks(size, done):
    block = bytearray(b"x") * size
    forks = []
    for _ in range(3):
        if (pid := os.fork()) == 0:
            time.sleep(0.1)  # they end while they are being read
            os._exit(len(block) == 0)
        forks.append(pid)
        time.sleep(0.03)
    for pid in forks:
        os.waitpid(pid, 0)
    Path(done).touch()


def test_what_forks_share_with_their_worker_counts_once_while_they_come_and_go(worker, tmp_path):
    done, before_bytes, most_bytes = tmp_path / "done", worker.reading().held_bytes, 0
    worker.send([(Call(1, share_with_three_forks, (60 * MB, str(done)), {}), lambda _: None)])
    end_s = time.monotonic() + 20
    while not done.exists() and time.monotonic() < end_s:
        most_bytes = max(most_bytes, worker.reading().held_bytes - before_bytes)
    assert 57 * MB < most_bytes < 75 * MB  # three times as much were counted


def start_a_server(ready):
    subprocess.Popen(
        [sys.executable, "-c", f"x = b'x' * {60 * MB}; open({ready!r}, 'x'); input()"], stdin=subprocess.PIPE
    )
    while not Path(ready).exists():
        time.sleep(0.01)


def test_what_an_initializer_has_started_is_its_workers_base_and_no_calls(tmp_path):
    worker = ProcessLauncher(None, start_a_server, (str(tmp_path / "ready"),)).start()
    try:
        reply = call(worker, run_program, 30 * MB)
        reading = worker.reading()
    finally:
        worker.kill()
        worker.join()
    assert reading.base_bytes >= 60 * MB
    assert reading.held_bytes < 30 * MB
    # How close the upper figure is depends on when the tree is read; what is proven does not.
    assert 30 * MB <= reply.figures.peak_bytes < 55 * MB
    assert reply.figures.peak_bytes <= reply.figures.peak_upper_bytes
    assert reply.figures.kept_bytes < 30 * MB


def fill_until_read(size, seen):
    """Holds `size` bytes in a memory file until the other side has read it."""
    with os.fdopen(os.memfd_create("held"), "wb", buffering=0) as file:
        for _ in range(size // MB):
            file.write(b"x" * MB)
        while not Path(seen).exists():
            time.sleep(0.005)


@alone_with_shared_memory
def test_files_in_memory_that_were_read_while_a_call_ran_are_in_its_peak(worker, tmp_path):
    ended, replies, before_bytes = threading.Event(), [], worker.reading().held_bytes
    filling = Call(1, fill_until_read, (60 * MB, str(tmp_path / "seen")), {}, exact=True)
    worker.send([(filling, lambda reply: (replies.append(reply), ended.set()))])
    end_s = time.monotonic() + 20
    while worker.reading().held_bytes - before_bytes < 59 * MB and time.monotonic() < end_s:
        time.sleep(0.01)
    (tmp_path / "seen").touch()
    assert ended.wait(60)
    figures = replies[0].figures
    assert 50 * MB < figures.peak_bytes <= figures.peak_upper_bytes < 80 * MB
    assert call(worker, start_nothing, 10 * MB, sequence=2).figures.peak_bytes < 20 * MB


def close_and_wait(size, seen):
    """Fills a file in /dev/shm, closes it, and removes it when the other side has seen that."""
    file = Path(f"/dev/shm/membudget-test-{os.getpid()}")
    file.write_bytes(b"x" * size)
    file.with_suffix(".closed").touch()
    while not Path(seen).exists():
        time.sleep(0.005)
    file.unlink()


@alone_with_shared_memory
def test_a_file_in_memory_that_a_call_has_closed_is_in_its_upper_figure(worker, tmp_path):
    ended, replies = threading.Event(), []
    closing = Call(1, close_and_wait, (60 * MB, str(tmp_path / "seen")), {}, exact=True)
    worker.send([(closing, lambda reply: (replies.append(reply), ended.set()))])
    closed, end_s = Path(f"/dev/shm/membudget-test-{worker.pid}.closed"), time.monotonic() + 20
    while not closed.exists() and time.monotonic() < end_s:
        time.sleep(0.005)
    worker.reading()
    (tmp_path / "seen").touch()
    assert ended.wait(60)
    closed.unlink()
    figures = replies[0].figures
    assert figures.peak_upper_bytes - figures.peak_bytes > 50 * MB  # its own peak has the bytes that it wrote


@pytest.mark.parametrize("fn", [start_nothing, run_program, run_pool])
def test_the_kernel_holds_the_limit_of_a_call(worker, fn):
    group = make_control_group(None)
    if group is None:
        pytest.skip("this process may make no control group")
    group.close()
    ended, replies = threading.Event(), []
    limited = Call(1, fn, (400 * MB,), {}, exact=True, limit_bytes=60 * MB)
    worker.send([(limited, lambda reply: (replies.append(reply), ended.set()))])
    while not worker.reading().reached_limit and not ended.is_set():
        time.sleep(0.005)
    worker.kill()
    assert ended.wait(60)
    assert replies[0].figures.reached_limit


def test_a_limit_that_is_not_reached_changes_nothing(worker):
    ended, replies = threading.Event(), []
    limited = Call(1, run_program, (30 * MB,), {}, exact=True, limit_bytes=60 * MB)
    worker.send([(limited, lambda reply: (replies.append(reply), ended.set()))])
    assert ended.wait(60)
    assert not replies[0].figures.reached_limit
    assert call(worker, start_nothing, 100 * MB, sequence=2).value == 100 * MB


@pytest.mark.parametrize("fn", [hold_for_long, leave_the_session, leave_running])
def test_a_worker_is_ended_with_everything_it_has_started(worker, fn):
    family = end_under(worker, fn, 60 * MB)
    end_s = time.monotonic() + 20
    while (left := [pid for pid in family if _lives(pid)]) and time.monotonic() < end_s:
        time.sleep(0.02)
    assert left == []


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    except OSError:
        return False
