"""The tasks that wait: first those that came and were not looked at yet, then those in line.

In line a task waits for memory (`admission`), or in a cluster for a worker (`placement`).
"""

from __future__ import annotations

from collections import deque

from pytest_membudget.runtime.executor.admission import Admission
from pytest_membudget.runtime.executor.causes import not_run
from pytest_membudget.runtime.executor.placement import Placement
from pytest_membudget.runtime.executor.replies import conclude
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.workers.pool import Crew


class Line:
    """Who waits, in which order. Once `broken`, everybody who comes is told so."""

    def __init__(self, admission: Admission, placement: Placement, crew: Crew) -> None:
        self.admission = admission
        self.placement = placement
        self._crew = crew
        self.pending: deque[Task] = deque()
        self.broken: BaseException | None = None

    @property
    def _queue(self) -> Admission | Placement:
        return self.placement if self._crew.in_cluster else self.admission

    @property
    def has_waiting(self) -> bool:
        """Whether any task waits to start."""
        return bool(self.pending) or self._queue.waiting > 0

    @property
    def takes_more(self) -> bool:
        """Whether another task may be lined up."""
        return not self._queue.is_full

    def accept(self, task: Task) -> None:
        """Puts a task at the end."""
        if self.broken is not None:
            refuse(task, self.broken)
        else:
            self.pending.append(task)

    def again(self, task: Task) -> None:
        """Puts a task back to the front."""
        task.ticket = None
        if self.broken is not None:
            refuse(task, self.broken)
        else:
            self.pending.appendleft(task)

    def line_up(self) -> None:
        """Lets the tasks that came last into the line, as far as it takes them."""
        while self.pending and self.takes_more:
            task = self.pending.popleft()
            if task.is_cancelled:
                continue
            try:
                self._queue.line_up(task)
            except Exception as error:  # too large; or the caller's own estimator failed
                refuse(task, error)

    def withdraw(self, task: Task) -> None:
        """Forgets a task whose future was cancelled."""
        if not task.begin():
            self._queue.withdraw(task)

    def cancel_waiting(self) -> None:
        """Cancels every task that has not started."""
        for task in [*self._queue.tasks(), *self.pending]:
            if not task.is_running and task.future.cancel():
                self.withdraw(task)

    def end_with(self, error: BaseException) -> None:
        """Gives `error` to everybody who waits, and to whoever comes."""
        self.broken = error
        waiting = [*self._queue.tasks(), *self.pending]
        self.pending.clear()
        for task in waiting:
            self._queue.withdraw(task)
            refuse(task, error)


def refuse(task: Task, error: BaseException) -> None:
    """Gives a task that has not begun its exception."""
    if task.begin():
        conclude(task, not_run(error))
