"""What the kernel's own marks of children prove: peaks of an instant, that nobody was there to see."""

import subprocess
import sys

import pytest

from pytest_membudget.measurement.tree.combine import Own, combine
from pytest_membudget.measurement.tree.helper.messages import Summary
from pytest_membudget.measurement.tree.helper.records import PAGE, PAGES_MAPPED_AT_ONCE, Reading
from pytest_membudget.measurement.tree.helper.session import Session
from pytest_membudget.measurement.tree.helper.tree_bounds import Bounds

MIB = 1024 * 1024
ROOT = 1


def play(*rounds, faulted=0):
    """A block whose root, of 60 MiB of which 20 are files, had `faulted` so much when the first scan was read."""
    bounds, session = Bounds(), Session(0.0, ROOT)
    start = [root()]
    session.begin_alone(bounds.update(start), start, 60 * MIB)
    session.marks.begin(start, faulted, 0)
    for readings in rounds:
        session.update(0.0, bounds.update(readings), readings)
    return session


def root(anon=40 * MIB, faults=0):
    return Reading(ROOT, anon, file=20 * MIB, faults=faults, fork_group="root")


def program(anon=MIB, mark=None):
    return Reading(2, anon, file=MIB, faults=300 * MIB // PAGE, mark=mark)


def test_a_programs_mark_is_proven_beside_what_the_root_held_throughout():
    session = play([root(), program()], [root(), program(mark=200 * MIB)])
    assert session.by_marks == session.peak_low == (200 + 40 - 60) * MIB
    assert session.total_low == 240 * MIB


def test_what_the_root_gave_up_meanwhile_is_not_proven_beside_it():
    given_up = [root(10 * MIB), program()]
    assert play(given_up, [root(), program(mark=200 * MIB)]).by_marks == (200 + 10 - 60) * MIB
    swapped = [root(faults=30 * MIB // PAGE), program(mark=200 * MIB)]
    assert play([root(), program()], swapped).by_marks == (200 + 10 - 60) * MIB
    assert play([root(), program(mark=200 * MIB)], faulted=30 * MIB).by_marks == (200 + 10 - 60) * MIB


def test_of_a_forks_mark_nothing_is_proven_beside_it():
    fork = Reading(2, 50 * MIB, faults=5, fork_group="root", mark=200 * MIB)
    session = play([root(), fork])
    assert session.by_marks == (200 - 60) * MIB
    assert session.summary().floor_bytes == 0


def test_a_mark_from_before_the_block_proves_nothing():
    bounds, session = Bounds(), Session(0.0, ROOT)
    there = [root(), program()]
    session.begin_among(bounds.update(there), there)
    session.marks.begin(there, 0, 0)
    after = [root(), program(mark=200 * MIB)]
    session.update(0.0, bounds.update(after), after)
    assert session.by_marks == 0


def test_what_was_faulted_in_out_of_sight_is_hidden():
    session = play([root()])
    assert session.marks.hidden == 0
    reaped = Reading(ROOT, 40 * MIB, file=20 * MIB, reaped_faults=100, fork_group="root")
    assert play([reaped]).marks.hidden == 100 * PAGE * PAGES_MAPPED_AT_ONCE
    young = Reading(2, MIB, faults=10, late_faults=5)
    assert play([root(), young]).marks.hidden == 15 * PAGE * PAGES_MAPPED_AT_ONCE


OWN = Own(60 * MIB, 70 * MIB, 60 * MIB)


def combined(mark, **facts):
    tree = Summary(0, 300 * MIB, 0, 60 * MIB, 60 * MIB, (), (), **facts)
    return combine(OWN, tree, pid=ROOT, child_mark_bytes=mark)


def test_the_mark_of_a_dead_child_is_proven_beside_the_floor_where_no_fork_can_have_had_it():
    m = combined(200 * MIB, floor_bytes=40 * MIB, hidden_bytes=50 * MIB)
    assert (m.peak_bytes, m.source, m.interval_s) == (180 * MIB, "kernel", None)
    assert m.total_peak_bytes == 240 * MIB
    may_be_a_fork = combined(200 * MIB, floor_bytes=40 * MIB, hidden_bytes=130 * MIB)
    assert may_be_a_fork.peak_bytes == 140 * MIB


def test_a_mark_that_this_process_had_itself_proves_nothing_of_a_child():
    m = combined(70 * MIB, floor_bytes=40 * MIB)
    assert (m.peak_bytes, m.source) == (10 * MIB, "sampled")


def test_without_a_helper_the_mark_alone_is_proven():
    m = combine(OWN, None, pid=ROOT, child_mark_bytes=200 * MIB)
    assert (m.peak_bytes, m.peak_upper_bytes, m.processes) == (140 * MIB, 140 * MIB, 2)


def test_where_nothing_can_be_read_a_childs_mark_has_no_start():
    own = Own(80 * MIB, 80 * MIB, 80 * MIB, 160 * MIB, readable=False)
    assert combine(own, None, pid=ROOT, child_mark_bytes=200 * MIB).peak_bytes == 0


# In a fresh process, whose account of dead children is empty, and beside a helper that is stopped: nobody sees anything.
UNSEEN = """
import mmap, os, signal, subprocess, sys
from pytest_membudget import measuring
from pytest_membudget.measurement.tree import sampler

MIB = 1 << 20
words = [sys.executable, "-I", "-S", "-c"]

def program(size):
    subprocess.run([*words, f"b'x' * {size}"], check=True)

def chain(size):
    subprocess.run([*words, "import subprocess, sys; subprocess.run(sys.argv[1:])", *words, f"b'x' * {size}"], check=True)

def fork(size):
    if not (pid := os.fork()):
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).write(b"x" * size)
        os._exit(0)
    os.waitpid(pid, 0)

def measured(work):
    with measuring() as probe:
        os.kill(sampler.sampler().pid, signal.SIGSTOP)
        work()
        os.kill(sampler.sampler().pid, signal.SIGCONT)
    m = probe.measurement
    print(m.peak_bytes, m.peak_upper_bytes, m.start_bytes, m.source)

with measuring():
    pass
"""


def unseen(*works):
    script = UNSEEN + "\n".join(works)
    lines = subprocess.check_output([sys.executable, "-c", script], text=True).splitlines()
    return [(*map(int, line.split()[:3]), line.split()[3]) for line in lines]


on_linux = [
    pytest.mark.kernel,
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="the helper watches Linux processes"),
]


@pytest.mark.parametrize("work", [pytest.param(name, marks=on_linux) for name in ("program", "chain")])
def test_a_spike_of_an_instant_in_a_child_that_nobody_saw(work):
    ((low, high, start, source),) = unseen(f"measured(lambda: {work}(200 * MIB))")
    assert 200 * MIB - start <= low <= 210 * MIB
    assert high >= 200 * MIB
    assert source == "kernel"


@pytest.mark.kernel
@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="the helper watches Linux processes")
def test_a_fork_that_nobody_saw_is_not_proven_with_what_it_shares():
    hold = "block = b'x' * (150 * MIB)"
    ((low, high, *_),) = unseen(hold, "measured(lambda: fork(30 * MIB))")
    # Forty are private beside the block: its own thirty, twice for a moment, and what Python writes to.
    assert low <= 64 * MIB
    assert high >= 60 * MIB


@pytest.mark.kernel
@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="the helper watches Linux processes")
def test_the_mark_of_a_child_of_an_earlier_block_proves_nothing():
    first, second = unseen("measured(lambda: program(200 * MIB))", "measured(lambda: program(100 * MIB))")
    assert first[0] > 100 * MIB
    assert second[0] < 20 * MIB
    assert second[1] >= 100 * MIB
