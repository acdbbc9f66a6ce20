"""From readings of single processes to an interval for the memory of the whole tree, each page counted once.

All figures are bytes. A reading of several processes is never atomic, so no sum of it is taken at its word. Two
consecutive scans are compared through page faults: memory that a process holds now and did not hold a moment ago was
faulted in meanwhile. With `f` bytes faulted in between two readings of a process,

- it held at least `now - f` at every moment between them (the lower figure, valid for one common instant), and
- it held at most `before + f` at any moment between them (the upper figure, spikes between the readings included).

Three kinds of memory are kept apart:

*anonymous*: shared only between a process and those forked from it without exec, here called a fork group. Copying on
write shows in faults, not in resident sizes. A fork group of one needs nothing more. For larger ones a reading of
proportional set sizes (`Proportional`) shows what is counted more than once; until one is there, the largest member
is the lower figure.

*shared memory* (`shmem`) and *file pages*: any process may map them. Lower figure: the largest member, or the last
proportional reading less what was given up since. Upper figure: the sum, or the last upper figure plus what was added.

The upper figure of one measurement (`Upper`) is the most that the tree can have held, lowered by later samples of proportional
sizes. Such a sample says how much the processes of a fork group share at that moment. Between two samples only page faults are known:
a process that takes and gives back the same memory a hundred times seems to add it a hundred times, because each fault may as
well have been the copy of a page that its parent keeps.

A sample bounds the time before it as well. Let X be what a sum of resident sizes counts more than once, so that the group
holds `sum - X`. Only fork raises X; copying on write, unmapping and exit lower it or leave it. So at each moment between the
last fork and the sample X was at least what was sampled, and the group held at most the sum of the most that each process held,
less that X. The same is true of each process's part in X, so the sample need not be atomic.

It is false in two cases. A fork that is under way already shows in what is shared, while the child shows nowhere yet. And a process
that is about to end shows nowhere any more, while others still share its memory. A sample is therefore dropped where a process has
no page of its own, and else used one scan later, when no child has appeared.
"""

from __future__ import annotations

from .anonymous_bounds import ForkGroups
from .records import Change, FilePages, Interval, Proportional, Reading, Span


class Mapped:
    """Pages that any process may map: shared memory, or files."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._high = 0
        self._proven = 0
        self.added = 0
        self.fallen = 0
        """What was given up since the scan before."""

    def update(
        self,
        change: Change,
        proportional: Proportional | None,
        limit: int | None,
        found: FilePages | None = None,
    ) -> Span:
        """Takes one scan; `found` is what was counted page by page since the scan before."""
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
    """Keeps what consecutive scans have in common.

    Args:
        shared_outside: the root shares anonymous memory with a process outside the tree, so that proportional sizes
            are too small to bound it from above.
        adoptive: a process of the tree that becomes the parent of orphans, so that a parent is not who forked.
    """

    def __init__(self, *, shared_outside: bool = False, adoptive: int = 0) -> None:
        self._before: dict[int, Reading] = {}
        self._fork_groups = ForkGroups(shared_outside=shared_outside, adoptive=adoptive)
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
        """Takes one scan.

        Args:
            readings: one of each living process.
            huge_pages: how many the machine handed out since the scan before.
            proportional: what was read of shared memory since the scan before; dropped where the tree changed.
            file_limit: the most file pages that all processes together can have mapped.
            shmem_limit: likewise for shared memory.
            file_pages: what was counted of files, page by page, since the scan before.
        """
        change = Change(self._before, readings, huge_pages, self._credit, self._skew)
        overdue = change.unseen if self._credit else 0
        self._credit, self._skew = change.credit, change.skew
        if proportional and (proportional.forking or change.born or change.ended or change.unseen):
            proportional = None
        fork_groups = self._fork_groups
        anon = fork_groups.update(change, proportional)
        shmem = self._shmem.update(change, proportional, shmem_limit)
        file = self._file.update(change, proportional, file_limit, file_pages)
        if proportional:
            self._private.update(proportional.private)
        held = anon + shmem
        held.peak += 0 if fork_groups.with_unseen else change.unseen
        self._before = {reading.pid: reading for reading in readings}
        return Interval(
            held,
            file,
            file_added=self._file.added,
            alone=change.lonely(),
            moving=sum(change.growth.values()) + change.unseen,
            forked=bool(change.born),
            counted_twice=fork_groups.resident_peak - fork_groups.together,
            excess=fork_groups.excess,
            excess_left=fork_groups.excess_left,
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
            other is reading or other.fork_group != reading.fork_group for other in readings
        )
        least = reading.anon if alone else min(self._private.get(reading.pid, 0), reading.anon)
        return least, reading.anon + reading.shmem


NOTHING = -(1 << 62)


class RunningMaximum:
    """The upper figure so far. It takes every scan, with the sample in it where there was one. All in bytes."""

    def __init__(self) -> None:
        self._firm = 0
        self._waiting = (NOTHING, NOTHING)
        self._grown = self._resident = NOTHING

    @property
    def value(self) -> int:
        """The upper figure so far, above the start."""
        return max(self._firm, self._grown, self._waiting[0])

    def raise_to(self, high: int) -> None:
        """Raises it to what an earlier scan may have reached, as is only known now."""
        self._firm = max(self._firm, high)

    def add(self, interval: Interval, above: int | None) -> None:
        """Takes one scan; `above` is how far its upper figure is above the start, `None` where the kernel says it."""
        if interval.forked:
            self._firm = self.value
            self._grown = self._resident = NOTHING
        else:
            self._firm = max(self._firm, min(self._waiting))
        self._waiting = (NOTHING, NOTHING)
        if above is not None:
            grown, resident = above + min(0, interval.counted_twice), above + interval.counted_twice
        else:
            grown = resident = NOTHING
        if interval.excess is None:
            self._grown = max(self._grown, grown)
            self._resident = max(self._resident, resident)
            return
        # This scan's last moments are later than the sample.
        found = max(self._resident - interval.excess, resident - interval.excess_left)
        self._waiting = (max(self._grown, grown), found)
        self._grown = self._resident = NOTHING


class FileMaximum:
    """The most file pages that can have been mapped together, lowered by a later count of them.

    What was mapped at any moment before a count was either still there when it was counted, or had been given up since.
    """

    def __init__(self) -> None:
        self._firm = self._pending = self._fallen = 0

    @property
    def value(self) -> int:
        """The highest so far."""
        return max(self._firm, self._pending)

    def add(self, interval: Interval) -> None:
        """Takes one scan."""
        self._pending = max(self._pending, interval.file.peak)
        self._fallen += interval.file_fallen
        if interval.file_counted:
            self._firm = max(self._firm, min(self._pending, interval.file.high + self._fallen))
            self._pending = interval.file.high
            self._fallen = 0


class Upper:
    """Told of every scan. Two upper figures hold, the highest sum and the sum of the highest: the lower one counts."""

    def __init__(self) -> None:
        self._sum = RunningMaximum()
        self._held = RunningMaximum()
        self._files = FileMaximum()
        self._last = (0, 0)
        self._start_file = self._file_added = 0

    @property
    def value(self) -> int:
        """The highest above the start so far, the root's own mark apart."""
        files = min(self._files.value - self._start_file, self._file_added)
        return min(self._sum.value, self._held.value + max(0, files))

    def raise_to(self, high: int) -> None:
        """Raises it to what an earlier scan may have reached, as is only known now."""
        self._sum.raise_to(high)
        self._held.raise_to(high)

    def add(self, interval: Interval, start_held: int, start_file: int, file_added: int) -> None:
        """Takes one scan; the tree started with so much, and has added so much of files at most."""
        if interval.overdue:
            self._sum.raise_to(self._last[0] + interval.overdue)
            self._held.raise_to(self._last[1] + interval.overdue)
        held = interval.held.peak - start_held
        both = held + min(interval.file.peak - start_file, file_added)
        self._last = (both, held)
        # Of a root alone the kernel's own mark is exact.
        self._sum.add(interval, None if interval.alone else both)
        self._held.add(interval, None if interval.alone else held)
        self._files.add(interval)
        self._start_file, self._file_added = start_file, file_added
