"""What an executor keeps for its caller to read: its events, and what its workers held between their tasks."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pytest_membudget.records.judgement import Growth
from pytest_membudget.records.run import EventKind, Level, LevelEvent
from pytest_membudget.runtime.workers.protocol import HeapReading
from pytest_membudget.stats.task_growth import judge_task_series, pool_workers

_logger = logging.getLogger("pytest_membudget.runtime")

MOST_EVENTS = 10_000
MOST_WORKERS = 64
MOST_POINTS = 512


class Journal:
    """The latest events, oldest first, and the clock they go by."""

    def __init__(self) -> None:
        self._events: deque[LevelEvent] = deque(maxlen=MOST_EVENTS)
        self._began_s = time.monotonic()

    def record(self, kind: EventKind, level: Level, cause: str, next_step: str, *, is_logged: bool) -> None:
        """Keeps an event, and logs it where `is_logged`."""
        at_s = time.monotonic() - self._began_s
        event = LevelEvent(kind=kind, level=level, cause=cause, next_step=next_step, at_s=at_s)
        self._events.append(event)
        if is_logged:
            _logger.warning("%s", event)

    def record_host(self, cause: str, next_step: str) -> None:
        """What happened to a machine of a cluster."""
        self.record("host", "dask", cause, next_step, is_logged=True)

    @property
    def events(self) -> tuple[LevelEvent, ...]:
        """All that is kept."""
        return tuple(self._events)


class HeapLog:
    """The readings of the latest workers, by process id. Written by one thread, read by any."""

    def __init__(self) -> None:
        self._readings: dict[int, list[HeapReading]] = {}

    def record(self, pid: int, reading: HeapReading) -> None:
        """Keeps a reading; of a long series every second one is dropped now and then, the first and last stay."""
        found = self._readings.get(pid)
        if found is None or reading.tasks <= found[-1].tasks:  # or another process with the same number
            if len(self._readings) >= MOST_WORKERS:
                self._readings.pop(next(iter(self._readings)))
            self._readings.pop(pid, None)
            self._readings[pid] = [reading]
            return
        found.append(reading)
        if len(found) > MOST_POINTS:
            self._readings[pid] = [*found[:-1:2], found[-1]]

    def latest(self) -> dict[int, HeapReading]:
        """The last reading of each worker."""
        return {pid: readings[-1] for pid, readings in self._readings.copy().items()}

    def since(self, latest: Mapping[int, HeapReading]) -> dict[int, Sequence[HeapReading]]:
        """The readings of each worker from that one on."""
        found: dict[int, Sequence[HeapReading]] = {}
        for pid, readings in self._readings.copy().items():
            before = latest.get(pid)
            if readings[-1] != before:
                found[pid] = [each for each in list(readings) if before is None or each.tasks >= before.tasks]
        return found


class WorkerGrowth(NamedTuple):
    """All workers together, `None` where there were none, and each by itself."""

    together: Growth | None
    workers: tuple[Growth, ...]


def growth_in_workers(readings: Mapping[int, Sequence[HeapReading]], label: str = "") -> WorkerGrowth:
    """Judges the readings of each worker, by its process id, and then all of them."""
    workers = tuple(judge_task_series(series, label=f"worker {pid}") for pid, series in readings.items())
    return WorkerGrowth(pool_workers(workers, label) if workers else None, workers)
