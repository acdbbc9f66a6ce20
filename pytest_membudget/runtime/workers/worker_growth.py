"""The verdict on what worker processes held from task to task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pytest_membudget.records.growth import Growth
from pytest_membudget.runtime.workers.heap_readings import HeapReading
from pytest_membudget.stats.task_growth import judge_task_series, pool_workers


class WorkerGrowth(NamedTuple):
    """All workers together, `None` where there were none, and each by itself."""

    together: Growth | None
    workers: tuple[Growth, ...]


def growth_in_workers(readings: Mapping[int, Sequence[HeapReading]], label: str = "") -> WorkerGrowth:
    """Judges the readings of each worker, by its process id, and then all of them."""
    workers = tuple(judge_task_series(series, label=f"worker {pid}") for pid, series in readings.items())
    return WorkerGrowth(pool_workers(workers, label) if workers else None, workers)
