"""Pages that any process may map: shared memory, or files."""

from __future__ import annotations

from .page_faults import Change
from .records import FilePages, Proportional, Span


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
