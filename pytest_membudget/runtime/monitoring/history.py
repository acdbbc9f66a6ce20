"""What a monitor saw: the latest snapshots, chunks and collections, and the highest figure of all."""

from __future__ import annotations

import gc
import math
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from pytest_membudget.measurement.process.process_memory import ProcessMemory
from pytest_membudget.records.monitor import ChunkRecord, CollectionEvent, MemorySnapshot


class History:
    """Keeps the latest `most` of each kind. Sizes are bytes, times are those of `clock`."""

    def __init__(
        self, memory: ProcessMemory, clock: Callable[[], float], *, limit_bytes: int, most: int
    ) -> None:
        self.snapshots: deque[MemorySnapshot] = deque(maxlen=most)
        self.chunks: deque[ChunkRecord] = deque(maxlen=most)
        self.peak_bytes = 0
        self._memory = memory
        self._clock = clock
        self._limit_bytes = limit_bytes
        self._collections = CollectionsLog(clock, most)
        self._mark = memory.open_mark()

    @property
    def collections(self) -> tuple[CollectionEvent, ...]:
        """The latest full collections."""
        return tuple(self._collections.events)

    @property
    def last_snapshot_age_s(self) -> float:
        """How long ago the latest snapshot was taken."""
        return self._clock() - self.snapshots[-1].at_s if self.snapshots else math.inf

    @property
    def latest_chunk_bytes(self) -> int:
        """The peak of the latest chunk; 0 where there was none."""
        return self.chunks[-1].peak_bytes if self.chunks else 0

    def take_snapshot(self) -> MemorySnapshot:
        """Reads all figures, and keeps them."""
        figures = self._memory.figures()._asdict()
        snapshot = MemorySnapshot(at_s=self._clock(), limit_bytes=self._limit_bytes, **figures)
        self.snapshots.append(snapshot)
        self.raise_peak(snapshot.rss_bytes)
        return snapshot

    def raise_peak(self, rss_bytes: int) -> None:
        """Raises the peak to this figure, and to what was resident between two looks."""
        marked_bytes = 0 if self._mark is None else self._memory.mark_peak_bytes(self._mark)
        self.peak_bytes = max(self.peak_bytes, rss_bytes, marked_bytes)

    def close(self) -> None:
        """Stops noting collections and what is resident between two looks. What was seen stays."""
        self._collections.close()
        if self._mark is not None:
            self.peak_bytes = max(self.peak_bytes, self._memory.close_mark(self._mark))
            self._mark = None


_FULL = 2


class CollectionsLog:
    """The latest full collections. Young generations are collected too often to be worth a line each."""

    def __init__(self, clock: Callable[[], float], most: int) -> None:
        events: deque[CollectionEvent] = deque(maxlen=most)

        def record(phase: str, info: dict[str, Any]) -> None:
            if phase == "stop" and info["generation"] == _FULL:
                events.append(CollectionEvent(clock(), _FULL, info["collected"]))

        gc.callbacks.append(record)
        self.events = events
        self._stop = weakref.finalize(self, _remove, record)

    def close(self) -> None:
        """Stops listening; the events stay. A log that is dropped stops by itself."""
        self._stop()


def _remove(record: Callable[[str, dict[str, Any]], None]) -> None:
    if record in gc.callbacks:
        gc.callbacks.remove(record)
