"""The upper figure of one measurement: what was held, and what was mapped of files, each lowered by later looks.

The upper figure of a measurement: the most that the tree can have held, lowered by what a later look shows.

A *look* reads proportional sizes, and so tells what the processes of a family share at that moment (`looks`). Between two
looks only page faults are known: a process that takes and gives back the same memory a hundred times seems to add it a
hundred times, because each fault may as well have been the copy of a page that its parent keeps.

A look tells about the time before it as well. Let X be what a sum of resident sizes counts more than once, so that the
family holds `sum - X`. Only a fork makes X larger: each copy, and everything that is given up, makes it smaller or leaves
it as it was. So at each moment between the last fork and the look, X was at least what the look finds, and the family
held at most the sum of the most that each process held, less the X found. The same is true of each process's part in X,
so the look need not be an instant.

Two things could mislead a look. A fork that is under way already shows in what is shared, while the child shows nowhere
yet. And a process that is about to end shows nowhere any more, while others still share its memory. A look is therefore
dropped where a process has no page of its own, and else believed one round later, when no child has come.
"""

from __future__ import annotations

from .records import Interval

NOTHING = -(1 << 62)


class RunningMaximum:
    """The upper figure so far. It is told of every round, and of the look in it where there was one. All in bytes."""

    def __init__(self) -> None:
        self._firm = 0
        self._waiting = (NOTHING, NOTHING)
        self._grown = self._resident = NOTHING

    @property
    def value(self) -> int:
        """The upper figure so far, above the start."""
        return max(self._firm, self._grown, self._waiting[0])

    def raise_to(self, high: int) -> None:
        """Takes in what a round before this one may have reached, as is only known now."""
        self._firm = max(self._firm, high)

    def add(self, interval: Interval, above: int | None) -> None:
        """Takes one round; `above` is how far its upper figure is above the start, None where that is told elsewhere."""
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
        # This round's last moments are later than the look.
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
        """Takes one round."""
        self._pending = max(self._pending, interval.file.peak)
        self._fallen += interval.file_fallen
        if interval.file_counted:
            self._firm = max(self._firm, min(self._pending, interval.file.high + self._fallen))
            self._pending = interval.file.high
            self._fallen = 0


class Upper:
    """Told of every round. Two upper figures hold, the highest sum and the sum of the highest: the lower one counts."""

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
        """Takes in what a round before this one may have reached, as is only known now."""
        self._sum.raise_to(high)
        self._held.raise_to(high)

    def add(self, interval: Interval, start_held: int, start_file: int, file_added: int) -> None:
        """Takes one round; the tree started with so much, and has added so much of files at most."""
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
