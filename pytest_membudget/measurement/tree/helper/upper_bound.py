"""The upper figure of one measurement: what was held, and what was mapped of files, each lowered by later looks."""

from __future__ import annotations

from .records import Interval
from .running_maximum import Crest


class FileCrest:
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
        self._sum = Crest()
        self._held = Crest()
        self._files = FileCrest()
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
