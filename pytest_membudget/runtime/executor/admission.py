"""May this task start now? The ledger, with the executor's own charges kept out of what tasks may take."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable

from pytest_membudget.errors import OversizeError
from pytest_membudget.records.measurement import MemoryReading
from pytest_membudget.runtime.admission.available_budget import RESERVE_SHARE
from pytest_membudget.runtime.admission.ledger import Ledger, Ticket
from pytest_membudget.runtime.executor.lessons import Lessons
from pytest_membudget.runtime.executor.policy import ExecutorPolicy
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.units import format_size

_READ_EVERY_S = 0.25

_MORE_THAN_ANY_BUDGET = 2**63
"""A budget that moves may have room tomorrow for what does not fit today: the ledger is to refuse nothing."""


class Budget:
    """What all tasks may take together, in bytes: the figure that was given, or what is really available now.

    Without a figure it is the limit, less a reserve, less what others use. The reserve is 20% of the limit, or what
    `target_memory` leaves where that is more. What this executor's own workers hold is not "others".
    """

    def __init__(
        self,
        fixed_bytes: int | None,
        policy: ExecutorPolicy,
        reading: Callable[[], MemoryReading],
        clock: Callable[[], float],
    ) -> None:
        self._fixed_bytes = fixed_bytes
        self._share = min(1 - RESERVE_SHARE, policy.target_memory)
        self._reading = reading
        self._clock = clock
        self._read_at = float("-inf")
        self._last: MemoryReading | None = None
        self._others_bytes = 0

    @property
    def largest_bytes(self) -> int:
        """The budget as it would be if nobody else used any memory, in bytes."""
        if self._fixed_bytes is not None:
            return self._fixed_bytes
        if self._last is None:
            self._last = self._reading()
        return int(self._share * self._last.limit.bytes)

    def now_bytes(self, own_bytes: Callable[[], int]) -> int:
        """The budget as it is now, in bytes; `own_bytes` tells what this executor's own workers hold."""
        if self._fixed_bytes is None and self._clock() - self._read_at >= _READ_EVERY_S:
            self._last = self._reading()
            self._read_at = self._clock()
            self._others_bytes = max(0, self._last.used_bytes - own_bytes())
        return max(0, self.largest_bytes - self._others_bytes)


class Admission:
    """The tasks that wait for memory, in order, and which of them may start.

    At most `WINDOW` tasks wait in the ledger at a time; the others wait before it (`line`). So each task is charged by
    what is known when its turn is near, not by what was known when it came.
    """

    WINDOW = 128

    def __init__(self, budget: Budget, policy: ExecutorPolicy) -> None:
        self._budget = budget
        self._policy = policy
        self._waiting: OrderedDict[int, Ticket] = OrderedDict()
        self._skipped = 0
        self._lessons = Lessons()
        self.ledger = Ledger(
            budget.largest_bytes, max_overtakes=policy.max_overtakes, ceiling_bytes=_MORE_THAN_ANY_BUDGET
        )

    @property
    def is_full(self) -> bool:
        """Whether enough tasks wait here already."""
        return len(self._waiting) >= self.WINDOW

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return len(self._waiting)

    def tasks(self) -> list[Task]:
        """The tasks that wait, in order."""
        return [ticket.token for ticket in self._waiting.values()]

    def line_up(self, task: Task) -> None:
        """Puts `task` at the end of the line, charged by what is known now.

        Raises:
            OversizeError: larger than the whole budget, and the policy is to refuse such tasks.
        """
        self.check_size(task)
        self._wait(task)

    def check_size(self, task: Task) -> None:
        """Charges `task` by what is known now.

        Raises:
            OversizeError: larger than the whole budget, and the policy is to refuse such tasks.
        """
        if task.charged_bytes is None:
            task.charged_bytes = task.charge.first_bytes()
        if task.estimate_bytes is None:
            task.estimate_bytes = task.charged_bytes
        largest_bytes = self._budget.largest_bytes
        # What was taken in as fitting is not refused because its neighbours have taught caution: it runs alone.
        if task.estimate_bytes > largest_bytes and not task.alone and self._policy.oversize == "refuse":
            raise OversizeError(
                f"this task is expected to take {format_size(task.estimate_bytes)}, more than the whole budget of "
                f"{format_size(largest_bytes)}; raise the budget, split the input, or run such tasks alone with "
                'ExecutorPolicy(oversize="alone")'
            )

    def note_learned(self, task: Task, taken_bytes: int) -> None:
        """The estimates know of one more task. Now and then those who wait are charged anew by them."""
        if self._waiting and self._lessons.are_due(exceeded=taken_bytes > (task.charged_bytes or 0)):
            self._charge_anew()

    def lacking_bytes(self) -> int:
        """What the next of those who wait lacks to start."""
        head = self.ledger.head or min(self._waiting.values(), key=_size)
        return head.bytes - self.ledger.free_bytes

    def next(self, aside_bytes: int, own_bytes: Callable[[], int]) -> Task | None:
        """The next task that may start, its memory granted; `None` where none may.

        `aside_bytes` of the budget are held by workers beside their tasks, and not there to be granted.
        """
        if not self._waiting:
            return None
        self.ledger.set_budget(max(0, self._budget.now_bytes(own_bytes) - aside_bytes))
        granted = self.ledger.grant(at_most=1)
        if not granted and self.is_empty:
            # Nothing runs and nothing fits: others use the machine. Waiting for them could last for ever.
            self.ledger.set_budget(min(ticket.bytes for ticket in self._waiting.values()))
            granted = self.ledger.grant(at_most=1)
        if not granted:
            return None
        self._note_skipped(granted[0])
        task: Task = self._leave(granted[0])
        return task

    def fits_within(self, task: Task, ticket: Ticket | None) -> bool:
        """Whether the memory granted by `ticket` is enough for `task` as well, to run under it next."""
        if ticket is None or task.alone or task.fresh_worker or task.in_thread or task.is_cancelled:
            return False
        try:
            self.check_size(task)
        except OversizeError:
            return False
        return (task.charged_bytes or 0) <= ticket.bytes

    def head_within(self, ticket: Ticket | None) -> Task | None:
        """Takes the head out of the line where the memory granted by `ticket` is enough for it as well."""
        head = self.ledger.head
        if ticket is None or head is None or head.exclusive or head.bytes > ticket.bytes:
            return None
        task: Task = head.token
        if task.fresh_worker or task.in_thread:
            return None
        self.ledger.cancel(head)
        return self._leave(head)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is granted."""
        return self.ledger.reserved_bytes == 0 and self.ledger.statistics().leases == 0

    def withdraw(self, task: Task) -> None:
        """Forgets a task that waits."""
        if task.ticket is not None and task.ticket.sequence in self._waiting:
            self.ledger.cancel(task.ticket)
            self._leave(task.ticket)

    def release(self, ticket: Ticket | None) -> None:
        """Takes back what was granted."""
        if ticket is not None:
            self.ledger.release(ticket)

    def _wait(self, task: Task) -> Ticket:
        """Lets the task wait for what it is charged; one that is larger than any budget for everybody else's end."""
        charged_bytes = task.charged_bytes or 0
        alone = task.alone or charged_bytes > self._budget.largest_bytes
        task.ticket = self.ledger.submit(charged_bytes, exclusive=alone, token=task)
        self._waiting[task.ticket.sequence] = task.ticket
        return task.ticket

    def _charge_anew(self) -> None:
        """Charges who waits for a first attempt by what is known now. Everybody keeps their place."""
        tickets = list(self._waiting.values())
        self._waiting.clear()
        for ticket in tickets:
            self.ledger.cancel(ticket)
            task: Task = ticket.token
            if not task.is_running:
                with contextlib.suppress(Exception):  # the caller's own estimator; what was charged will do
                    task.charged_bytes = task.charge.first_bytes()
            self._wait(task).overtaken = ticket.overtaken

    def _leave(self, ticket: Ticket) -> Task:
        del self._waiting[ticket.sequence]
        task: Task = ticket.token
        return task

    def _note_skipped(self, granted: Ticket) -> None:
        """Counts those who went by a first task that a shrunken budget cannot hold; after the last that may, it runs alone."""
        first = next(iter(self._waiting.values()))
        if first is granted or first.exclusive or first.bytes <= self.ledger.budget_bytes:
            self._skipped = 0
            return
        self._skipped += 1
        if self._skipped > self._policy.max_overtakes:
            self._skipped = 0
            task = self._leave(first)
            self.ledger.cancel(first)
            task.ticket = self.ledger.submit(first.bytes, exclusive=True, token=task)
            self._waiting[task.ticket.sequence] = task.ticket


def _size(ticket: Ticket) -> int:
    return ticket.bytes
