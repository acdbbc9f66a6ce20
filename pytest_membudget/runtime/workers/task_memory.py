"""What one call takes in its worker, by the kernel's high-water mark.

Resetting the mark and reading it costs some 50 µs, which is much for a call of 1 ms. `exact` pays that. Otherwise the
mark is reset only after a call has raised it: a call that did not raise it took no more than what was there to reach,
and that is kept below `RESOLUTION_BYTES`.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import NamedTuple

from pytest_membudget.measurement.growth.task_heap import TaskHeap
from pytest_membudget.measurement.process import high_water
from pytest_membudget.measurement.process.heap import trim_heap
from pytest_membudget.runtime.workers.task_tree import TaskTree

RESOLUTION_BYTES = 1024 * 1024
"""The kernel counts in batches and the interpreter takes memory by itself: less than this tells nothing of a task."""


class Taken(NamedTuple):
    """What one call took with what it started, in bytes.

    `peak_bytes` is proven, `peak_upper_bytes` possible; the latter is `None` where the first is exact.
    """

    peak_bytes: int | None  # the most it added; `None` where the kernel does not tell
    kept_bytes: int  # what the worker keeps since it was ready, and what is left running below it
    resident_peak_bytes: int  # the most that was resident in the worker
    peak_upper_bytes: int | None = None


_QUICK_S = 0.005
_SHARE_OF_TIME = 0.1


class Collector:
    """Collects garbage in a tenth of the time at most, where that is slow: with pandas loaded it takes some 70 ms.

    Args:
        collect: the collection.
        clock: seconds that pass.
        processor_clock: seconds that this thread computes; those of others do not make a collection dear.
    """

    def __init__(
        self,
        collect: Callable[[], object] = gc.collect,
        clock: Callable[[], float] = time.monotonic,
        processor_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._collect = collect
        self._clock = clock
        self._processor_clock = processor_clock
        self._not_before_s = float("-inf")

    def collect(self) -> None:
        """Collects, unless the last time was too dear for that."""
        if self._clock() < self._not_before_s:
            return
        began_s = self._processor_clock()
        self._collect()
        cost_s = self._processor_clock() - began_s
        if cost_s > _QUICK_S:
            self._not_before_s = self._clock() + cost_s / _SHARE_OF_TIME


class TaskMemory:
    """Follows this process's memory from call to call, and with a `tree` that of what calls start."""

    def __init__(self, tree: TaskTree | None = None) -> None:
        self._tree = tree
        # What imports have left behind is given back now: else the first call would seem to have kept less.
        gc.collect()
        trim_heap()
        self.ready_bytes = high_water.resident_bytes()
        self._mark = high_water.open_mark()
        self._start_bytes = self.ready_bytes
        self._tidied_bytes = 0
        self._collector = Collector()

    def begin(self, *, exact: bool) -> None:
        """Just before a call."""
        if exact:
            self._reset()
        if self._tree is not None:
            self._tree.begin()

    def end(self) -> Taken:
        """Just after a call. A peak of `None`: the kernel does not tell."""
        reached_bytes, resident_bytes = high_water.high_water_and_resident_bytes()
        peak_bytes = None
        if self._mark is not None:
            reached_bytes = max(reached_bytes, self._mark.peak_bytes)
            peak_bytes = max(0, reached_bytes - self._start_bytes)
        tree = None if self._tree is None else self._tree.end(peak_bytes or 0, self._start_bytes)
        if resident_bytes - self.ready_bytes > self._tidied_bytes + RESOLUTION_BYTES:
            # Given back now: what lies about would be charged to this worker, and hide what the next call takes.
            self._collector.collect()
            trim_heap()
            resident_bytes = high_water.resident_bytes()
            self._tidied_bytes = resident_bytes - self.ready_bytes
        self._start_bytes = resident_bytes
        if reached_bytes - resident_bytes > RESOLUTION_BYTES:
            self._reset()
        kept_bytes = max(0, resident_bytes - self.ready_bytes)
        if tree is None:
            return Taken(peak_bytes, kept_bytes, reached_bytes)
        is_exact = tree.peak_bytes == tree.peak_upper_bytes
        upper_bytes = None if is_exact else tree.peak_upper_bytes
        return Taken(tree.peak_bytes, kept_bytes + tree.left_bytes, reached_bytes, upper_bytes)

    def _reset(self) -> None:
        if self._mark is not None:
            high_water.close_mark(self._mark)
            self._mark = high_water.open_mark()
        self._start_bytes = high_water.resident_bytes() if self._mark is None else self._mark.start_bytes


_FARTHEST_TASKS = 8
_EARLY_TASKS = 64
_EARLY_COST_S = 0.002
_READING_SHARE_OF_TIME = 0.01


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
            self._not_before_s = time.monotonic() + cost_s / _READING_SHARE_OF_TIME
        return tasks, held_bytes  # a plain tuple: it travels with the task's report
