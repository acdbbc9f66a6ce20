"""The workers of an executor, the level that they belong to, and when one of them is replaced."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from pytest_membudget.runtime.executor.flow_control import ConcurrencyLimit, StartPacing, Throughput
from pytest_membudget.runtime.executor.policy import USUAL_TASKS_PER_CHILD, ExecutorPolicy
from pytest_membudget.runtime.executor.state import Backend, Slot, Task

STARTS_THAT_MAY_FAIL = 3
"""When so many workers in a row ended before they were ready, their level counts as one that cannot start."""

FREE_BYTES = 16 * 1024 * 1024
"""What a worker may retain of its tasks before it is charged, where no base is known."""

_LOADING_SHARE = 0.1
"""A worker that is replaced as usual has spent at most so much of its time on loading what its tasks need."""


class Levels:
    """The levels of an executor, best first, and the one that tasks run at now: that goes down, never up."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.all = tuple(backends)
        self.now = self.all[0]

    @property
    def for_threads(self) -> Backend:
        """Threads, where the present level or one below it is that of threads; else the present level."""
        below = self.all[self.all.index(self.now) :]
        return next((each for each in below if each.level == "thread"), self.now)

    def came_to_a_call(self, backend: Backend) -> None:
        """A worker of `backend` has answered a call, so its level can start workers."""
        if backend is self.now:
            backend.is_proven, backend.failed_starts = True, 0

    def cannot_start(self, backend: Backend) -> bool:
        """Counts a worker that ended before it was ready; True where as many in a row did as count for their level."""
        backend.failed_starts += 1
        if backend.failed_starts < STARTS_THAT_MAY_FAIL:
            return False
        backend.failed_starts = 0
        return True

    def fall_below(self, backend: Backend) -> bool:
        """Goes to the level below `backend`, unless that was left before; False where there is no lower one."""
        below = max(self.all.index(backend) + 1, self.all.index(self.now))
        if below == len(self.all):
            return False
        self.now = self.all[below]
        return True


@dataclass(slots=True, eq=False)
class Pool:
    """All that placement strategies may read."""

    levels: Levels
    concurrency: ConcurrencyLimit
    throughput: Throughput
    #: calls that may be with workers at a time
    max_in_flight: int = sys.maxsize
    slots: list[Slot] = field(default_factory=list)
    #: stopped and not ended yet: what they retain is not free
    leaving: list[Slot] = field(default_factory=list)
    #: on the driver's monotonic clock
    now_s: float = 0.0
    #: whether tasks of this machine stall for want of memory; nothing then starts beside what runs
    is_under_pressure: bool = False
    pacing: StartPacing = field(default_factory=StartPacing)

    @property
    def backend(self) -> Backend:
        """The level that tasks run at now."""
        return self.levels.now

    @property
    def busy(self) -> int:
        """Workers that have something to do."""
        return sum(1 for slot in self.slots if slot.running)

    @property
    def room_in_flight(self) -> int:
        """How many more calls may be with workers."""
        return self.max_in_flight - sum(len(slot.running) for slot in self.slots)

    @property
    def is_saturated(self) -> bool:
        """Whether no further worker may be busy."""
        most = 1 if self.is_under_pressure else self.concurrency.now
        return self.busy >= most or self.room_in_flight <= 0

    def idle(self, backend: Backend | None = None) -> list[Slot]:
        """Workers (of `backend`) with nothing to do: those that have begun first, of these the one that retains most."""
        found = [
            slot
            for slot in self.slots
            if not slot.running and not slot.is_closing and backend in {None, slot.backend}
        ]
        return sorted(found, key=lambda slot: (not slot.has_begun, -slot.retained_bytes))


class Replacement:
    """When a worker has done enough, or retains too much, and another one takes its place."""

    def __init__(self, policy: ExecutorPolicy) -> None:
        self._most_calls = policy.max_tasks_per_child
        self._most_bytes = None if policy.max_worker_bytes is None else policy.most_worker_bytes

    def weight_of(self, task: Task, pool: Pool) -> float:
        """How much of a call `task` counts: a short one in part, inputs of `run` only at the usual number."""
        counts_whole = task.exact and self._most_calls != USUAL_TASKS_PER_CHILD
        return 1.0 if counts_whole else pool.throughput.weight

    def is_due(self, slot: Slot) -> bool:
        """Whether a worker process has been sent enough calls.

        Fifty files of some milliseconds are not, where the next worker would import pandas for two seconds first.
        """
        return self._is_due_after(slot, slot.handed)

    def is_soon_due(self, slot: Slot) -> bool:
        """Whether its successor should be on its way up by now."""
        return self._is_due_after(slot, slot.handed * 4 / 3)

    def _is_due_after(self, slot: Slot, handed: float) -> bool:
        if self._most_calls is None or handed < self._most_calls or not slot.backend.is_local_pool:
            return False
        has_loaded = (slot.first_retained_bytes or 0) > FREE_BYTES
        if self._most_calls != USUAL_TASKS_PER_CHILD or not has_loaded:
            return True
        return slot.loading_s <= _LOADING_SHARE * slot.busy_s

    def has_outgrown(self, slot: Slot, pool: Pool, task_bytes: int) -> bool:
        """Whether a worker retains more than it may, where its tasks take `task_bytes` beside that."""
        if not slot.backend.is_local_pool:
            return False
        if self._most_bytes is not None:
            return slot.retained_bytes + (slot.base_bytes or 0) > self._most_bytes
        return slot.backend.placement.has_outgrown(slot, pool, task_bytes)
