"""The memory of this machine: what tasks and workers may hold of it together, and what workers retain between their tasks.

Workers retain imported modules, caches, models. A new worker will retain as much before long. So stopping a warm worker to make room
gains nothing where its successor loads the same again, and a new worker costs what it will retain from its first task on.
"""

from __future__ import annotations

import statistics
from collections import deque

from pytest_membudget.runtime.admission.ledger import Ledger
from pytest_membudget.runtime.executor.state import Slot
from pytest_membudget.runtime.executor.worker_pool import FREE_BYTES, WorkerPool

_MORE_THAN_ANY_BUDGET = 2**63
"""A budget that moves may have room tomorrow for what does not fit today: the ledger is to refuse nothing."""

_LATEST_WORKERS = 8
_TOO_FEW_FOR_OUTLIERS = 2


class LocalMemory:
    """The account of this machine: `ledger` has what is granted to tasks, `retained` what workers hold beside them.

    Args:
        budget_bytes: what all may hold together, until `set_budget` says otherwise.
        max_overtakes: how often a task that waits may be overtaken by smaller ones.
        base_bytes: what each worker holds before any task, where a calibration knows.
        has_initializer: whether workers load something before their first task, which is known when the first is ready.
        is_shared: whether other programs share the budget. It then begins with nothing, and grows by `set_budget` as they
            leave room for what is asked of them; nothing starts before it did.
    """

    def __init__(
        self,
        budget_bytes: int,
        *,
        max_overtakes: int,
        base_bytes: int = 0,
        has_initializer: bool = False,
        is_shared: bool = False,
    ) -> None:
        self.ledger = Ledger(budget_bytes, max_overtakes=max_overtakes, ceiling_bytes=_MORE_THAN_ANY_BUDGET)
        self.retained = RetainedMemory(base_bytes, has_initializer=has_initializer)
        self.is_shared = is_shared
        #: what tasks and workers may hold together now; the most that this could ever be; and the machine's limit
        self.budget_bytes = 0 if is_shared else budget_bytes
        self.largest_bytes = self.ceiling_bytes = budget_bytes

    def set_budget(self, budget_bytes: int, largest_bytes: int, ceiling_bytes: int) -> None:
        """What tasks and workers may hold together now, the most that this could ever be, and the machine's limit."""
        self.budget_bytes, self.largest_bytes, self.ceiling_bytes = budget_bytes, largest_bytes, ceiling_bytes

    @property
    def waits_for_others(self) -> bool:
        """Whether other programs hold a part of a shared budget: tasks may wait although nothing runs here."""
        return self.is_shared and self.budget_bytes < self.largest_bytes

    @property
    def obtainable_bytes(self) -> int:
        """What can be had: of a shared budget only what was asked for is held, the rest while other programs leave it."""
        return self.largest_bytes if self.is_shared else self.budget_bytes

    @property
    def is_base_over_budget(self) -> bool:
        """Whether one worker alone is more than all may hold together."""
        return max(self.retained.base_bytes, self.retained.loaded_bytes or 0) > self.largest_bytes

    def beside_tasks_bytes(self, pool: WorkerPool) -> int:
        """What workers are charged beside their tasks; those that were stopped still hold theirs."""
        return sum(map(self.retained.charged_bytes, (*pool.slots, *pool.leaving)))

    def held_bytes(self, pool: WorkerPool) -> int:
        """What is charged to tasks and workers together."""
        return self.ledger.reserved_bytes + self.beside_tasks_bytes(pool)

    def may_start_ahead(self, pool: WorkerPool) -> bool:
        """Whether there is memory for one more worker that has nothing to do yet."""
        start_bytes = self.retained.start_bytes(pool)
        return not start_bytes or self.held_bytes(pool) + start_bytes <= self.budget_bytes

    def charge(self, slot: Slot, held_bytes: int) -> int:
        """Charges what the tasks of `slot` hold where that is more than was granted; nothing starts until it fits.

        Args:
            slot: a worker.
            held_bytes: what it holds above its ready state.

        Returns:
            What its tasks hold of that.
        """
        held_by_tasks_bytes = self.retained.task_bytes(slot, held_bytes)
        if slot.lease is not None and held_by_tasks_bytes > slot.lease.charge_bytes:
            self.ledger.charge(slot.lease, held_by_tasks_bytes)
        return held_by_tasks_bytes

    def has_outgrown(self, slot: Slot, pool: WorkerPool, task_bytes: int) -> bool:
        """Whether what a worker retains and its next task exceed its share of the budget, and a new one would retain less."""
        share_bytes = self.largest_bytes // pool.concurrency.most
        return self.retained.has_outgrown(slot, share_bytes - min(task_bytes, share_bytes // 2))


class RetainedMemory:
    """Expected retained memory of a worker: the base that a calibration found, else what the latest workers retain.

    `fresh_bytes` is their median after the first task. `expected_bytes` is what one retains in the long run: the second
    largest, which is robust to one outlier; the median would underestimate, as young workers have not imported everything.
    """

    def __init__(self, base_bytes: int = 0, *, has_initializer: bool = False) -> None:
        #: what the initializer loads, by the worker that was ready last; None until one was
        self.loaded_bytes: int | None = None if has_initializer else 0
        self.base_bytes = base_bytes
        self.fresh_bytes = base_bytes
        self.expected_bytes = base_bytes
        self._latest: deque[Slot] = deque(maxlen=_LATEST_WORKERS)

    def expect_base(self, base_bytes: int) -> None:
        """Calls wait whose workers hold so much before any task; where calls differ the largest counts."""
        if base_bytes > self.base_bytes:
            self.base_bytes = self.fresh_bytes = self.expected_bytes = base_bytes

    def record(self, slot: Slot, *, is_first: bool) -> None:
        """`slot` has ended a task, its first one where `is_first`."""
        if is_first:
            self._latest.append(slot)
        if not self.base_bytes:
            self.fresh_bytes = int(statistics.median(each.first_retained_bytes or 0 for each in self._latest))
            largest = sorted(each.retained_bytes for each in self._latest)[-2:]
            few = len(self._latest) <= _TOO_FEW_FOR_OUTLIERS
            self.expected_bytes = largest[-1] if few else largest[0]

    def own_bytes(self, slot: Slot) -> int:
        """What a worker holds beside its tasks: what it retains, or what one that has begun is expected to retain."""
        if not slot.backend.own_memory:
            return 0
        loaded_bytes = self.loaded_by(slot)
        if self.base_bytes:  # of a warm worker: what the initializer loads is in it
            return max(self.base_bytes, loaded_bytes + slot.retained_bytes)
        return loaded_bytes + max(slot.retained_bytes, self.expected_bytes if slot.has_begun else 0)

    def loaded_by(self, slot: Slot) -> int:
        """What the initializer has loaded in a worker, or will have, in bytes."""
        return (self.loaded_bytes or 0) if slot.base_bytes is None else slot.base_bytes

    def to_come_bytes(self, slot: Slot) -> int:
        """What a worker is still expected to load and retain, beside what its tasks take."""
        return self.own_bytes(slot) - self.loaded_by(slot) - slot.retained_bytes

    def task_bytes(self, slot: Slot, held_bytes: int) -> int:
        """What the tasks of a worker hold that holds `held_bytes` above its ready state."""
        return held_bytes - max(0, self.own_bytes(slot) - (slot.base_bytes or 0))

    def has_outgrown(self, slot: Slot, share_bytes: int) -> bool:
        """Whether a worker retains more than its share, and its successor would retain less."""
        return self.own_bytes(slot) > share_bytes and self._would_shrink(slot)

    def charged_bytes(self, slot: Slot) -> int:
        """What `slot` is charged beside its tasks; nothing where its memory is not this machine's.

        A worker whose successor would retain less is charged in full: several that grow would else exceed the budget by
        what each has free.
        """
        if not slot.backend.is_local_pool:
            return 0
        own_bytes = self.own_bytes(slot)
        return own_bytes if self._would_shrink(slot) else self._charged(own_bytes)

    def start_bytes(self, pool: WorkerPool) -> int:
        """What the worker of the next task will be charged beyond that as it begins; 0 where a warm one is idle."""
        loaded_bytes = self.loaded_bytes or 0  # where a base is known, that is in it
        new_bytes = self._charged(
            max(self.base_bytes, loaded_bytes + (0 if self.base_bytes else self.expected_bytes))
        )
        if not new_bytes or not pool.levels.now.is_local_pool:
            return 0
        idle = pool.idle(pool.levels.now)
        if idle and idle[0].has_begun:
            return 0
        return new_bytes - (self.charged_bytes(idle[0]) if idle else 0)

    def surplus(self, pool: WorkerPool, *, leave_one: bool = False) -> list[Slot]:
        """Idle workers that might be stopped for their memory, the one that retains most first.

        One stays for the task that waits: of the warm ones the smallest, unless a new one would be smaller and
        `leave_one` does not say otherwise.
        """
        idle = [slot for slot in pool.idle() if slot.backend.is_local_pool]
        warm = [slot for slot in idle if slot.has_begun]
        cold = [slot for slot in idle if not slot.has_begun]
        if warm and (leave_one or not self._would_shrink(warm[-1])):
            warm.pop()
        elif cold:
            cold.pop()
        return [slot for slot in (*warm, *cold) if self.charged_bytes(slot)]

    def _would_shrink(self, slot: Slot) -> bool:
        """Whether a worker that begins again would retain less, by more than chance."""
        return slot.retained_bytes - self.fresh_bytes > FREE_BYTES

    def _charged(self, own_bytes: int) -> int:
        return own_bytes if self.base_bytes else max(0, own_bytes - FREE_BYTES)
