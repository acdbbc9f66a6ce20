"""What workers keep of their tasks: imported modules, caches, models. A new worker will keep as much before long.

So ending a warm worker to make room gains nothing where its successor loads the same again, and a new worker costs
what it will keep from its first task on.
"""

from __future__ import annotations

import statistics
from collections import deque

WARM_BYTES = 16 * 1024 * 1024
"""What a worker may keep of its tasks before it is charged, where no base is known."""

_LATEST_WORKERS = 8
_TOO_FEW_FOR_ACCIDENTS = 2
_WORTH_NOTING_BYTES = 1024 * 1024


class Kept:
    """What one worker keeps, in bytes: after its first task, and after its latest."""

    __slots__ = ("bytes", "first_bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self.first_bytes: int | None = None


class Warmth:
    """What to expect of a worker: the base that a calibration found, else what the latest workers keep.

    `fresh_bytes` is their median after the first task. `expected_bytes` is what one keeps in the long run: the largest
    but one, as the younger ones have not met all kinds of tasks yet, and the largest may be an accident.
    """

    def __init__(self, base_bytes: int = 0) -> None:
        self.base_bytes = base_bytes
        self.fresh_bytes = base_bytes
        self.expected_bytes = base_bytes
        self._latest: deque[Kept] = deque(maxlen=_LATEST_WORKERS)

    def note(self, kept: Kept, kept_bytes: int) -> None:
        """A worker has ended a task and keeps `kept_bytes` now."""
        is_new = kept.first_bytes is None
        if not is_new and abs(kept.bytes - kept_bytes) < _WORTH_NOTING_BYTES:
            return
        kept.bytes = kept_bytes
        if is_new:
            kept.first_bytes = kept_bytes
            self._latest.append(kept)
        if not self.base_bytes:
            self.fresh_bytes = int(statistics.median(each.first_bytes or 0 for each in self._latest))
            largest = sorted(each.bytes for each in self._latest)[-2:]
            self.expected_bytes = largest[0] if len(self._latest) > _TOO_FEW_FOR_ACCIDENTS else largest[-1]

    def charged_bytes(self, own_bytes: int) -> int:
        """What a worker is charged that holds `own_bytes` beside its tasks."""
        return own_bytes if self.base_bytes else max(0, own_bytes - WARM_BYTES)

    def shrinks(self, kept_bytes: int) -> bool:
        """Whether a worker that begins anew would keep less than `kept_bytes`, by more than chance."""
        return kept_bytes - self.fresh_bytes > WARM_BYTES
