"""The highest that the tree can have been, bettered by what a later look shows.

Between two looks at what a family shares, page faults are all that is known: a process that takes and gives back the
same memory a hundred times seems to add it a hundred times, because each fault may as well have been the copy of a
page that its parent keeps. A later look tells. Let X be what a sum of resident sizes counts more than once, so that the
family holds `sum - X`. X grows by forks alone: every copy and everything given up makes it smaller or leaves it as it
was. So at each moment before the look, back to the last fork, X was at least what the look finds, and the family held at
most `sum of the most that each held - X found`. The same is true of each process's part in X, so the look need not be
an instant.

A fork that is under way shows in what is shared before the child shows anywhere. A look is therefore dropped where a
process has no page of its own, and else believed one round later, when no child has come. So it is while one that ends
clears its memory: others share it until it is done, and it shows nowhere any more.
"""

from __future__ import annotations

from .figures import Interval

NOTHING = -(1 << 62)


class Crest:
    """Takes every round as two figures above the same start, and looks when there are any."""

    def __init__(self) -> None:
        self._firm = 0
        self._waiting = (NOTHING, NOTHING)
        self._grown = self._resident = NOTHING

    @property
    def value(self) -> int:
        """The highest so far."""
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
