"""What the kernel's own high-water marks of children prove, however short their peaks were.

A mark is the most that one address space held, at some instant of its life. When that life began within the block, the tree
held at least as much then: the mark is proven, less the start. A program that was started anew (by exec) shares no anonymous
memory with the root, so what the root held of it throughout, the `floor`, is proven beside the mark. A forked child may share
all of that: then it is not.

The mark of a child that has ended is known as the largest of all that were waited for, and not whose it was. It is taken for
a program's only where no fork can have had it: none was seen, and one that nobody saw had what the root had at most,
and what was faulted in out of sight (`hidden`).
"""

from __future__ import annotations

from .page_faults import PAGE, PAGES_MAPPED_AT_ONCE
from .records import Interval, Reading


class Marks:
    """Takes every round of one measurement. All figures are bytes."""

    def __init__(self) -> None:
        self.floor = 0
        self.hidden = 0
        self.kin = False
        """Whether a fork of the root was seen: a process that may share the root's anonymous memory."""
        self._before: set[int] = set()

    def begin(self, readings: list[Reading], faulted: int, reaped_faults: int) -> None:
        """Takes the first round. The root is the first of the readings.

        Args:
            readings: one of each living process.
            faulted: bytes that the root has faulted in since the block began.
            reaped_faults: faults of dead children that were on the root's account when the block began.
        """
        root = readings[0]
        self._before = {reading.pid for reading in readings}
        self.floor = max(0, root.anon - faulted)
        self._hide((root.reaped_faults - reaped_faults) * PAGE)

    def update(self, interval: Interval, readings: list[Reading]) -> int:
        """Takes one round; what the tree is proven to have held by the marks that were read in it."""
        root = readings[0]
        self.floor = min(self.floor, interval.settled.get(root.pid, 0))
        self._hide(interval.unseen + sum(interval.born.values()))
        proven = 0
        for reading in readings[1:]:
            related = reading.family == root.family
            self.kin |= related and reading.resident > 0
            if reading.mark is not None and reading.pid not in self._before:
                proven = max(proven, reading.mark + (0 if related else self.floor))
        return proven

    def _hide(self, faulted: int) -> None:
        self.hidden += max(0, faulted) * PAGES_MAPPED_AT_ONCE  # as if all of it had been pages of files
