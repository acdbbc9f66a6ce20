"""A scripted kernel: processes as sets of pages, whose every page is known, and a watch over them."""

import itertools
import math
from fractions import Fraction

from pytest_membudget.measurement.tree.helper.records import PAGE, Proportional, Reading
from pytest_membudget.measurement.tree.helper.session import Session
from pytest_membudget.measurement.tree.helper.tree_bounds import Bounds

ROOT = 1


class Kernel:
    """Processes as sets of pages. Every action is one instant; the truth is how many different pages are held.

    A fork has two: the copy, when parent and child share all that they have and the child shows nowhere, and the return,
    when each gets a page of its own for its stack.
    """

    def __init__(self, pages):
        self._numbers = itertools.count()
        self._pids = itertools.count(ROOT + 1)
        self.pages = {ROOT: {next(self._numbers) for _ in range(pages)}}
        self.fork_group = {ROOT: ROOT}
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
        self.fork_group[child], self.stack[child] = self.fork_group[pid], self.stack[pid]
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
            self.fork_group[pid] = (pid, self.faults[pid], next(self._numbers))
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
        for table in (self.pages, self.fork_group, self.parent, self.faults, self.reaped, self.stack):
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
                    fork_group=self.fork_group[pid],
                    parent=self.parent[pid],
                )
            )
        return found

    def correction(self, pid):
        mappers = {p: sum(p in pages for pages in self.pages.values()) for p in self.pages[pid]}
        proportional = sum(Fraction(1, count) for count in mappers.values())
        return math.floor((proportional - len(mappers)) * PAGE)

    def look(self, actions):
        """Processes are looked at one after the other, and the tree moves on meanwhile."""
        correction, forking = {}, False
        for pid in self.visible():
            if pid in self.pages:
                correction[pid] = self.correction(pid)
                others = set().union(*(pages for other, pages in self.pages.items() if other != pid))
                forking |= pid not in self.zombies and self.pages[pid] <= others
            if actions:
                self.act(*actions.pop())
        return Proportional(correction, forking=forking)


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
