"""A cluster, each worker with a budget of its own: a task starts in a worker that is large enough for it."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Iterator

from pytest_membudget.errors import OversizeError
from pytest_membudget.runtime.executor.flow_control import WINDOW
from pytest_membudget.runtime.executor.placement import Assignment, Placement, arrival, unmeasured
from pytest_membudget.runtime.executor.state import Slot, Task, task_name
from pytest_membudget.runtime.executor.worker_pool import FREE_BYTES, WorkerPool
from pytest_membudget.units import format_duration, format_size

TOGETHER = 32
"""The most calls that are sent to a worker in one message."""

TOGETHER_S = 0.1
"""Calls that are sent in one message take about so long together: the way there and back takes a few milliseconds."""

MESSAGE_S = 0.003
"""What a message costs the cluster's scheduler, which has one thread for all workers (measured, see docs/cluster.md).

With many workers messages last longer, so that the scheduler keeps up with them.
"""

AHEAD_S = 0.5
"""Tasks below this are queued ahead in their worker."""

STRANDED_S = 30.0
"""How long a task waits for a worker that was large enough for it, and is gone, to come back."""


class ClusterPlacement(Placement):
    """The tasks that wait for a worker of the cluster, by home, in order of arrival. Each worker has a budget of its own.

    Every task has a *home*: the workers with the smallest capacity that is enough for it. A free worker gets the first
    task of those that need a capacity as large as its own, and only where there is none one that could run in a smaller
    worker. So:

    - no worker is given more than its capacity, as it runs one call at a time;
    - no task starves: when a worker of its home is free, only those before it with the same home come first;
    - no large worker idles while anything waits, and none is busy with small tasks while a large one waits.

    A task that must be alone waits until all workers of the machine with the largest one are free, and nothing starts there
    before it has ended.

    Args:
        most: tasks at once; None for one in each worker.
        base_bytes: what each worker retains in any case, where a calibration knows.
    """

    #: of the largest worker so far; after `STRANDED_S` of the largest that is left
    largest_bytes: int = 0

    def __init__(self, *, most: int | None = None, base_bytes: int = 0) -> None:
        super().__init__()
        self._waiting: dict[Task, OrderedDict[Task, None]]  # each with its queue
        self._most = most
        self._base_bytes = base_bytes
        self._capacities: list[int] = []
        self._homes: list[OrderedDict[Task, None]] = [OrderedDict()]  # the last one: larger than every worker
        self._alone: OrderedDict[Task, None] = OrderedDict()
        self._alone_at: Slot | None = None
        self._stranded_since_s: float | None = None
        self._workers = 0

    @property
    def is_full(self) -> bool:
        """Whether it takes no more tasks: enough wait, or no worker has come yet and none can be called too large."""
        return not self.largest_bytes or len(self._waiting) >= WINDOW + 2 * TOGETHER * self._workers

    def add(self, task: Task) -> None:
        """Puts `task` at its place: a repeat comes before all that arrived after it."""
        self._base_bytes = max(self._base_bytes, task.charge.base_bytes)
        queue = self._queue_for(task)
        last = next(reversed(queue), None)
        queue[task] = None
        self._waiting[task] = queue
        if last is not None and task.order < last.order:
            tasks = sorted(queue, key=arrival)
            queue.clear()
            queue.update(dict.fromkeys(tasks))

    def remove(self, task: Task) -> None:
        """Forgets a task that waits."""
        queue = self._waiting.pop(task, None)
        if queue is not None:
            del queue[task]

    def recharge(self) -> None:
        """Sorts the tasks again."""
        tasks = self.waiting()
        self._homes = [OrderedDict() for _ in range(len(self._capacities) + 1)]
        self._alone.clear()
        self._waiting.clear()
        for task in tasks:
            self.add(task)

    def workers_changed(self, slots: list[Slot]) -> None:
        """Workers joined or left, or offer another capacity."""
        self._workers = len(slots)
        capacities = sorted({slot.capacity_bytes for slot in slots})
        if capacities != self._capacities:
            self._capacities = capacities
            self.largest_bytes = max([self.largest_bytes, *capacities])
            self.recharge()

    def oversize(self, task: Task, waited: str = "") -> OversizeError:
        """With both numbers."""
        return OversizeError(
            f"{task_name(task)} is expected to take {format_size(task.charged_bytes)}, more than the "
            f"{format_size(self.largest_bytes)} that the largest worker of the cluster offers{waited}; start a "
            f'larger worker, split the input, or run such tasks alone with ExecutorPolicy(oversize="alone"){unmeasured(task)}'
        )

    def stranded(self, pool: WorkerPool) -> list[tuple[Task, Exception]]:
        """Takes out the tasks whose only workers are gone, and did not come back for a while."""
        too_large = self._homes[-1] if self._capacities else ()
        if not too_large:
            self._stranded_since_s = None
            return []
        if self._stranded_since_s is None:
            self._stranded_since_s = pool.now_s
        if pool.now_s - self._stranded_since_s < STRANDED_S:
            return []
        self.largest_bytes = self._capacities[-1]
        waited = f" (larger ones left, and did not come back within {format_duration(STRANDED_S)})"
        found: list[tuple[Task, Exception]] = [(task, self.oversize(task, waited)) for task in too_large]
        for task, _ in found:
            self.remove(task)
        return found

    def assignments(self, pool: WorkerPool) -> Iterator[Assignment]:
        """First something for each worker that is idle, then short calls for those that will soon be."""
        for ahead in (False, True) if pool.throughput.mean_s <= AHEAD_S else (False,):
            for slot in sorted(pool.slots, key=_capacity):
                if not self._may_get_more(slot, pool, ahead=ahead):
                    continue
                tasks = self.take_for(slot, pool, calls_together(pool))
                if tasks:
                    renew = not slot.running and self._retains_too_much(slot, tasks)
                    yield Assignment(tuple(tasks), slot=slot, renew=renew)

    def take_for(self, slot: Slot, pool: WorkerPool, at_most: int) -> list[Task]:
        """Takes out what `slot` is to do next, in order: several only where none of them was tried before."""
        if self._must_wait(slot, pool):
            return []
        if self._alone and not slot.running and slot is _largest(pool.slots):
            self._alone_at = slot
            return [self._take(next(iter(self._alone)))]
        taken: list[Task] = []
        for home in reversed(self._homes[: bisect.bisect_right(self._capacities, slot.capacity_bytes)]):
            while home and len(taken) < at_most:
                task = next(iter(home))
                if task.lost or task.attempts:  # one that ended its worker must be known from those beside it
                    return taken or ([] if slot.running else [self._take(task)])
                taken.append(self._take(task))
        return taken

    def _may_get_more(self, slot: Slot, pool: WorkerPool, *, ahead: bool) -> bool:
        if pool.room_in_flight <= 0:
            return False
        if ahead:
            few = max(1, calls_together(pool) // 2)
            return 1 <= len(slot.running) <= few and not slot.running[0].alone
        return not slot.running and (self._most is None or pool.busy < self._most)

    def _retains_too_much(self, slot: Slot, tasks: list[Task]) -> bool:
        """Whether the tasks fit the worker, but not beside what earlier ones left there."""
        needed_bytes = max(task.charged_bytes for task in tasks)
        excess_bytes = max(0, slot.retained_bytes - (self._base_bytes or FREE_BYTES))
        fits = needed_bytes <= slot.capacity_bytes
        return slot.is_renewable and fits and needed_bytes > slot.capacity_bytes - excess_bytes

    def _must_wait(self, slot: Slot, pool: WorkerPool) -> bool:
        """Whether the machine of `slot` is kept for a task that must be alone there, or has one."""
        at = self._alone_at
        if at is not None and at.running and not at.is_gone:
            return at.host == slot.host
        largest = _largest(pool.slots) if self._alone else None
        if largest is None or largest.host != slot.host:
            return False
        return slot is not largest or any(each.running for each in pool.slots if each.host == slot.host)

    def _queue_for(self, task: Task) -> OrderedDict[Task, None]:
        if task.alone:
            return self._alone
        return self._homes[bisect.bisect_left(self._capacities, task.charged_bytes)]

    def _take(self, task: Task) -> Task:
        self.remove(task)
        return task


def calls_together(pool: WorkerPool) -> int:
    """How many calls are sent in one message, so that the cluster's scheduler keeps up."""
    message_s = max(TOGETHER_S, MESSAGE_S * len(pool.slots))
    most = max(1, min(TOGETHER, int(message_s / max(pool.throughput.mean_s, 1e-6))))
    return max(1, min(most, pool.room_in_flight))


def _largest(slots: list[Slot]) -> Slot | None:
    return max(slots, key=_capacity, default=None)


def _capacity(slot: Slot) -> int:
    return slot.capacity_bytes
