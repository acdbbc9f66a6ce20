"""The interval for a whole tree, from scripted schedules of processes whose every page is known."""

import itertools
import math
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_membudget.measurement.tree_helper.bounds import PAGE, Bounds
from pytest_membudget.measurement.tree_helper.figures import Proportional, Reading
from pytest_membudget.measurement.tree_helper.sessions import LONGEST_TIMELINE, Session, Timeline

ROOT = 1
MIB = 1024 * 1024


class Kernel:
    """Processes as sets of pages. Every action is one instant; the truth is how many different pages are held."""

    def __init__(self, pages):
        self._numbers = itertools.count()
        self._pids = itertools.count(ROOT + 1)
        self.pages = {ROOT: {next(self._numbers) for _ in range(pages)}}
        self.family = {ROOT: ROOT}
        self.parent = {ROOT: 0}
        self.faults = {ROOT: 0}
        self.reaped = {ROOT: 0}
        self.zombies = set()
        self.told = {}  # faults at the last reading
        self.truth_peak = self.truth
        self.root_peak = pages

    @property
    def truth(self):
        return len(set().union(*self.pages.values()))

    def living(self):
        return [pid for pid in self.pages if pid not in self.zombies]

    def act(self, action, which, amount):
        living = self.living()
        getattr(self, action)(living[which % len(living)], amount)
        self.truth_peak = max(self.truth_peak, self.truth)
        self.root_peak = max(self.root_peak, len(self.pages[ROOT]))

    def allocate(self, pid, amount):
        self.pages[pid] |= {next(self._numbers) for _ in range(amount)}
        self.faults[pid] += amount

    def free(self, pid, amount):
        self.pages[pid] -= set(sorted(self.pages[pid])[:amount])

    def write(self, pid, amount):
        shared = set().union(*(pages for other, pages in self.pages.items() if other != pid))
        copied = sorted(self.pages[pid] & shared)[:amount]
        self.pages[pid] -= set(copied)
        self.allocate(pid, len(copied))

    def fork(self, pid, amount):
        child = next(self._pids)
        self.pages[child] = set(self.pages[pid])
        self.family[child] = self.family[pid]
        self.parent[child], self.faults[child], self.reaped[child] = pid, 0, 0
        self.allocate(child, 1)  # no process runs without a page of its own

    def execute(self, pid, amount):
        if pid != ROOT:
            self.pages[pid] = set()
            self.family[pid] = (pid, self.faults[pid], next(self._numbers))
            self.allocate(pid, amount)

    def end(self, pid, amount):
        lost = not self.parent[pid] and self.told.get(pid) != (self.faults[pid], self.reaped[pid])
        lost |= any(self.parent[zombie] == pid for zombie in self.zombies)
        if pid == ROOT or lost:  # what an orphan did after its last reading is nobody's to tell
            return
        for child in [c for c, parent in self.parent.items() if parent == pid]:
            self.parent[child] = 0  # an orphan
            if child in self.zombies:
                self._forget(child)
        self.pages[pid] = set()
        self.zombies.add(pid)
        if amount % 2 or not self.parent[pid]:
            self.reap(pid, amount)

    def reap(self, pid, amount):
        for zombie in [pid] if pid in self.zombies else [z for z in self.zombies if self.parent[z] == pid]:
            if self.parent[zombie]:
                self.reaped[self.parent[zombie]] += self.faults[zombie] + self.reaped[zombie]
            self._forget(zombie)

    def _forget(self, pid):
        self.zombies.discard(pid)
        for table in (self.pages, self.family, self.parent, self.faults, self.reaped):
            del table[pid]

    def reading(self, pid):
        self.told[pid] = (self.faults[pid], self.reaped[pid])
        return Reading(
            pid,
            len(self.pages[pid]) * PAGE,
            faults=self.faults[pid],
            reaped_faults=self.reaped[pid],
            family=self.family[pid],
        )

    def correction(self, pid):
        mappers = {p: sum(p in pages for pages in self.pages.values()) for p in self.pages[pid]}
        proportional = sum(Fraction(1, count) for count in mappers.values())
        return math.floor((proportional - len(mappers)) * PAGE)

    def look(self, actions):
        """Processes are looked at one after the other, and the tree moves on meanwhile."""
        found = Proportional({})
        for pid in list(self.pages):
            if pid in self.pages:
                found.correction[pid] = self.correction(pid)
            if actions:
                self.act(*actions.pop())
        return found


ACTIONS = st.tuples(
    st.sampled_from(["allocate", "allocate", "free", "write", "fork", "execute", "end", "reap"]),
    st.integers(0, 5),
    st.integers(1, 40),
)
STEPS = st.lists(
    st.tuples(st.booleans(), st.lists(ACTIONS, max_size=4), st.lists(ACTIONS, max_size=3)),
    min_size=2,
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(start=st.integers(0, 50), steps=STEPS)
def test_the_truth_is_never_outside_the_interval(start, steps):
    kernel, bounds = Kernel(start), Bounds()
    for _ in range(2):
        interval = bounds.update([kernel.reading(ROOT)])
    session = Session(0.0, ROOT)
    session.begin_alone(interval, [kernel.reading(ROOT)], start * PAGE)
    for at_s, (looks, between, during) in enumerate(steps):
        for action in between:
            kernel.act(*action)
        pending = list(during)
        proportional = kernel.look(pending) if looks else None
        readings = [kernel.reading(pid) for pid in kernel.pages]
        interval = bounds.update(readings, proportional=proportional)
        session.update(at_s, interval, readings)
        assert interval.low <= kernel.truth_peak * PAGE
        for action in pending:
            kernel.act(*action)
    readings = [kernel.reading(pid) for pid in kernel.pages]
    session.update(len(steps), bounds.update(readings), readings)
    truth = (kernel.truth_peak - start) * PAGE
    own = (kernel.root_peak - start) * PAGE
    assert session.peak_low <= truth <= max(session.peak_high, own)


def rounds(*all_readings, **last):
    bounds = Bounds()
    for readings in all_readings[:-1]:
        bounds.update(readings)
    return bounds.update(all_readings[-1], **last)


def test_what_a_fork_shares_is_counted_once_after_a_closer_look():
    parent = Reading(1, 200 * MIB, family="f")
    child = Reading(2, 210 * MIB, family="f", faults=10 * MIB // PAGE)
    look = Proportional({1: -100 * MIB, 2: -100 * MIB})
    blind = rounds([parent], [parent, child], [parent, child])
    assert (blind.held.low, blind.held.high) == (210 * MIB, 210 * MIB)
    seen = rounds([parent, child], [parent, child], [parent, child], proportional=look)
    assert (seen.held.low, seen.held.high) == (210 * MIB, 210 * MIB + 2 * PAGE)


def test_a_handover_between_two_readings_is_not_counted_twice():
    before = [Reading(1, 0), Reading(2, 100 * MIB), Reading(3, 0)]
    # 3 was given 100 MiB after 2 was read and before 2 gave up its own.
    after = [Reading(1, 0), Reading(2, 100 * MIB), Reading(3, 100 * MIB, faults=100 * MIB // PAGE)]
    found = rounds(before, before, after)
    assert found.held.low == 100 * MIB
    assert found.held.peak == 200 * MIB


def test_a_child_that_nobody_saw_is_in_the_upper_figure():
    found = rounds([Reading(1, MIB)], [Reading(1, MIB)], [Reading(1, MIB, reaped_faults=1000)])
    assert found.missed == 1000 * PAGE
    assert not found.alone
    assert (found.held.low, found.held.peak) == (MIB, MIB + 1000 * PAGE)


def test_a_child_that_was_reaped_between_two_reads_of_one_round_is_not_counted_twice():
    child = Reading(2, 1000 * PAGE, faults=1000)
    both, gone = [Reading(1, MIB), child], [Reading(1, MIB)]
    found = rounds(both, both, gone, [Reading(1, MIB, reaped_faults=1010)])
    assert found.held.peak == MIB + 10 * PAGE


def test_shared_memory_that_everybody_maps_is_limited_by_its_own_size():
    before = [Reading(1, 0, shmem=150 * MIB), Reading(2, 0), Reading(3, 0)]
    after = [Reading(pid, 0, shmem=150 * MIB, faults=150 * MIB // PAGE) for pid in (1, 2, 3)]
    assert rounds(before, before, after).held.high == 450 * MIB
    limited = rounds(before, before, after, shmem_limit=150 * MIB)
    assert (limited.held.high, limited.held.peak) == (150 * MIB, 300 * MIB)


def test_a_huge_page_may_come_with_one_fault():
    found = rounds([Reading(1, 0)], [Reading(1, 0)], [Reading(1, 0, faults=1)], huge_pages=1)
    assert found.held.peak == 2 * MIB + PAGE


def test_a_process_that_was_there_leaves_the_start_with_what_it_held():
    there = [Reading(1, 10 * MIB), Reading(2, 300 * MIB)]
    bounds = Bounds()
    for _ in range(2):
        interval = bounds.update(there)
    session = Session(0.0, ROOT)
    session.begin_among(interval, there)
    assert session.start_bytes == 310 * MIB
    grown = [Reading(1, 60 * MIB, faults=50 * MIB // PAGE)]
    for at_s in (1, 2):
        session.update(at_s, bounds.update(grown), grown)
    assert session.start_bytes == 10 * MIB
    assert session.peak_low == 50 * MIB


def test_a_timeline_keeps_its_peak_in_64_points():
    timeline = Timeline()
    for at in range(10_000):
        timeline.add(at / 1000, 7_777 if at == 4321 else at % 100)
    points = timeline.points()
    assert 16 < len(points) <= LONGEST_TIMELINE
    assert max(size for _, size in points) == 7_777
    assert points == sorted(points)
