"""What the helper reads of one process, what happened between two scans by page faults, and what follows for the whole tree.

All figures are bytes. Slots are written by hand: to import `dataclasses` takes half as long as all else that the helper imports.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
HUGE_PAGE = 2 * 1024 * 1024
PAGES_MAPPED_AT_ONCE = 16
_NONE: Mapping[int, int] = MappingProxyType({})


class Reading:
    """One process in one scan.

    `faults` are pages it faulted in until its sizes were read, `late_faults` those that came while they were read, and
    `reaped_faults` those of its dead children. `swapped` is how much of its shared memory may have taken the place of
    other shared memory since its mappings were looked up before.
    """

    __slots__ = (
        "anon",
        "faults",
        "file",
        "fork_group",
        "late_faults",
        "mark",
        "parent",
        "pid",
        "reaped_faults",
        "shmem",
        "swapped",
    )

    def __init__(
        self,
        pid: int,
        anon: int,
        *,
        file: int = 0,
        shmem: int = 0,
        faults: int = 0,
        late_faults: int = 0,
        reaped_faults: int = 0,
        fork_group: object = None,
        mark: int | None = None,
        parent: int = 0,
        swapped: int = 0,
    ) -> None:
        self.pid = pid
        self.parent = parent
        self.swapped = swapped
        self.anon = anon
        self.file = file
        self.shmem = shmem
        self.faults = faults
        self.late_faults = late_faults
        self.reaped_faults = reaped_faults
        self.fork_group = pid if fork_group is None else fork_group
        self.mark = mark  # its own high-water mark, shared pages included, where that was read

    @property
    def resident(self) -> int:
        """All that the process maps, shared pages included."""
        return self.anon + self.file + self.shmem


class Proportional(NamedTuple):
    """What a sample of proportional sizes between the scan before and this one found, by process.

    It shows nothing while a fork is under way (`forking`): what is shared with a child that shows nowhere else yet. No more does it
    while a process clears its memory, which shows nowhere else any more.
    """

    correction: dict[
        int, int
    ]  # proportional less resident anonymous memory, never above 0: what a sum counts too often
    shmem: Mapping[int, int] = _NONE  # proportional
    file: Mapping[int, int] = _NONE  # likewise
    private: Mapping[int, int] = _NONE  # not shared
    forking: bool = False


class FilePages(NamedTuple):
    """What is mapped of files, in bytes: `union` with each page once, and `resident` as the kernel's counts go."""

    union: int
    resident: int


class Span:
    """At least `low` at one instant, at most `high` now, at most `peak` at any moment since the scan before."""

    __slots__ = ("high", "low", "peak")

    def __init__(self, low: int, high: int, peak: int) -> None:
        self.high = high
        self.low = min(low, max(high, peak))
        self.peak = max(high, peak)

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.high + other.high, self.peak + other.peak)


class Interval(NamedTuple):
    """The tree in one scan: what its processes hold, the file pages they map, and what is known of each of them."""

    held: Span
    file: Span
    file_added: int  # all file pages that were added since the first scan
    alone: bool  # one process, and no trace of another since the scan before
    missed: int  # faulted in by processes that ended before they could be read
    moving: int  # faulted in by all processes since the scan before
    leaving: dict[int, tuple[int, int]]  # by process: what the tree loses when it ends, at least and at most
    forked: bool = False  # a process was born since the scan before
    counted_twice: int = 0  # how much higher the peak is as a sum of resident sizes
    excess: int | None = None  # what such a sum counted more than once where it was sampled in this scan
    excess_left: int = 0  # and at the scan's end, at least
    overdue: int = 0  # faulted in by processes that were gone in the scan before, and counted in this one
    settled: Mapping[int, int] = _NONE  # by process: anonymous memory that it held since the scan before
    born: Mapping[int, int] = _NONE  # by process that was born since the scan before: faulted in by it
    unseen: int = 0  # faulted in by processes that died since, after their last reading
    file_counted: bool = False  # whether file pages were counted one by one in this scan
    file_fallen: int = 0  # file pages that were given up since the scan before

    @property
    def low(self) -> int:
        """The whole tree's lower figure."""
        return self.held.low + self.file.low

    @property
    def high(self) -> int:
        """The whole tree's upper figure at this moment."""
        return self.held.high + self.file.high


class Change:
    """What happened between two scans. A process that has called exec counts as ended and born.

    By process: `growth` is all that it may have faulted in between the two moments its sizes were read, `anon_growth` the
    part that may be anonymous and was on its account when its faults were read, and `late` what came on the account while
    its sizes were read. Sizes are later than faults: shared memory may be mapped already whose faults are only counted in
    the next scan. They are the `skew`, and no anonymous memory then.
    """

    def __init__(
        self,
        before: dict[int, Reading],
        now: list[Reading],
        huge_pages: int,
        credit: int = 0,
        skew: dict[int, int] | None = None,
    ) -> None:
        self.before = before
        self.now = now
        same = {r.pid for r in now if r.pid in before and before[r.pid].fork_group == r.fork_group}
        self.born = {r.pid for r in now if r.pid not in same}
        self.ended = [r for pid, r in before.items() if pid not in same]
        self.growth: dict[int, int] = {}
        self.anon_growth: dict[int, int] = {}
        self.late: dict[int, int] = {}
        self.skew: dict[int, int] = {}
        for reading in now:
            earlier = before.get(reading.pid)
            faults = max(0, reading.faults - (earlier.faults if earlier else 0))
            brought = faulted(faults, huge_pages)
            late = reading.late_faults * PAGE
            self.late[reading.pid] = late
            self.growth[reading.pid] = brought + late
            new = max(0, brought - (skew or {}).get(reading.pid, 0))
            mapped = _mapped(reading, earlier)
            hidden = min(new, reading.mark - reading.resident) if reading.mark is not None else 0
            self.anon_growth[reading.pid] = max(0, new - mapped, hidden)
            self.skew[reading.pid] = min(late, max(0, mapped - new))
        # What a process born in this scan may have added before a call of exec: the rest is in its new memory.
        self.before_exec = {
            r.pid: max(0, self.anon_growth[r.pid] + self.late[r.pid] - r.anon)
            for r in now
            if r.pid in self.born
        }
        # Processes that may have had a fork since that no scan saw while it lived.
        self.secretive = {r.parent for r in now if r.pid in self.born and not r.resident}
        self.credit = 0
        self.unseen = self._unseen(huge_pages, credit)

    def lonely(self) -> bool:
        """One process only, and no trace of another since the scan before; those that have ended hold nothing."""
        if self.ended or self.unseen or self.born:
            return False
        others = any(r.resident or self.growth[r.pid] or self.before[r.pid].resident for r in self.now[1:])
        return not others

    def _unseen(self, huge_pages: int, credit: int) -> int:
        """What processes that died since the scan before, seen or not, may have faulted in after their last reading.

        Faults of a reaped child go to its parent's account, so that those of the whole tree are never lost. A parent is
        read before its children: one that was reaped in between is gone in this scan, and on the account in the next.
        Until then its faults are the credit.
        """
        living = {reading.pid for reading in self.now}
        known = sum(r.faults + r.reaped_faults for pid, r in self.before.items() if pid not in living)
        reaped = 0
        waited = set()
        for reading in self.now:
            earlier = self.before.get(reading.pid)
            since = max(0, reading.reaped_faults - (earlier.reaped_faults if earlier else 0))
            reaped += since
            if since:
                waited.add(reading.pid)
        if reaped > known + credit:
            self.secretive |= waited
        self.credit = min(known, max(0, known + credit - reaped))
        return faulted(max(0, reaped - known - credit), huge_pages)


def by_fork_group(readings: Iterable[Reading]) -> dict[object, list[Reading]]:
    """Who shares anonymous memory with whom."""
    fork_groups: dict[object, list[Reading]] = {}
    for reading in readings:
        fork_groups.setdefault(reading.fork_group, []).append(reading)
    return fork_groups


def _mapped(reading: Reading, earlier: Reading | None) -> int:
    """The least that files and shared memory had of what was faulted in: they are mapped now and were not before.

    One fault maps up to 16 pages of a file, and one page of shared memory where it is written to. Where it is only read
    more come at once and hide as much anonymous memory that came and went; the process's high-water mark shows that.
    """
    # A fork maps what its parent had of some files without a fault of its own.
    file = reading.file - (earlier.file if earlier else reading.file)
    shmem = reading.shmem - (earlier.shmem if earlier else 0)
    return max(0, file) // PAGES_MAPPED_AT_ONCE + max(0, shmem)


def faulted(faults: int, huge_pages: int) -> int:
    """The most memory that so many faults can have brought, in bytes."""
    return faults * PAGE + min(huge_pages, faults) * HUGE_PAGE
