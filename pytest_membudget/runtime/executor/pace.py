"""How long tasks usually take, and so how many calls a worker is given at a time."""

from __future__ import annotations

SHORT_S = 0.02
"""Tasks below this are prefetched: one waits in its worker, which need not wait for it then."""

TINY_S = 0.005
"""Tasks below this are prefetched seven at a time."""

WORTH_A_START_S = 0.1
"""A call this long counts in full towards its worker's replacement, a shorter one in part. Fifty of these keep a worker
for five seconds, of which its start may have taken a twentieth."""

_DRAWN_AHEAD = 2
_DRAWN_AHEAD_OF_SHORT = 16
_DEPTH_OF_SHORT = 2
_DEPTH_OF_TINY = 8


class Pace:
    """Follows how long tasks take."""

    def __init__(self) -> None:
        self.mean_s = 1.0

    def note(self, duration_s: float) -> None:
        """Takes in a finished task: a running mean that forgets."""
        self.mean_s += (duration_s - self.mean_s) / 8

    @property
    def is_fast(self) -> bool:
        """Whether tasks end faster than a worker gets its next one."""
        return self.mean_s <= SHORT_S

    @property
    def depth(self) -> int:
        """How many calls a worker may have at a time."""
        if not self.is_fast:
            return 1
        return _DEPTH_OF_TINY if self.mean_s <= TINY_S else _DEPTH_OF_SHORT

    @property
    def drawn_ahead(self) -> int:
        """How many lazily drawn inputs there may be for each worker, results that nobody has read included."""
        return _DRAWN_AHEAD_OF_SHORT if self.is_fast else _DRAWN_AHEAD

    @property
    def enough(self) -> int:
        """A worker with more calls than this left needs no more yet."""
        return self.depth // 2

    @property
    def weight(self) -> float:
        """How much of a call the present ones count towards their worker's end.

        Calls shorter than it takes to start a worker and to import its function count by their time.
        """
        return min(1.0, self.mean_s / WORTH_A_START_S)
