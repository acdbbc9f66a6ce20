"""One machine with one budget: a task starts when its memory fits, in an idle worker or a new one.

At most `WINDOW` tasks wait in the ledger at a time; the others in the task queue before that. So each task is charged by what
is known when its turn is near, not by what was known when it came.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from pytest_membudget.runtime.admission.ledger import Ticket
from pytest_membudget.runtime.executor import slow_start
from pytest_membudget.runtime.executor.flow_control import WINDOW
from pytest_membudget.runtime.executor.local_memory import LocalMemory
from pytest_membudget.runtime.executor.placement import Assignment, Demand, Placement
from pytest_membudget.runtime.executor.state import Slot, Task
from pytest_membudget.runtime.executor.worker_pool import WorkerPool
from pytest_membudget.runtime.prediction.profiles import ChargedCall, fits

WARM_START_S = 0.05
COLD_START_S = 0.5
"""A call that was sent begins so soon, in a warm worker and in a new one. One that has not by then is charged its peak."""


class LocalPlacement(Placement):
    """The tasks that wait for memory of this machine, in order of arrival.

    Args:
        memory: grants it.
    """

    memory: LocalMemory

    def __init__(self, memory: LocalMemory) -> None:
        super().__init__()
        self._waiting: dict[Task, Ticket]  # in order of arrival
        self.memory = memory
        self._ledger = memory.ledger
        self._retained = memory.retained
        self._skipped = 0

    @property
    def largest_bytes(self) -> int:
        """The most that the budget could ever be."""
        return self.memory.largest_bytes

    @property
    def ceiling_bytes(self) -> int:
        """The machine's limit."""
        return self.memory.ceiling_bytes

    def demand(self, pool: WorkerPool) -> Demand:
        """What these tasks ask of a budget that other programs share."""
        needed_bytes = self.memory.held_bytes(pool)
        room = 0 if pool.is_saturated else max(0, pool.concurrency.now - pool.busy)
        startable = [ticket.bytes for ticket in itertools.islice(self._waiting.values(), room)]
        if not startable:
            return Demand(needed_bytes, 0, needed_bytes)
        start_bytes = self._retained.start_bytes(pool)
        wanted_bytes = needed_bytes + sum(startable) + start_bytes * len(startable)
        return Demand(needed_bytes, startable[0] + start_bytes, wanted_bytes)

    @property
    def is_full(self) -> bool:
        """Whether enough tasks wait in the ledger already."""
        return len(self._waiting) >= WINDOW

    def add(self, task: Task) -> None:
        """Puts `task` at its place: a repeat comes before all that arrived after it."""
        last = next(reversed(self._waiting), None)
        self._retained.expect_base(task.charge.base_bytes)
        self._submit(task)
        if last is not None and task.order < last.order:
            self.recharge()

    def remove(self, task: Task) -> None:
        """Forgets a task that waits."""
        ticket = self._waiting.pop(task, None)
        if ticket is not None:
            self._ledger.cancel(ticket)

    def recharge(self) -> None:
        """Requests again what each task is charged now, in order of arrival. Overtakes are kept."""
        tickets = {task: self._waiting[task] for task in self.waiting()}
        for ticket in tickets.values():
            self._ledger.cancel(ticket)
        self._waiting.clear()
        for task, ticket in tickets.items():
            self._submit(task).overtaken = ticket.overtaken

    def assignments(self, pool: WorkerPool) -> Iterator[Assignment]:
        """Tasks whose memory was granted, and between them idle workers whose memory the next task needs."""
        while self._waiting and not pool.is_saturated and not self._must_wait(pool):
            ticket = self._grant(pool)
            if ticket is None and (surplus := self._surplus_for_next(pool)):
                yield Assignment(stop=(surplus[0],))
                continue
            ticket = ticket or self._grant_the_only_one(pool)
            if ticket is None:
                return
            task: Task = ticket.token
            stop = self._retained.surplus(pool, leave_one=not task.attempts) if ticket.exclusive else []
            yield Assignment((task,), lease=ticket, stop=tuple(stop))

    def take_within(self, lease: Ticket) -> Task | None:
        """Takes the head out where `lease` is enough for it as well: it will run there after the call before it."""
        head = self._ledger.head
        if head is None or head.exclusive or head.bytes > lease.bytes:
            return None
        task: Task = head.token
        if not task.may_follow:
            return None
        self.remove(task)
        return task

    def _submit(self, task: Task) -> Ticket:
        """A request for what the task is charged; for the whole machine where that is more than any budget."""
        alone = task.alone or task.charged_bytes > self.largest_bytes
        ticket = self._ledger.submit(task.charged_bytes, exclusive=alone, token=task)
        self._waiting[task] = ticket
        return ticket

    def _grant(self, pool: WorkerPool) -> Ticket | None:
        """The next request that may start; what workers hold beside their tasks is not there to be granted."""
        aside_bytes = self.memory.beside_tasks_bytes(pool) + self._retained.start_bytes(pool)
        if aside_bytes > self.memory.budget_bytes:
            return None  # not even a task that takes nothing
        self._ledger.set_budget(self.memory.budget_bytes - aside_bytes)
        head = self._ledger.head
        if (
            head is not None
            and head.exclusive
            and head.bytes > self._ledger.budget_bytes
            and self.memory.waits_for_others
        ):
            return None
        return self._started(self._ledger.grant(at_most=1) or self._grant_by_profile(pool, head))

    def _grant_by_profile(self, pool: WorkerPool, head: Ticket | None) -> list[Ticket]:
        """The head of the queue where its peak does not fit, but the sum of all profiles does at every instant to come.

        The ledger books its peak all the same, beyond the budget, so nothing else starts by its peak meanwhile.
        """
        if head is None or head.exclusive or (task := head.token).profile is None:
            return []
        profile = task.profile.now()
        if profile is None or self._ledger.statistics().exclusive:
            return []
        idle = pool.idle(pool.levels.now)
        is_warm = bool(idle) and idle[0].has_begun and not task.fresh_worker
        call = ChargedCall(head.bytes, profile, may_wait_s=WARM_START_S if is_warm else COLD_START_S)
        leases = [slot.lease for slot in pool.slots if slot.lease is not None]
        running = [
            charged_call(slot, slot.lease, pool.now_s) for slot in pool.slots if slot.lease is not None
        ]
        other_bytes = self._ledger.reserved_bytes - sum(lease.charge_bytes for lease in leases)
        if not fits(call, running, self._ledger.budget_bytes - other_bytes):
            return []
        self._ledger.cancel(head)
        ticket = self._waiting[task] = self._ledger.adopt(head.bytes, token=task)
        return [ticket]

    def _grant_the_only_one(self, pool: WorkerPool) -> Ticket | None:
        """Nothing runs and nothing fits: others use the machine. Waiting for them could last for ever."""
        if (
            self.memory.waits_for_others
            or pool.leaving
            or self._ledger.reserved_bytes
            or self._ledger.statistics().leases
        ):
            return None
        self._ledger.set_budget(min(ticket.bytes for ticket in self._waiting.values()))
        return self._started(self._ledger.grant(at_most=1))

    def _started(self, granted: list[Ticket]) -> Ticket | None:
        if not granted:
            return None
        self._count_skipped(granted[0])
        del self._waiting[granted[0].token]
        return granted[0]

    def _must_wait(self, pool: WorkerPool) -> bool:
        """Whether one that runs, or starts, will soon show what the next one takes; or memory has just run out."""
        if not pool.busy:
            return False
        if pool.now_s < pool.pacing.pause_until_s:
            return True
        if self._retained.loaded_bytes is None and any(slot.backend.is_local_pool for slot in pool.slots):
            return True
        return slow_start.must_wait(next(iter(self._waiting)), self.memory, pool)

    def _count_skipped(self, granted: Ticket) -> None:
        """A first task that a shrunken budget cannot hold is skipped `max_overtakes` times, and then runs alone.

        The ledger lets others pass it for ever, as draining would not help it. Here it would starve.
        """
        first = next(iter(self._waiting.values()))
        if first is granted or first.exclusive or first.bytes <= self._ledger.budget_bytes:
            self._skipped = 0
            return
        self._skipped += 1
        if self._skipped > self._ledger.max_overtakes:
            self._skipped = 0
            self._ledger.cancel(first)
            self._waiting[first.token] = self._ledger.submit(first.bytes, exclusive=True, token=first.token)

    def _surplus_for_next(self, pool: WorkerPool) -> list[Slot]:
        """Idle workers to stop for the next task, the largest first.

        None where all of them together retain too little: its memory has to come from those that are busy, or are leaving.
        """
        if pool.leaving:
            return []  # what they held may be enough
        surplus = self._retained.surplus(pool)
        retained_bytes = sum(map(self._retained.charged_bytes, surplus))
        return [] if pool.busy and retained_bytes < self._lacking_bytes() else surplus

    def _lacking_bytes(self) -> int:
        head = self._ledger.head
        head_bytes = min(each.bytes for each in self._waiting.values()) if head is None else head.bytes
        return head_bytes - self._ledger.free_bytes


def charged_call(slot: Slot, lease: Ticket, now_s: float) -> ChargedCall:
    """What `slot` is charged over the time to come: by the profile of its only call, as far as that has kept to it."""
    task = slot.running[0] if len(slot.running) == 1 else None
    if task is None or task.followed is None:
        return ChargedCall(lease.charge_bytes)
    if task.began_s is not None:
        return ChargedCall(lease.charge_bytes, task.followed.profile(), age_s=now_s - task.began_s)
    start_s = WARM_START_S if slot.tasks_done else COLD_START_S
    age_s = now_s - task.sent_s
    profile = None if age_s > start_s else task.followed.profile()
    return ChargedCall(lease.charge_bytes, profile, age_s=age_s, may_wait_s=start_s)
