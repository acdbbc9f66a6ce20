"""The upper figure of a measurement: the most that the tree can have held, lowered by what a later look shows.

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


class Crest:
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
