"""How many tasks run at once, in which order, and when estimates are made again: pure policy, no clock."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

WINDOW = 128
"""Tasks that wait for memory at a time, to choose from; all others wait before that, and are charged when their turn is near."""

SHORT_S = 0.02
"""Tasks below this are prefetched: one waits in its worker, which need not wait for it then."""

TINY_S = 0.005
"""Tasks below this are prefetched seven at a time."""

WORTH_A_START_S = 0.1
"""A call this long counts in full towards its worker's replacement, a shorter one in part. Fifty of these keep a worker
for five seconds, of which its start may have taken a twentieth."""

KILL_PAUSE_S = 0.25
"""After a worker was killed nothing starts for so long, unless nothing runs: what it held is given back meanwhile."""

ONE_BY_ONE_S = 0.1
"""Between two starts after that."""

_DRAWN_AHEAD = 2
_DRAWN_AHEAD_OF_SHORT = 16
_DEPTH_OF_SHORT = 2
_DEPTH_OF_TINY = 8
_FEW_TASKS = 8


@dataclass
class Throughput:
    """Running mean of how long tasks take, and what follows from it for queues ahead of workers."""

    mean_s: float = 1.0

    def record(self, duration_s: float) -> None:
        """A task has ended."""
        self.mean_s += (duration_s - self.mean_s) / 8

    @property
    def is_fast(self) -> bool:
        """Whether tasks end faster than a worker gets its next one."""
        return self.mean_s <= SHORT_S

    @property
    def depth(self) -> int:
        """How many calls a worker may have at a time."""
        if not self.is_fast:
            return 1
        return _DEPTH_OF_TINY if self.mean_s <= TINY_S else _DEPTH_OF_SHORT

    @property
    def drawn_ahead(self) -> int:
        """How many lazily drawn inputs there may be for each worker, unread results included."""
        return _DRAWN_AHEAD_OF_SHORT if self.is_fast else _DRAWN_AHEAD

    @property
    def refill_at(self) -> int:
        """A worker with more calls than this left needs no more yet."""
        return self.depth // 2

    @property
    def weight(self) -> float:
        """How much of a call the present ones count towards their worker's replacement.

        Calls shorter than it takes to start a worker and to import its function count by their time.
        """
        return min(1.0, self.mean_s / WORTH_A_START_S)


class ConcurrencyLimit:
    """Additive increase, multiplicative decrease: halves after each loss, and gets one back per run of clean tasks."""

    def __init__(self, most: int, recover_after: int) -> None:
        self.most = most
        self.now = most
        self._recover_after = recover_after
        self._clean = 0

    def lower_to(self, most: int) -> None:
        """Never more than `most` from now on, and 1 at least."""
        self.most = max(1, min(self.most, most))
        self.now = min(self.now, self.most)

    def lost(self) -> None:
        """A worker was killed or a task ran out of memory."""
        self._clean = 0
        self.now = max(1, self.now // 2)

    def clean(self) -> bool:
        """A task ended as it should; True when that brought concurrency back to where it was."""
        if self.now >= self.most:
            return False
        self._clean += 1
        if self._clean < self._recover_after:
            return False
        self._clean = 0
        self.now += 1
        return self.now == self.most


class StartPacing:
    """After a worker was killed memory may be out, and what it held is given back only now.

    So nothing starts for `KILL_PAUSE_S`, unless nothing runs, and then as many tasks as may run at once start one by one.
    """

    def __init__(self) -> None:
        #: on the driver's clock: nothing starts before, unless nothing runs
        self.pause_until_s = 0.0
        self._one_by_one = 0

    def killed(self, now_s: float, most: int) -> None:
        """A worker was killed, and not by us; `most` tasks may run at once."""
        self.pause_until_s = now_s + KILL_PAUSE_S
        self._one_by_one = most

    def started(self, now_s: float) -> None:
        """A task has started."""
        if self._one_by_one:
            self._one_by_one -= 1
            self.pause_until_s = max(self.pause_until_s, now_s + ONE_BY_ONE_S)


class Reestimation:
    """When tasks that wait are charged again: to estimate a whole queue takes milliseconds, and most tasks teach little.

    After the first task that took more than it was charged at once, then every `max(8, n/8)` tasks while more of them do.
    Otherwise after 8 tasks, 16, 32 and so on.
    """

    def __init__(self) -> None:
        self._finished = 0
        self._exceeded = False
        self._next_if_exceeded = 1
        self._next = _FEW_TASKS

    def is_due(self, *, exceeded: bool) -> bool:
        """Counts one more finished task; `exceeded`: it took more than it was charged."""
        self._finished += 1
        self._exceeded = self._exceeded or exceeded
        if self._finished < (self._next_if_exceeded if self._exceeded else self._next):
            return False
        self._exceeded = False
        self._next_if_exceeded = self._finished + max(_FEW_TASKS, self._finished // 8)
        self._next = max(_FEW_TASKS, 2 * self._finished)
        return True


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
        #: when each ends, its place in the order, and its bytes
        self._running: list[tuple[float, int, int]] = []

    @property
    def free_workers(self) -> int:
        return self.workers - len(self._running)

    def fitting(self, tasks: list[_Known]) -> list[_Known]:
        """Those that could start now, in order; one that is larger than the budget runs when nothing else does."""
        if not self._running:
            return tasks
        free_bytes = self.free_bytes
        return [task for task in tasks if task.bytes <= free_bytes] if self.free_workers else []

    def start(self, task: _Known, at: int) -> None:
        """Starts `task`, number `at` of the order."""
        heapq.heappush(self._running, (self.now_s + task.duration_s, at, task.bytes))
        self.free_bytes -= task.bytes

    def go_on(self) -> None:
        """To the end of the task that ends next; of several the first of the order, as what starts then depends on it."""
        self.now_s, _, freed_bytes = heapq.heappop(self._running)
        self.free_bytes += freed_bytes

    def end_s(self) -> float:
        """When everything that runs has ended."""
        return max((end_s for end_s, _, _ in self._running), default=self.now_s)


def best_order(
    durations_s: Sequence[float],
    sizes_bytes: Sequence[int],
    *,
    workers: int,
    budget_bytes: int,
    max_overtakes: int = 32,
) -> list[int]:
    """Indices in the order to run a list, which is free. Ties keep their order.

    Where memory does not bind, what takes longest goes first. Where it does, three orders are played through as the ledger
    would grant them, and the one that ends soonest is taken:

    - by cost, `duration × max(1/P, m/B)` descending: what takes most of the machine for longest;
    - balanced: whenever a worker is free, the task that makes most use of what is free of both, `(m/B · free memory + 1/P ·
      free workers) · √duration` (the alignment of Grandl et al. 2014, "Multi-resource packing for cluster schedulers");
    - by memory alone, descending.

    Args:
        durations_s: what is expected of each input, in seconds or anything in proportion.
        sizes_bytes: the memory that each is charged.
        workers: how many may run at once.
        budget_bytes: what they may take together.
        max_overtakes: how often the head of the queue may be overtaken.
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
    left = list(by_cost)
    order: list[_Known] = []
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
        machine.start(chosen, len(order))
        order.append(chosen)
    return order


def _makespan_s(order: list[_Known], machine: _Machine, max_overtakes: int) -> float:
    """When the last task ends where the ledger grants them: in order, past the head at most that often."""
    left, overtakes = list(order), 0
    places = {task: place for place, task in enumerate(order)}
    while left:
        fitting = machine.fitting(left[: WINDOW if overtakes < max_overtakes else 1])
        if not fitting:
            machine.go_on()
            continue
        overtakes = 0 if fitting[0] is left[0] else overtakes + 1
        left.remove(fitting[0])
        machine.start(fitting[0], places[fitting[0]])
    return machine.end_s()
