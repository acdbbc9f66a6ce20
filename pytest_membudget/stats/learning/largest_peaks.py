"""The largest peak seen near a size, and at any smaller one. Neither is ever forgotten."""

from __future__ import annotations

import bisect
import math

_BELOW = 1.25
_ABOVE = 1.05
"""Near a size: from 1.25 times smaller to 1.05 times larger. Peaks rise with size, so less is said by the larger ones."""

_BIN = math.log(1.025)  # sizes within 2.5% share a bin: a terabyte of sizes takes about 1,100 of them


class PeaksNearby:
    """The largest peak near a size. Sizes and peaks are bytes."""

    def __init__(self) -> None:
        self._largest: dict[int, float] = {}

    def add(self, size_bytes: float, peak_bytes: float) -> None:
        """Keeps one more peak."""
        place = _bin(size_bytes)
        self._largest[place] = max(peak_bytes, self._largest.get(place, 0.0))

    def near(self, size_bytes: float) -> float:
        """The largest peak near that size; where there is none, that of the next smaller size; else 0."""
        places = range(_bin(size_bytes / _BELOW), _bin(size_bytes * _ABOVE) + 1)
        found = [self._largest[place] for place in places if place in self._largest]
        if not found:
            smaller = max((place for place in self._largest if place < places.start), default=None)
            found = [0.0 if smaller is None else self._largest[smaller]]
        return max(found)


class PeakStairs:
    """The largest peak at a size or any smaller one: stairs that only go up. Sizes and peaks are bytes."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._peaks: list[int] = []

    def up_to(self, size_bytes: int) -> int:
        """The height of the stairs there; 0 before the first step."""
        place = bisect.bisect_right(self._sizes, size_bytes)
        return self._peaks[place - 1] if place else 0

    def add(self, size_bytes: int, peak_bytes: int) -> None:
        """Raises the stairs from that size on, where they are lower."""
        if peak_bytes <= self.up_to(size_bytes):
            return
        place = bisect.bisect_left(self._sizes, size_bytes)
        last = place
        while last < len(self._sizes) and self._peaks[last] <= peak_bytes:
            last += 1
        self._sizes[place:last] = [size_bytes]
        self._peaks[place:last] = [peak_bytes]


def _bin(size_bytes: float) -> int:
    return math.floor(math.log(size_bytes) / _BIN) if size_bytes >= 1 else -1
