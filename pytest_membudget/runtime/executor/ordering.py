"""In which order a list of files is run where the order is free.

Where memory does not bind, what takes longest goes first. Where it does, three orders are played through as the ledger
would grant them, and the one that ends soonest is taken:

- by cost, `duration × max(1/P, m/B)` descending: what takes most of the machine for longest;
- balanced: whenever a worker is free, the task that makes most use of what is free of both, `(m/B · free memory + 1/P ·
  free workers) · √duration` (the alignment of Grandl et al. 2014, "Multi-resource packing for cluster schedulers");
- by memory alone, descending.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

from pytest_membudget.runtime.executor.local_placement import WINDOW

MOST_PLAYED = 1000
"""Longer lists go by cost at once: playing them through would take longer than it saves."""


class _Known(NamedTuple):
    """What is expected of an input, and its place in the list."""

    place: int
    bytes: int
    duration_s: float


class _Machine:
    """Workers and a budget, played through: when each task ends is known."""

    def __init__(self, workers: int, budget_bytes: int) -> None:
        self.workers = workers
        self.budget_bytes = max(1, budget_bytes)
        self.free_bytes = self.budget_bytes
        self.now_s = 0.0
        self._running: list[tuple[float, int]] = []

    @property
    def free_workers(self) -> int:
        return self.workers - len(self._running)

    def fitting(self, tasks: list[_Known]) -> list[_Known]:
        """Those that could start now, in order; one that is larger than the budget runs when nothing else does."""
        if not self._running:
            return tasks
        free_bytes = self.free_bytes
        return [task for task in tasks if task.bytes <= free_bytes] if self.free_workers else []

    def start(self, task: _Known) -> None:
        heapq.heappush(self._running, (self.now_s + task.duration_s, task.bytes))
        self.free_bytes -= task.bytes

    def go_on(self) -> None:
        """To the end of the task that ends next."""
        self.now_s, freed_bytes = heapq.heappop(self._running)
        self.free_bytes += freed_bytes

    def end_s(self) -> float:
        """When everything that runs has ended."""
        return max((end_s for end_s, _ in self._running), default=self.now_s)


def best_order(
    durations_s: Sequence[float],
    sizes_bytes: Sequence[int],
    *,
    workers: int,
    budget_bytes: int,
    max_overtakes: int = 32,
) -> list[int]:
    """Indices in the order to run. Ties keep their order.

    Args:
        durations_s: what is expected of each input, in seconds or anything in proportion.
        sizes_bytes: the memory that each is charged.
        workers: how many may run at once.
        budget_bytes: what they may take together.
        max_overtakes: how often the head of the line may be overtaken.
    """
    known = [_Known(*each) for each in zip(range(len(durations_s)), sizes_bytes, durations_s, strict=True)]
    by_cost = sorted(
        known, key=lambda task: -task.duration_s * max(1 / workers, task.bytes / max(1, budget_bytes))
    )
    memory_binds = sum(sorted(sizes_bytes)[-workers:]) > budget_bytes
    if not memory_binds or len(known) > MOST_PLAYED or workers == 1:
        return [task.place for task in by_cost]
    candidates = [
        by_cost,
        _balanced(by_cost, _Machine(workers, budget_bytes)),
        sorted(known, key=lambda task: -task.bytes),
    ]
    ends_s = [_makespan_s(order, _Machine(workers, budget_bytes), max_overtakes) for order in candidates]
    return [task.place for task in candidates[ends_s.index(min(ends_s))]]


def _balanced(by_cost: list[_Known], machine: _Machine) -> list[_Known]:
    left, order = list(by_cost), []
    roots = [math.sqrt(task.duration_s) for task in sorted(by_cost)]
    while left:
        fitting = machine.fitting(left[:WINDOW])
        if not fitting:
            machine.go_on()
            continue
        memory_weight = machine.free_bytes / machine.budget_bytes**2
        worker_weight = machine.free_workers / machine.workers**2
        use = [(task.bytes * memory_weight + worker_weight) * roots[task.place] for task in fitting]
        chosen = fitting[use.index(max(use))]
        left.remove(chosen)
        machine.start(chosen)
        order.append(chosen)
    return order


def _makespan_s(order: list[_Known], machine: _Machine, max_overtakes: int) -> float:
    """When the last task ends where the ledger grants them: in order, past the head at most that often."""
    left, overtakes = list(order), 0
    while left:
        fitting = machine.fitting(left[: WINDOW if overtakes < max_overtakes else 1])
        if not fitting:
            machine.go_on()
            continue
        overtakes = 0 if fitting[0] is left[0] else overtakes + 1
        left.remove(fitting[0])
        machine.start(fitting[0])
    return machine.end_s()
