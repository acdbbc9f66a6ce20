"""What a worker process holds from task to task: read by the worker, kept by the coordinator.

The worker reads before a task what the tasks so far have left, after a collection: garbage that waits for the collector
looks like a leak until it is gone. Readings lie up to eight tasks apart, and take 1% of the worker's time at most.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pytest_membudget.measurement.growth.task_heap import TaskHeap

MOST_WORKERS = 64
MOST_POINTS = 512
_FARTHEST_TASKS = 8
_EARLY_TASKS = 64
_EARLY_COST_S = 0.002
_SHARE_OF_TIME = 0.01


class HeapReading(NamedTuple):
    """Bytes of heap that a worker held after so many tasks."""

    tasks: int
    heap_bytes: int


class HeapReader:
    """Reads in the worker, where it is due and has not taken too much of the time already."""

    def __init__(self) -> None:
        self._heap = TaskHeap()
        self._tasks = 0
        self._next_tasks = 0
        self._not_before_s = 0.0

    def before_task(self, packed_bytes: int) -> tuple[int, int] | None:
        """Counts a task; the reading before it, less the `packed_bytes` that the waiting call takes."""
        tasks = self._tasks
        self._tasks += 1
        if tasks < self._next_tasks or time.monotonic() < self._not_before_s:
            return None
        began_s = time.thread_time()
        gc.collect()
        held_bytes = self._heap.read() - packed_bytes
        cost_s = time.thread_time() - began_s
        self._next_tasks = tasks + max(1, min(tasks // 8, _FARTHEST_TASKS))
        if tasks >= _EARLY_TASKS or cost_s > _EARLY_COST_S:
            self._not_before_s = time.monotonic() + cost_s / _SHARE_OF_TIME
        return tasks, held_bytes  # a plain tuple: it travels with the task's report


class HeapLog:
    """The readings of the latest workers, by process id. Written by one thread, read by any."""

    def __init__(self) -> None:
        self._readings: dict[int, list[HeapReading]] = {}

    def note(self, pid: int, reading: HeapReading) -> None:
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
