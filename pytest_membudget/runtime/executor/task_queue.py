"""The tasks of an executor that wait, in order of arrival, and what each is charged.

Those that came first wait at the placement of the present level, as many as that takes; all others wait here, and are charged
when their turn is near, by what is known then. What is learned while they wait charges those at the placement again.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable

from pytest_membudget.runtime.admission.ledger import Ticket
from pytest_membudget.runtime.executor import attempts
from pytest_membudget.runtime.executor.attempts import Retry
from pytest_membudget.runtime.executor.placement import Placement
from pytest_membudget.runtime.executor.policy import ExecutorPolicy
from pytest_membudget.runtime.executor.state import Failure, Task
from pytest_membudget.runtime.executor.worker_pool import Levels


class TaskQueue:
    """The only writer of what a `Task` says of its place and of its charge.

    Args:
        levels: of the executor; what waits does so at the placement of the present one.
        policy: the executor's rules.
        fail: ends a task that cannot be charged, or is charged more than there is.
    """

    def __init__(self, levels: Levels, policy: ExecutorPolicy, fail: Callable[[Task, Failure], None]) -> None:
        self._levels = levels
        self._policy = policy
        self._fail = fail
        #: these, and among them some that were cancelled, are not at the placement yet
        self._pending: deque[Task] = deque()
        self._arrived = 0

    @property
    def placement(self) -> Placement:
        """That of the present level."""
        return self._levels.now.placement

    @property
    def is_backed_up(self) -> bool:
        """Whether a task that comes now could not start before others that are not even at the placement."""
        return bool(self._pending) and self.placement.is_full

    def waiting(self) -> list[Task]:
        """The tasks that wait, in order."""
        return [*self.placement.waiting(), *(task for task in self._pending if task.state == "queued")]

    def append(self, task: Task) -> None:
        """A task came."""
        task.order = self._arrived
        self._arrived += 1
        self._pending.append(task)

    def put_back(self, task: Task, retry: Retry | None = None) -> None:
        """A task that was to run, or did, waits again: before all that arrived after it. `retry` says what it is charged then."""
        if retry is not None:
            task.charged_bytes, task.alone = retry
        self.placement.add(task)

    def remove(self, task: Task) -> None:
        """A task waits no more; one that is not at the placement yet is skipped when its turn comes."""
        self.placement.remove(task)

    def clear(self) -> None:
        """Nothing waits any more."""
        self._pending.clear()
        for task in self.placement.waiting():
            self.placement.remove(task)

    def move_from(self, before: Placement) -> None:
        """The level has changed: what waited at the placement of the last one is to be charged for this one."""
        if before is self.placement:
            return
        waiting = before.waiting()
        for task in waiting:
            before.remove(task)
        self._pending.extendleft(reversed(waiting))

    def fill_placement(self) -> None:
        """Lets the tasks that came first wait at the placement, as far as it takes them."""
        while self._pending and not self.placement.is_full:
            task = self._pending.popleft()
            if task.state == "queued" and self._charge(task):
                self.placement.add(task)

    def take_within(self, lease: Ticket) -> Task | None:
        """Takes the next task out, where `lease` is enough for it. With none before it, it need not wait in the ledger."""
        while self.placement.is_empty and self._pending:
            task = self._pending.popleft()
            if task.state == "queued" and self._charge(task):
                if task.may_follow and not task.alone and task.charged_bytes <= lease.bytes:
                    return task
                self.placement.add(task)
        self.fill_placement()
        return self.placement.take_within(lease)

    def recharge(self) -> None:
        """Charges those that wait for a first attempt by what is known now. All keep their places."""
        for task in self.placement.waiting():
            if task.is_first_attempt:
                with contextlib.suppress(Exception):  # the caller's own estimator; what was charged will do
                    task.charged_bytes = attempts.first_charge(task)
                    task.alone = task.charged_bytes > self.placement.largest_bytes
        self.placement.recharge()

    @staticmethod
    def raise_charge(task: Task, proven_bytes: int) -> None:
        """A task has held so much, and needs more."""
        task.charged_bytes = max(task.charged_bytes, proven_bytes)

    def _charge(self, task: Task) -> bool:
        """Charges a task by what is known now; False where it is too large, and has failed."""
        placement = self.placement
        try:
            if task.is_first_attempt:
                task.charged_bytes = attempts.first_charge(task)
            if task.estimate_bytes is None:
                task.estimate_bytes = task.charged_bytes
        except Exception as error:  # the caller's own estimator, or a limit below what they stated
            self._fail(task, attempts.not_run(error))
            return False
        # Accepted under an earlier, smaller estimate: it runs alone rather than being refused now.
        expected_bytes = min(task.estimate_bytes, task.charged_bytes) if task.limit else task.estimate_bytes
        refused = expected_bytes > placement.ceiling_bytes and self._policy.oversize == "refuse"
        if refused and not task.alone:
            self._fail(task, attempts.not_run(placement.oversize(task)))
            return False
        task.alone = task.alone or task.charged_bytes > placement.largest_bytes
        return True
