"""From readings of single processes to an interval for the memory of the whole tree, each page counted once.

All figures are bytes. A reading of several processes is never atomic, so no sum of it is taken at its word. Two
consecutive rounds are compared through page faults: memory that a process holds now and did not hold a moment ago was
faulted in meanwhile. With `f` bytes faulted in between two readings of a process,

- it held at least `now - f` at every moment between them (the lower figure, valid for one common instant), and
- it held at most `before + f` at any moment between them (the upper figure, spikes between the readings included).

Three kinds of memory are kept apart:

*anonymous*: shared only between a process and those forked from it without exec, here called a family. Copying on
write shows in faults, not in resident sizes. A family of one needs nothing more. For larger ones a reading of
proportional set sizes (`Proportional`) tells what is counted more than once; until one is there, the largest member
is the lower figure.

*shared memory* (`shmem`) and *file pages*: anybody may map them. Lower figure: the largest member, or the last
proportional reading less what was given up since. Upper figure: the sum, or the last upper figure plus what was added.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from .figures import Interval, Proportional, Reading, Span

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
HUGE_PAGE = 2 * 1024 * 1024
PAGES_MAPPED_AT_ONCE = 16


class Bounds:
    """Keeps what consecutive rounds have in common.

    Args:
        shared_outside: the root shares anonymous memory with a process outside the tree, so that proportional sizes
            are too small to bound it from above.
    """

    def __init__(self, *, shared_outside: bool = False) -> None:
        self._before: dict[int, Reading] = {}
        self._families = _Families(shared_outside=shared_outside)
        self._shmem = _Mapped("shmem")
        self._file = _Mapped("file")
        self._private: dict[int, int] = {}
        self._credit = 0

    def update(
        self,
        readings: list[Reading],
        *,
        huge_pages: int = 0,
        proportional: Proportional | None = None,
        file_limit: int | None = None,
        shmem_limit: int | None = None,
    ) -> Interval:
        """Takes one round.

        Args:
            readings: one of each living process.
            huge_pages: how many the machine handed out since the round before.
            proportional: what was read of shared memory since the round before; dropped where the tree changed.
            file_limit: the most file pages that all processes together can have mapped.
            shmem_limit: likewise for shared memory.
        """
        change = _Change(self._before, readings, huge_pages, self._credit)
        self._credit = change.credit
        if proportional and (change.born or change.ended or change.unseen):
            proportional = None
        anon = self._families.update(change, proportional)
        shmem = self._shmem.update(change, proportional, shmem_limit)
        file = self._file.update(change, proportional, file_limit)
        if proportional:
            self._private.update(proportional.private)
        held = anon + shmem
        held.peak += change.unseen
        self._before = {reading.pid: reading for reading in readings}
        return Interval(
            held,
            file,
            file_added=self._file.added,
            alone=change.lonely(),
            moving=sum(change.growth.values()) + change.unseen,
            missed=0 if change.ended else change.unseen,
            leaving={reading.pid: self._leaving(reading, readings) for reading in readings},
        )

    def _leaving(self, reading: Reading, readings: list[Reading]) -> tuple[int, int]:
        alone = not reading.shmem and all(
            other is reading or other.family != reading.family for other in readings
        )
        least = reading.anon if alone else min(self._private.get(reading.pid, 0), reading.anon)
        return least, reading.anon + reading.shmem


class _Change:
    """What happened between two rounds. A process that has called exec counts as ended and born."""

    def __init__(
        self, before: dict[int, Reading], now: list[Reading], huge_pages: int, credit: int = 0
    ) -> None:
        self.before = before
        self.now = now
        same = {r.pid for r in now if r.pid in before and before[r.pid].family == r.family}
        self.born = {r.pid for r in now if r.pid not in same}
        self.ended = [r for pid, r in before.items() if pid not in same]
        self.growth = {}
        self.anon_growth = {}
        for reading in now:
            earlier = before.get(reading.pid)
            faults = max(0, reading.faults - (earlier.faults if earlier else 0))
            self.growth[reading.pid] = faulted = _faulted(faults, huge_pages)
            self.anon_growth[reading.pid] = _anonymous(faulted, reading, earlier)
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
        for reading in self.now:
            earlier = self.before.get(reading.pid)
            reaped += max(0, reading.reaped_faults - (earlier.reaped_faults if earlier else 0))
        self.credit = max(0, known - reaped)
        return _faulted(max(0, reaped - known - credit), huge_pages)


class _Families:
    """Anonymous memory of processes that were forked from each other without exec."""

    def __init__(self, *, shared_outside: bool) -> None:
        self._shared_outside = shared_outside
        self._high: dict[object, int] = {}
        self._correction: dict[int, int] = {}  # proportional less resident, per process; never above zero

    def update(self, change: _Change, proportional: Proportional | None) -> Span:
        members_of = _by_family(change.now)
        ended = _by_family(change.ended)
        total = Span(0, 0, 0)
        for family, members in members_of.items():
            if len(members) == 1 and family not in ended:
                total += self._alone(members[0], change)
            else:
                total += self._together(family, members, change, proportional)
        # A family that died out held, up to its end, what it last had; what it added then is in the unseen growth.
        gone = [family for family in ended if family not in members_of]
        total.peak += sum(min(self._high[f], sum(r.anon for r in ended[f])) for f in gone if f in self._high)
        self._high = {family: size for family, size in self._high.items() if family in members_of}
        self._correction = {pid: size for pid, size in self._correction.items() if pid in change.growth}
        return total

    def _alone(self, only: Reading, change: _Change) -> Span:
        earlier = None if only.pid in change.born else change.before[only.pid]
        peak = (earlier.anon if earlier else 0) + change.anon_growth[only.pid]
        if only.mark is not None:
            mapped = min(r.file + r.shmem for r in (only, earlier or only))
            peak = min(peak, only.mark - mapped)
        self._high[only.family] = only.anon
        self._correction[only.pid] = 0
        low = max(0, only.anon - change.growth[only.pid]) if earlier else 0
        return Span(low, only.anon, peak)

    def _together(
        self, family: object, members: list[Reading], change: _Change, proportional: Proportional | None
    ) -> Span:
        # What a process added before it called exec, or ended, may live on in a child that it had forked.
        grown = {*change.born, *(member.pid for member in members)}
        added = sum(change.anon_growth[pid] for pid in grown) + change.unseen
        resident = sum(member.anon for member in members)
        peak = self._high.get(family, resident) + added
        high = min(resident, peak)
        settled = {m.pid: max(0, m.anon - change.growth[m.pid]) for m in members if m.pid not in change.born}
        low = max(settled.values(), default=0)
        if len(members) == 1:
            self._correction[members[0].pid] = 0
        elif proportional and all(member.pid in proportional.correction for member in members):
            # Sharing grows by forks only, and after one this look is dropped. So the corrections may be too low,
            # by a page for each that was copied or given up meanwhile, never too high.
            self._correction.update(proportional.correction)
            dropped = sum(max(0, change.before[m.pid].anon - m.anon) for m in members)
            unique = sum(member.anon + self._correction[member.pid] for member in members)
            if not self._shared_outside:
                high = min(resident, unique + added + dropped + len(members) * PAGE)
        if all(pid in self._correction for pid in settled):
            low = max(low, sum(size + self._correction[pid] for pid, size in settled.items()))
        self._high[family] = high = max(low, high)
        return Span(low, high, peak)


class _Mapped:
    """Pages that any process may map: shared memory, or files."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._high = 0
        self._proven = 0
        self.added = 0

    def update(self, change: _Change, proportional: Proportional | None, limit: int | None) -> Span:
        sizes = {reading.pid: getattr(reading, self._kind) for reading in change.now}
        earlier = {pid: getattr(reading, self._kind) for pid, reading in change.before.items()}
        risen = sum(max(0, size - earlier.get(pid, 0)) for pid, size in sizes.items())
        fallen = sum(max(0, size - sizes.get(pid, 0)) for pid, size in earlier.items())
        self.added += risen
        largest = max(sizes.values(), default=0)
        high = min(sum(sizes.values()), self._high + risen)
        if limit is not None:
            high = min(high, max(limit, largest))
        peak = max(high, self._high) if limit is not None else self._high + risen
        self._proven = max(0, self._proven - fallen)
        if proportional:
            unique, moving = self._shared(change, sizes, proportional)
            self._proven = max(self._proven, unique - moving)
            if self._kind == "shmem":  # files are mapped outside the tree, too: their shares are too small
                high = min(high, unique + 2 * moving)
        stable = [min(size, earlier[pid]) for pid, size in sizes.items() if pid in earlier]
        low = max([self._proven, *stable], default=0)
        self._high = high
        return Span(min(low, high), high, peak)

    def _shared(self, change: _Change, sizes: dict[int, int], proportional: Proportional) -> tuple[int, int]:
        """The tree's unique pages by a proportional reading, and how much moved while it was taken."""
        shares = getattr(proportional, self._kind)
        moving = sum(
            abs(size - getattr(change.before[pid], self._kind))
            for pid, size in sizes.items()
            if pid in change.before
        )
        # A process that was left out of the reading shares nothing with those in it.
        unique = sum(shares.get(pid, size if self._kind == "shmem" else 0) for pid, size in sizes.items())
        return unique, moving


def _anonymous(faulted: int, reading: Reading, earlier: Reading | None) -> int:
    """The part of what was faulted in that may be anonymous memory: the rest is mapped now and was not before.

    One fault maps up to 16 pages of a file, and one page of shared memory where it is written to. Where it is only read
    more come at once and hide as much anonymous memory that came and went; the process's high-water mark shows that.
    """
    file = reading.file - (earlier.file if earlier else 0)
    shmem = reading.shmem - (earlier.shmem if earlier else 0)
    hidden = reading.mark - reading.resident if reading.mark is not None else 0
    return max(0, faulted - max(0, file) // PAGES_MAPPED_AT_ONCE - max(0, shmem), min(faulted, hidden))


def _faulted(faults: int, huge_pages: int) -> int:
    return faults * PAGE + min(huge_pages, faults) * HUGE_PAGE


def _by_family(readings: Iterable[Reading]) -> dict[object, list[Reading]]:
    families: dict[object, list[Reading]] = {}
    for reading in readings:
        families.setdefault(reading.family, []).append(reading)
    return families
