"""Real process trees of known size, read by the real helper."""

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import subprocess
import sys

import pytest
from tree_programs import INTERPRETER, MIB, Fork, Holder, assert_holds, hold, settled, share, touch

from pytest_membudget import measuring
from pytest_membudget.measurement.tree import sampler

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="the tree helper reads /proc"),
]

BUSY = """
import subprocess, sys
loop = "import time; end_s = time.monotonic() + 900\\nwhile time.monotonic() < end_s: pass"
words = [sys.executable, "-I", "-S", "-c", loop]
print(*(subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL).pid for _ in range(3)))
"""


@pytest.fixture(scope="module", autouse=True, params=["quiet", pytest.param("busy", marks=pytest.mark.slow)])
def machine(request):
    """Every test also runs beside three busy loops, which are no part of the tree."""
    if request.param == "quiet":
        yield
        return
    sampler.close_sampler()
    loops = [int(word) for word in subprocess.check_output([sys.executable, "-c", BUSY]).split()]
    yield
    for pid in loops:
        os.kill(pid, signal.SIGKILL)


def test_a_program_started_with_subprocess():
    with measuring() as probe:
        holder = Holder(100 * MIB)
        settled()
        holder.release()
    m = probe.measurement
    assert_holds(m, 100 * MIB, own=INTERPRETER)
    assert (m.processes, m.source) == (2, "sampled")
    assert holder.process.pid in {share.pid for share in m.shares if share.peak_bytes > 100 * MIB}
    assert abs(m.retained_bytes) < 2 * MIB
    assert 0 < len(m.timeline) <= 64


def test_children_at_different_times_do_not_add_up():
    with measuring() as probe:
        for _ in range(3):
            holder = Holder(80 * MIB)
            settled()
            holder.release()
    assert_holds(probe.measurement, 80 * MIB, own=INTERPRETER)


def test_children_at_the_same_time_add_up():
    with measuring() as probe:
        holders = [Holder(60 * MIB) for _ in range(3)]
        settled()
        for holder in holders:
            holder.release()
    assert_holds(probe.measurement, 180 * MIB, own=3 * INTERPRETER)
    assert probe.measurement.processes == 4


def test_a_program_that_is_not_python():
    with measuring() as probe:
        # dd fills a buffer of 64 MiB before it writes, and blocks on a pipe that nobody reads yet
        words = ["dd", "if=/dev/zero", "bs=64M", "count=1", "status=none"]
        child = subprocess.Popen(words, stdout=subprocess.PIPE)
        settled()
        while child.stdout.read(65536):
            pass
        child.wait()
        child.stdout.close()
    assert_holds(probe.measurement, 64 * MIB, own=6 * MIB)


def test_a_grandchild():
    starter = "import subprocess, sys; subprocess.run([sys.executable, '-I', '-S', '-c', *sys.argv[1:]])"
    from tree_programs import HOLD

    with measuring() as probe:
        holder = Holder(100 * MIB, [sys.executable, "-c", starter, HOLD])
        settled()
        holder.release()
    assert_holds(probe.measurement, 100 * MIB, own=4 * INTERPRETER)
    assert probe.measurement.processes == 3


def test_an_orphan_whose_parent_has_left():
    from tree_programs import HOLD

    leaver = "import subprocess, sys; subprocess.Popen([sys.executable, '-I', '-S', '-c', *sys.argv[1:]])"
    with measuring() as probe:
        holder = Holder(100 * MIB, [sys.executable, "-c", leaver, HOLD])
        holder.process.wait()
        settled()
        holder.process.stdin.close()
        holder.process.stdout.read()  # ends when the orphan does
        holder.process.stdout.close()
    assert_holds(probe.measurement, 100 * MIB, own=4 * INTERPRETER)


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_multiprocessing(method):
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    with measuring() as probe:
        child = context.Process(target=hold_and_wait, args=(theirs,))
        child.start()
        assert ours.recv() == "held"
        settled()
        ours.send("go")
        child.join()
    multiprocessing.forkserver._forkserver._stop()
    multiprocessing.resource_tracker._resource_tracker._stop()
    m = probe.measurement
    assert 97 * MIB <= m.peak_bytes <= 200 * MIB  # spawn and forkserver bring interpreters of their own
    assert 100 * MIB <= m.peak_upper_bytes <= 1.5 * max(m.peak_bytes, 100 * MIB)
    assert m.processes >= 2


def hold_and_wait(connection):
    block = hold(100 * MIB)
    connection.send("held")
    connection.recv()
    block.close()


def test_memory_that_forked_children_share_counts_once():
    block = hold(150 * MIB)
    with measuring() as probe:
        children = [Fork(lambda: None) for _ in range(3)]
        settled()
        for child in children:
            child.release()
    block.close()
    assert probe.measurement.peak_bytes < 15 * MIB
    assert probe.measurement.peak_upper_bytes < 30 * MIB
    assert probe.measurement.processes == 4


def test_what_a_forked_child_writes_to_counts_again():
    block = hold(100 * MIB)
    with measuring() as probe:
        children = [Fork(lambda: touch(block, 50 * MIB)) for _ in range(2)]
        settled()
        for child in children:
            child.release()
    block.close()
    assert_holds(probe.measurement, 100 * MIB, own=8 * MIB)


def test_a_small_forked_child_of_a_large_process():
    block = hold(300 * MIB)
    with measuring() as probe:
        child = Fork(lambda: hold(20 * MIB))
        settled()
        child.release()
    block.close()
    assert_holds(probe.measurement, 20 * MIB, own=3 * MIB)


def test_a_small_program_started_by_a_large_process():
    block = hold(300 * MIB)
    with measuring() as probe:
        holder = Holder(20 * MIB)
        settled()
        holder.release()
    block.close()
    assert_holds(probe.measurement, 20 * MIB, own=INTERPRETER)


def test_shared_memory_counts_once():
    with measuring() as probe:
        block = share(120 * MIB)
        children = [Fork(lambda: touch(block)) for _ in range(3)]
        settled()
        for child in children:
            child.release()
        block.close()
    assert_holds(probe.measurement, 120 * MIB, own=15 * MIB)


def test_a_process_that_was_there_and_ends_leaves_the_start():
    holder = Holder(100 * MIB)
    with measuring() as probe:
        holder.release()
        settled()
        block = hold(40 * MIB)
        settled()
        block.close()
    m = probe.measurement
    assert m.peak_bytes == pytest.approx(40 * MIB, abs=3 * MIB)
    assert m.start_bytes == pytest.approx(m.end_bytes, abs=3 * MIB)


def test_a_process_that_was_there_counts_for_what_it_adds():
    holder = Holder(100 * MIB)
    with measuring() as probe:
        settled()
    holder.release()
    assert probe.measurement.peak_bytes < 2 * MIB
    assert probe.measurement.start_bytes > 100 * MIB


def test_a_process_that_outlives_the_block_is_in_its_end():
    with measuring() as probe:
        holder = Holder(60 * MIB)
        settled()
    holder.release()
    assert probe.measurement.retained_bytes > 58 * MIB


def test_a_child_that_exits_at_once_is_in_the_upper_figure_at_least():
    with measuring() as probe:
        for _ in range(5):
            subprocess.run(["true"], check=True)
    m = probe.measurement
    assert m.processes > 1 or m.caveats
    assert m.peak_bytes <= m.peak_upper_bytes < 40 * MIB


SPIKE = f"""
import mmap, sys
sys.stdin.readline()
block = mmap.mmap(-1, {150 * MIB}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
block.write(b"x" * len(block))
block.close()
print("done", flush=True)
sys.stdin.readline()
"""


def test_a_spike_of_an_instant_in_a_child_that_goes_on():
    with measuring() as probe:
        words = [sys.executable, "-I", "-S", "-c", SPIKE]
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        settled()
        child.stdin.write(b"\n")
        assert child.stdout.readline() == b"done\n"
        settled()
        child.communicate(b"\n")
    m = probe.measurement
    # A block and its copy. The root's own files are not counted beside the mark of a child that may map them too.
    assert 300 * MIB - m.start_bytes // 2 <= m.peak_bytes <= 310 * MIB
    assert 300 * MIB <= m.peak_upper_bytes <= 450 * MIB
