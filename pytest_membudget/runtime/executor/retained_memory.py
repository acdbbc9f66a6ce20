"""What workers retain between their tasks, what that costs, and when a worker is replaced.

Workers retain imported modules, caches, models. A new worker will retain as much before long. So stopping a warm worker to make room
gains nothing where its successor loads the same again, and a new worker costs what it will retain from its first task on.
"""

from __future__ import annotations

import statistics
from collections import deque

from pytest_membudget.runtime.executor.state import Slot
from pytest_membudget.runtime.executor.worker_pool import FREE_BYTES, WorkerPool

_LATEST_WORKERS = 8
_TOO_FEW_FOR_OUTLIERS = 2


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
