"""Watches this process's memory while it works through something, cleans up in time, and says what to change."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from msgspec.structs import replace

from pytest_membudget.errors import UsageError, count_of, factor_of, share_of, size_of
from pytest_membudget.records.monitor import (
    ChunkRecord,
    CleanupResult,
    CollectionEvent,
    MemorySnapshot,
    MonitorReport,
    Recommendation,
)
from pytest_membudget.runtime.monitoring.advice import (
    TARGET_SHARE,
    ChunkRows,
    Setting,
    adapted_rows,
    growth_rate,
    recommend,
    recommend_chunk_rows,
)
from pytest_membudget.runtime.monitoring.cleanup import Alerts, Cleaner, ProcessMemory, Thresholds
from pytest_membudget.units import Size

_FULL_COLLECTION = 2


class MemoryMonitor:
    """Snapshots, cleanups and advice for one process.

    Call `progress` after each step, and `chunk` around each chunk. It reads resident memory then and
    cleans up (the registered callbacks, a collection, a trim of the heap) past `cleanup_threshold` of the limit, past
    the emergency threshold, every `cleanup_every` steps and every `cleanup_every_chunks` chunks. It runs no thread of
    its own. Use it as a context manager, or `close` it, to stop recording collections and the exact peak.

    Args:
        limit: a soft limit; the real limit of this process where none is given.
        cleanup_threshold: share of the limit past which each reading cleans up.
        emergency_threshold: share of the limit past which a cleanup is an emergency: callbacks that wait for one run
            too. Never more than 95% of the real limit.
        cleanup_every: progress updates between two regular cleanups; 0 for none.
        cleanup_every_chunks: chunks between two regular cleanups; 0 for none.
        snapshots: how many of the latest snapshots, cleanups, collections, chunks and alerts are kept, each.
        snapshot_every_s: `progress` takes a full snapshot at most this often.
        workers: how many workers the program uses, for advice.
        max_in_flight: how many results it lets wait, for advice.
        label: the monitor's name in a report.
        on_alert: called with the sentence of each alert, which is logged as well.
        memory: where readings come from; this process by default, a script in tests.
        clock: seconds that only go up.

    Raises:
        UsageError: an argument makes no sense; the message begins with its name.
    """

    def __init__(
        self,
        limit: Size | None = None,
        cleanup_threshold: float | str = 0.8,
        emergency_threshold: float = 1.2,
        cleanup_every: int = 10,
        cleanup_every_chunks: int = 5,
        *,
        snapshots: int = 1000,
        snapshot_every_s: float = 0.25,
        workers: int | None = None,
        max_in_flight: int | None = None,
        label: str = "",
        on_alert: Callable[[str], Any] | None = None,
        memory: ProcessMemory | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory or ProcessMemory()
        real_limit_bytes = self._memory.limit_bytes()
        self.limit_bytes = real_limit_bytes if limit is None else size_of("limit", limit)
        if self.limit_bytes == 0:
            raise UsageError(f'limit is {limit!r}; give a size above 0, such as "8 GB"')
        self.cleanup_threshold = share_of("cleanup_threshold", cleanup_threshold)
        self.emergency_threshold = factor_of("emergency_threshold", emergency_threshold)
        self.cleanup_every = count_of("cleanup_every", cleanup_every, least=0)
        self.cleanup_every_chunks = count_of("cleanup_every_chunks", cleanup_every_chunks, least=0)
        self._snapshot_every_s = factor_of("snapshot_every_s", snapshot_every_s)
        most = count_of("snapshots", snapshots)
        self.label = label
        self._setting = Setting(workers, max_in_flight)
        self._clock = clock
        self._alerts = Alerts(on_alert, most)
        self._thresholds = Thresholds(
            self.limit_bytes,
            real_limit_bytes,
            cleanup_share=self.cleanup_threshold,
            emergency_factor=self.emergency_threshold,
            alerts=self._alerts,
        )
        self._cleaner = Cleaner(self._memory, clock, most)
        self._seen = History(self._memory, clock, limit_bytes=self.limit_bytes, most=most)
        self._lock = threading.RLock()
        self._progress = self._updates = self._chunks_done = 0
        self._started_s = clock()
        self.get_memory_snapshot()

    def close(self) -> None:
        """Stops recording collections and the exact peak. What was seen stays readable."""
        with self._lock:
            self._seen.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def register_cleanup_callback(self, callback: Callable[[], Any], *, emergency_only: bool = False) -> None:
        """Adds a callback without arguments; it runs in each cleanup, or in emergencies only."""
        self._cleaner.register(callback, emergency_only=emergency_only)

    def unregister_cleanup_callback(self, callback: Callable[[], Any]) -> None:
        """Removes a callback."""
        self._cleaner.unregister(callback)

    def get_memory_snapshot(self) -> MemorySnapshot:
        """Reads this process's memory and keeps the reading for the report."""
        with self._lock:
            return self._seen.take_snapshot()

    def check_memory_and_cleanup(self, force: bool = False) -> CleanupResult:
        """Cleans up where memory is past a threshold, or in any case with `force`; says whether, and what it freed."""
        with self._lock:
            return self._check("asked for" if force else "")

    def progress(self, done: int | None = None) -> CleanupResult:
        """Records that `done` units are done in all (one more where it is not given), and cleans up where it is time."""
        with self._lock:
            self._progress = self._progress + 1 if done is None else count_of("done", done, least=0)
            self._updates += 1
            if self._seen.last_snapshot_age_s >= self._snapshot_every_s:
                snapshot = self._seen.take_snapshot()
                growth, _ = growth_rate(self._seen.snapshots)
                self._thresholds.check_growth(growth, snapshot.rss_bytes)
            return self._check(_when_due(self._updates, self.cleanup_every, "updates"), again=False)

    @contextmanager
    def chunk(self, rows: int) -> Iterator[None]:
        """Measures one chunk of `rows`: the most it added while it ran, and what it left behind.

        Free memory is given back to the system first, as a chunk that uses it again would seem to need less; what the
        heap keeps nevertheless is recorded with the chunk. A chunk that raises is not counted. Chunks in several threads at
        once are measured as if each were alone.
        """
        count_of("rows", rows, least=0)
        self._memory.trim()
        kept_bytes = self._memory.heap().kept_bytes
        start_bytes, begun_s, mark = self._memory.resident_bytes(), self._clock(), self._memory.open_mark()
        try:
            yield
        finally:
            end_bytes = self._memory.resident_bytes()
            peak_bytes = end_bytes if mark is None else self._memory.close_mark(mark)
        self.chunk_done(
            rows,
            peak_bytes=max(0, max(peak_bytes, end_bytes) - start_bytes),
            retained_bytes=end_bytes - start_bytes,
            duration_s=self._clock() - begun_s,
            kept_bytes=kept_bytes,
        )

    def chunk_done(
        self,
        rows: int,
        *,
        peak_bytes: int,
        retained_bytes: int = 0,
        duration_s: float = 0.0,
        kept_bytes: int = 0,
    ) -> CleanupResult:
        """Records a chunk that was measured elsewhere, in a worker for one, and cleans up where it is time."""
        with self._lock:
            self._seen.chunks.append(
                ChunkRecord(
                    rows=count_of("rows", rows, least=0),
                    peak_bytes=peak_bytes,
                    retained_bytes=retained_bytes,
                    duration_s=duration_s,
                    kept_bytes=kept_bytes,
                )
            )
            self._chunks_done += 1
            self._seen.take_snapshot()
            return self._check(_when_due(self._chunks_done, self.cleanup_every_chunks, "chunks"), again=False)

    def recommend_chunk_rows(self, *, least_rows: int = 1, most_rows: int | None = None) -> ChunkRows:
        """The rows with which a chunk stays within 70% of the limit, beside what is resident without it.

        Its `is_extrapolated` says whether no chunk of about that size ran.

        Raises:
            UsageError: no chunk with rows was recorded yet.
        """
        base_bytes = self._memory.resident_bytes()
        budget_bytes = max(0, int(TARGET_SHARE * self.limit_bytes) - base_bytes)
        return recommend_chunk_rows(
            self._seen.chunks, budget_bytes, least_rows=least_rows, most_rows=most_rows
        )

    def next_chunk_rows(self, rows: int, *, least_rows: int = 1, most_rows: int | None = None) -> int:
        """Adapts the size of chunks to the peak of the latest: half, the same, or a quarter more."""
        share = (self._memory.resident_bytes() + self._seen.latest_chunk_bytes) / self.limit_bytes
        return adapted_rows(rows, share, self.cleanup_threshold, least_rows=least_rows, most_rows=most_rows)

    def report(self) -> MonitorReport:
        """All that was seen so far."""
        with self._lock:
            self._seen.raise_peak(self._memory.resident_bytes())
            growth, caveats = growth_rate(self._seen.snapshots)
            heap = self._memory.heap()
            report = MonitorReport(
                label=self.label,
                duration_s=self._clock() - self._started_s,
                peak_bytes=self._seen.peak_bytes,
                limit_bytes=self.limit_bytes,
                growth_bytes_per_min=growth.value,
                growth_low_bytes_per_min=growth.low,
                growth_high_bytes_per_min=growth.high,
                snapshots=tuple(self._seen.snapshots),
                cleanups=tuple(self._cleaner.events),
                collections=self._seen.collections,
                alerts=tuple(self._alerts.sentences),
                chunks=tuple(self._seen.chunks),
                progress=self._progress,
                heap_used_bytes=heap.used_bytes,
                heap_kept_bytes=heap.kept_bytes,
                caveats=caveats,
            )
            return replace(report, recommendations=recommend(report, self._setting, self.cleanup_threshold))

    def recommendations(self) -> tuple[Recommendation, ...]:
        """What to change, with the figures it follows from; empty where all is well."""
        return self.report().recommendations

    def _check(self, due: str, *, again: bool = True) -> CleanupResult:
        rss_bytes = self._memory.resident_bytes()
        reason = self._thresholds.reason(rss_bytes, due, again=again)
        if reason is None:
            return CleanupResult(ran=False, before_bytes=rss_bytes, after_bytes=rss_bytes)
        result = self._cleaner.run(reason.text, emergency=reason.emergency)
        self._thresholds.cleaned_up(result.after_bytes)
        self._seen.raise_peak(result.before_bytes)
        return result


def _when_due(count: int, every: int, what: str) -> str:
    return f"every {every} {what}" if every and count % every == 0 else ""


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
        """Raises the peak to this figure, and to what was resident between two readings."""
        marked_bytes = 0 if self._mark is None else self._memory.mark_peak_bytes(self._mark)
        self.peak_bytes = max(self.peak_bytes, rss_bytes, marked_bytes)

    def close(self) -> None:
        """Stops recording collections and what is resident between two readings. What was seen stays."""
        self._collections.close()
        if self._mark is not None:
            self.peak_bytes = max(self.peak_bytes, self._memory.close_mark(self._mark))
            self._mark = None


class CollectionsLog:
    """The latest full collections. Young generations are collected too often to be worth a line each."""

    def __init__(self, clock: Callable[[], float], most: int) -> None:
        events: deque[CollectionEvent] = deque(maxlen=most)

        def record(phase: str, info: dict[str, Any]) -> None:
            if phase == "stop" and info["generation"] == _FULL_COLLECTION:
                events.append(CollectionEvent(clock(), _FULL_COLLECTION, info["collected"]))

        gc.callbacks.append(record)
        self.events = events
        self._stop = weakref.finalize(self, _remove, record)

    def close(self) -> None:
        """Stops listening; the events stay. A log that is dropped stops by itself."""
        self._stop()


def _remove(record: Callable[[str, dict[str, Any]], None]) -> None:
    if record in gc.callbacks:
        gc.callbacks.remove(record)
