"""What happened between two rounds of readings, by page faults. All figures are bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable

from .records import Reading

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
HUGE_PAGE = 2 * 1024 * 1024
PAGES_MAPPED_AT_ONCE = 16


class Change:
    """What happened between two rounds. A process that has called exec counts as ended and born.

    By process: `growth` is all that it may have faulted in between the two moments its sizes were read, `anon_growth` the
    part that may be anonymous and was on its account when its faults were read, and `late` what came on the account while
    its sizes were read. Sizes are later than faults: shared memory may be mapped already whose faults are only counted in
    the next round. They are the `skew`, and no anonymous memory then.
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
        same = {r.pid for r in now if r.pid in before and before[r.pid].family == r.family}
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
        # What a process born in this round may have added before a call of exec: the rest is in its new memory.
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
        """One process only, and no trace of another since the round before; those that have ended hold nothing."""
        if self.ended or self.unseen or self.born:
            return False
        others = any(r.resident or self.growth[r.pid] or self.before[r.pid].resident for r in self.now[1:])
        return not others

    def _unseen(self, huge_pages: int, credit: int) -> int:
        """What processes that died since the round before, seen or not, may have faulted in after their last reading.

        Faults of a reaped child go to its parent's account, so that those of the whole tree are never lost. A parent is
        read before its children: one that was reaped in between is gone in this round, and on the account in the next.
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


def by_family(readings: Iterable[Reading]) -> dict[object, list[Reading]]:
    """Who shares anonymous memory with whom."""
    families: dict[object, list[Reading]] = {}
    for reading in readings:
        families.setdefault(reading.family, []).append(reading)
    return families


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
