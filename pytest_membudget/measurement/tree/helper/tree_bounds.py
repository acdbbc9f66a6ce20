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

Pages that any process may map: shared memory, or files.
"""

from __future__ import annotations

from .anonymous_bounds import ForkGroups
from .page_faults import Change
from .records import FilePages, Interval, Proportional, Reading, Span


class Mapped:
    """Pages that any process may map: shared memory, or files."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._high = 0
        self._proven = 0
        self.added = 0
        self.fallen = 0
        """What was given up since the round before."""

    def update(
        self,
        change: Change,
        proportional: Proportional | None,
        limit: int | None,
        found: FilePages | None = None,
    ) -> Span:
        """Takes one round; `found` is what was counted page by page since the round before."""
        sizes = {reading.pid: getattr(reading, self._kind) for reading in change.now}
        earlier = {pid: getattr(reading, self._kind) for pid, reading in change.before.items()}
        # What took the place of as much as it is itself shows in no size.
        swapped = {r.pid: r.swapped for r in change.now if self._kind == "shmem"}
        risen = sum(max(0, size - earlier.get(pid, 0), swapped.get(pid, 0)) for pid, size in sizes.items())
        fallen = sum(max(0, size - sizes.get(pid, 0), swapped.get(pid, 0)) for pid, size in earlier.items())
        self.added += risen
        self.fallen = fallen
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
        if found:
            high = min(high, found.resident + risen)
            self._proven = max(self._proven, found.union - risen - fallen)
        stable = [min(size, earlier[pid]) for pid, size in sizes.items() if pid in earlier]
        low = max([self._proven, *stable], default=0)
        self._high = high
        return Span(min(low, high), high, peak)

    def _shared(self, change: Change, sizes: dict[int, int], proportional: Proportional) -> tuple[int, int]:
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


class Bounds:
    """Keeps what consecutive rounds have in common.

    Args:
        shared_outside: the root shares anonymous memory with a process outside the tree, so that proportional sizes
            are too small to bound it from above.
        adoptive: a process of the tree that becomes the parent of orphans, so that a parent is not who forked.
    """

    def __init__(self, *, shared_outside: bool = False, adoptive: int = 0) -> None:
        self._before: dict[int, Reading] = {}
        self._families = ForkGroups(shared_outside=shared_outside, adoptive=adoptive)
        self._shmem = Mapped("shmem")
        self._file = Mapped("file")
        self._private: dict[int, int] = {}
        self._credit = 0
        self._skew: dict[int, int] = {}

    def update(
        self,
        readings: list[Reading],
        *,
        huge_pages: int = 0,
        proportional: Proportional | None = None,
        file_limit: int | None = None,
        shmem_limit: int | None = None,
        file_pages: FilePages | None = None,
    ) -> Interval:
        """Takes one round.

        Args:
            readings: one of each living process.
            huge_pages: how many the machine handed out since the round before.
            proportional: what was read of shared memory since the round before; dropped where the tree changed.
            file_limit: the most file pages that all processes together can have mapped.
            shmem_limit: likewise for shared memory.
            file_pages: what was counted of files, page by page, since the round before.
        """
        change = Change(self._before, readings, huge_pages, self._credit, self._skew)
        overdue = change.unseen if self._credit else 0
        self._credit, self._skew = change.credit, change.skew
        if proportional and (proportional.forking or change.born or change.ended or change.unseen):
            proportional = None
        families = self._families
        anon = families.update(change, proportional)
        shmem = self._shmem.update(change, proportional, shmem_limit)
        file = self._file.update(change, proportional, file_limit, file_pages)
        if proportional:
            self._private.update(proportional.private)
        held = anon + shmem
        held.peak += 0 if families.with_unseen else change.unseen
        self._before = {reading.pid: reading for reading in readings}
        return Interval(
            held,
            file,
            file_added=self._file.added,
            alone=change.lonely(),
            moving=sum(change.growth.values()) + change.unseen,
            forked=bool(change.born),
            counted_twice=families.resident_peak - families.together,
            excess=families.excess,
            excess_left=families.excess_left,
            overdue=overdue,
            missed=0 if change.ended or overdue else change.unseen,
            leaving={reading.pid: self._leaving(reading, readings) for reading in readings},
            settled={
                r.pid: max(0, r.anon - change.growth[r.pid]) for r in readings if r.pid not in change.born
            },
            born={pid: change.growth[pid] for pid in change.born},
            unseen=change.unseen,
            file_counted=file_pages is not None,
            file_fallen=self._file.fallen,
        )

    def _leaving(self, reading: Reading, readings: list[Reading]) -> tuple[int, int]:
        alone = not reading.shmem and all(
            other is reading or other.family != reading.family for other in readings
        )
        least = reading.anon if alone else min(self._private.get(reading.pid, 0), reading.anon)
        return least, reading.anon + reading.shmem
