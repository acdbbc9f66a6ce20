"""The interval for a whole tree, from scripted schedules of processes whose every page is known."""

import itertools
import math
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_membudget.measurement.tree_helper.bounds import Bounds
from pytest_membudget.measurement.tree_helper.changes import PAGE
from pytest_membudget.measurement.tree_helper.crest import Crest
from pytest_membudget.measurement.tree_helper.figures import Proportional, Reading
from pytest_membudget.measurement.tree_helper.sessions import LONGEST_TIMELINE, Session, Timeline

ROOT = 1
MIB = 1024 * 1024


class Kernel:
    """Processes as sets of pages. Every action is one instant; the truth is how many different pages are held.

    A fork has two: the copy, when parent and child share all that they have and the child shows nowhere, and the return,
    when each gets a page of its own for its stack.
    """

    def __init__(self, pages):
        self._numbers = itertools.count()
        self._pids = itertools.count(ROOT + 1)
        self.pages = {ROOT: {next(self._numbers) for _ in range(pages)}}
        self.family = {ROOT: ROOT}
        self.parent = {ROOT: 0}
        self.faults = {ROOT: 0}
        self.reaped = {ROOT: 0}
        self.stack = {}
        self.zombies = set()
        self.hidden = {}  # children that show nowhere yet, by parent
        self.told = {}  # faults at the last reading
        self.truth_peak = self.root_peak = 0
        self._run(ROOT)
        self.start = self.truth
        self._note()

    @property
    def truth(self):
        return len(set().union(*self.pages.values()))

    def living(self):
        return [pid for pid in self.visible() if pid not in self.zombies]

    def visible(self):
        return [pid for pid in self.pages if pid not in self.hidden.values()]

    def act(self, action, which, amount):
        living = self.living()
        pid = living[which % len(living)]
        if pid in self.hidden:
            action = "come_back"
        getattr(self, action)(pid, amount)
        self._note()

    def _note(self):
        self.truth_peak = max(self.truth_peak, self.truth)
        self.root_peak = max(self.root_peak, len(self.pages[ROOT]))

    def _run(self, pid):
        self.pages[pid].discard(self.stack.get(pid))
        self.stack[pid] = next(self._numbers)
        self.pages[pid].add(self.stack[pid])
        self.faults[pid] += 1

    def allocate(self, pid, amount):
        self.pages[pid] |= {next(self._numbers) for _ in range(amount)}
        self.faults[pid] += amount

    def free(self, pid, amount):
        self.pages[pid] -= set(sorted(self.pages[pid] - {self.stack[pid]})[:amount])

    def churn(self, pid, amount):
        """Takes and gives back the same again and again."""
        for _ in range(3):
            self.allocate(pid, amount)
            self._note()
            newest = sorted(self.pages[pid] - {self.stack[pid]})[-amount:]
            self.pages[pid] -= set(newest)

    def write(self, pid, amount):
        shared = set().union(*(pages for other, pages in self.pages.items() if other != pid))
        copied = sorted(self.pages[pid] & shared)[:amount]
        self.pages[pid] -= set(copied)
        self.allocate(pid, len(copied))

    def fork(self, pid, amount):
        self.hidden[pid] = child = next(self._pids)
        self.pages[child] = set(self.pages[pid])
        self.family[child], self.stack[child] = self.family[pid], self.stack[pid]
        self.parent[child], self.faults[child], self.reaped[child] = pid, 0, 0
        if amount % 3:
            self.come_back(pid, amount)

    def come_back(self, pid, amount):
        if pid in self.hidden:
            self._run(self.hidden.pop(pid))
            self._run(pid)

    def execute(self, pid, amount):
        if pid != ROOT:
            self.pages[pid] = set()
            self.family[pid] = (pid, self.faults[pid], next(self._numbers))
            self._run(pid)
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
        for table in (self.pages, self.family, self.parent, self.faults, self.reaped, self.stack):
            del table[pid]

    def readings(self, meanwhile=()):
        """Everybody's, each at one instant, but for a process that goes on while it is read."""
        found, meanwhile = [], list(meanwhile)
        for pid in self.visible():
            faults, reaped, grown = self.faults[pid], self.reaped[pid], meanwhile.pop() if meanwhile else 0
            if grown and pid not in self.zombies and pid not in self.hidden:
                self.churn(pid, grown)
                self.allocate(pid, grown)
                self._note()
            late = self.faults[pid] - faults
            self.told[pid] = (self.faults[pid], self.reaped[pid])
            size = len(self.pages[pid]) * PAGE
            found.append(
                Reading(
                    pid,
                    size,
                    faults=faults,
                    late_faults=late,
                    reaped_faults=reaped,
                    family=self.family[pid],
                )
            )
        return found

    def correction(self, pid):
        mappers = {p: sum(p in pages for pages in self.pages.values()) for p in self.pages[pid]}
        proportional = sum(Fraction(1, count) for count in mappers.values())
        return math.floor((proportional - len(mappers)) * PAGE)

    def look(self, actions):
        """Processes are looked at one after the other, and the tree moves on meanwhile."""
        found = Proportional({})
        for pid in self.visible():
            if pid in self.pages:
                found.correction[pid] = self.correction(pid)
                others = set().union(*(pages for other, pages in self.pages.items() if other != pid))
                found.forking |= pid not in self.zombies and self.pages[pid] <= others
            if actions:
                self.act(*actions.pop())
        return found


ACTIONS = st.tuples(
    st.sampled_from(["allocate", "churn", "free", "write", "fork", "fork", "execute", "end", "reap"]),
    st.integers(0, 5),
    st.integers(1, 40),
)
STEPS = st.lists(
    st.tuples(
        st.booleans(),
        st.lists(ACTIONS, max_size=4),
        st.lists(ACTIONS, max_size=3),
        st.lists(st.integers(0, 9), max_size=3),
    ),
    min_size=2,
    max_size=12,
)


class Play:
    """A kernel, watched."""

    def __init__(self, start):
        self.kernel, self.bounds = Kernel(start), Bounds()
        for _ in range(2):
            interval = self.bounds.update(self.kernel.readings())
        self.session = Session(0.0, ROOT)
        self.session.begin_alone(interval, self.kernel.readings(), self.kernel.start * PAGE)

    def round(self, *, looks=False, during=(), meanwhile=()):
        pending = list(during)
        proportional = self.kernel.look(pending) if looks else None
        readings = self.kernel.readings(meanwhile)
        interval = self.bounds.update(readings, proportional=proportional)
        self.session.update(0.0, interval, readings)
        assert interval.low <= self.kernel.truth_peak * PAGE
        for action in pending:
            self.kernel.act(*action)

    def check(self):
        truth = (self.kernel.truth_peak - self.kernel.start) * PAGE
        own = (self.kernel.root_peak - self.kernel.start) * PAGE
        assert self.session.peak_low <= truth <= max(self.session.peak_high, own)


@settings(max_examples=150, deadline=None)
@given(start=st.integers(0, 50), steps=STEPS)
def test_the_truth_is_never_outside_the_interval(start, steps):
    play = Play(start)
    for looks, between, during, meanwhile in steps:
        for action in between:
            play.kernel.act(*action)
        play.round(looks=looks, during=during, meanwhile=meanwhile)
    for parent in list(play.kernel.hidden):
        play.kernel.come_back(parent, 0)
    play.round()
    play.check()


WORK = st.tuples(
    st.sampled_from(["churn", "churn", "write", "allocate", "free", "fork"]),
    st.integers(0, 3),
    st.integers(1, 60),
)


@settings(max_examples=150, deadline=None)
@given(
    start=st.integers(20, 100),
    steps=st.lists(st.tuples(st.booleans(), st.lists(WORK, max_size=2)), min_size=1, max_size=6),
    last=st.booleans(),
)
def test_looks_at_what_is_left_of_a_family_leave_its_peak_above_the_truth(start, steps, last):
    play = Play(start)
    play.kernel.act("fork", 0, 1)
    for looks, actions in [(True, []), *steps]:
        play.round(looks=looks)
        for action in actions:
            play.kernel.act(*action)
    for round_ in range(4):
        if round_ or last:
            for pid in play.kernel.living():
                play.kernel.free(pid, 1000)
        play.round(looks=True)
    for parent in list(play.kernel.hidden):
        play.kernel.come_back(parent, 0)
    play.round()
    play.check()


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


def test_what_it_took_after_its_last_reading_is_on_top_of_what_it_had():
    bounds, session = Bounds(), Session(0.0, ROOT)
    session.begin_alone(bounds.update([Reading(ROOT, MIB)]), [Reading(ROOT, MIB)], MIB)
    child = Reading(2, 1000 * PAGE, faults=1000)
    reaped = Reading(ROOT, MIB, reaped_faults=1400)
    for at_s, readings in enumerate([[Reading(ROOT, MIB), child], [Reading(ROOT, MIB)], [reaped], [reaped]]):
        session.update(at_s, bounds.update(readings), readings)
    assert session.peak_high == 1400 * PAGE


def test_what_a_program_takes_is_not_counted_for_who_called_exec_too():
    before = [Reading(1, 10 * MIB, family="f"), Reading(2, 0, family="f")]
    after = [before[0], Reading(2, 20 * MIB, faults=20 * MIB // PAGE + 5)]
    assert rounds(before, before, after).held.peak == 30 * MIB + 10 * PAGE


def test_two_children_that_were_reaped_so_one_after_the_other_are_not_counted_twice():
    children = [Reading(2, 1000 * PAGE, faults=1000), Reading(3, 900 * PAGE, faults=900)]
    roots = [Reading(1, MIB, reaped_faults=faults) for faults in (0, 1000, 1900)]
    all_three = [roots[0], *children]
    without_one, alone = [roots[0], children[1]], [roots[1]]
    assert rounds(all_three, all_three, without_one, alone, [roots[2]]).held.peak == MIB


CHURN = [
    [Reading(1, 200 * MIB, family="f"), Reading(2, 220 * MIB, family="f", faults=at * 20 * MIB // PAGE)]
    for at in range(1, 6)
]
STILL = Proportional({1: -100 * MIB, 2: -100 * MIB})  # what was forked is shared as ever


def crest_of(readings, *, looked_at, forking=False):
    bounds, crest = Bounds(), Crest()
    for at, round_ in enumerate(readings):
        look = Proportional(STILL.correction, forking=forking) if at == looked_at else None
        interval = bounds.update(round_, proportional=look)
        if at:
            crest.add(interval, interval.held.peak)
    return crest.value


def test_what_a_fork_takes_and_gives_back_all_the_time_counts_once_after_a_look():
    unlooked = crest_of([*CHURN, CHURN[-1], CHURN[-1]], looked_at=None)
    assert unlooked > 400 * MIB  # every fault may have been the copy of a page that its parent keeps
    assert crest_of([*CHURN, CHURN[-1], CHURN[-1]], looked_at=5) < 245 * MIB


def test_a_look_that_a_fork_got_into_tells_nothing():
    child = [*CHURN[-1], Reading(3, 200 * MIB, family="f", faults=1)]
    assert crest_of([*CHURN, CHURN[-1], CHURN[-1]], looked_at=5, forking=True) > 400 * MIB
    assert crest_of([*CHURN, CHURN[-1], child], looked_at=5) > 400 * MIB


def test_what_comes_while_a_process_is_read_is_in_both_figures():
    found = rounds([Reading(1, 0)], [Reading(1, 0)], [Reading(1, 50 * PAGE, faults=20, late_faults=40)])
    assert (found.held.low, found.held.peak) == (0, 60 * PAGE)


def test_shared_memory_that_is_mapped_before_its_faults_are_counted_is_not_counted_as_private_too():
    before = [Reading(1, MIB, family="f"), Reading(2, MIB, family="f")]
    early = [before[0], Reading(2, MIB, shmem=100 * PAGE, faults=40, late_faults=60, family="f")]
    then = [before[0], Reading(2, MIB, shmem=100 * PAGE, faults=100, family="f")]
    assert rounds(before, before, early, then).held.peak == 2 * MIB + 100 * PAGE


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
