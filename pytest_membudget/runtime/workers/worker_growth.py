"""What worker processes held from task to task, and the verdict on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pytest_membudget.records.growth import Growth
from pytest_membudget.runtime.workers.protocol import HeapReading
from pytest_membudget.stats.task_growth import judge_task_series, pool_workers

MOST_WORKERS = 64
MOST_POINTS = 512


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
