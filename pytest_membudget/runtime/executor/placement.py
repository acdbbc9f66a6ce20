"""Placement: which of the tasks that wait starts next, and where. One strategy for each kind of level.

`local_placement` grants memory of this machine, `cluster_placement` goes by what a cluster's workers offer, and `CallerPlacement`
starts everything at once, in the thread that submits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pytest_membudget.errors import OversizeError
from pytest_membudget.runtime.admission.ledger import Ticket
from pytest_membudget.runtime.executor.state import Pool, Slot, Task
from pytest_membudget.units import format_size

FREE_BYTES = 16 * 1024 * 1024
"""What a worker may retain of its tasks before it is charged, where no base is known."""


class Assignment(NamedTuple):
    """What a placement decided: tasks for a worker (`None`: an idle or a new one), and workers to stop before."""

    tasks: tuple[Task, ...] = ()
    slot: Slot | None = None
    lease: Ticket | None = None
    stop: tuple[Slot, ...] = ()
    #: `slot` begins again with nothing retained, before it gets the tasks
    renew: bool = False


class Demand(NamedTuple):
    """What tasks here ask of a budget that other programs share, in bytes."""

    #: what runs now, and what workers keep
    needed_bytes: int = 0
    #: what the next task adds; 0 where none waits
    next_bytes: int = 0
    #: what all tasks that could start now need with what runs
    wanted_bytes: int = 0


class Placement:
    """Which of the tasks that wait starts next, and where.

    What is not overridden holds of a level whose calls take no memory from the budget of this machine.

    Args:
        largest_bytes: the most that one task can be charged.
    """

    def __init__(self, largest_bytes: int = 0) -> None:
        self.largest_bytes = largest_bytes
        #: a task that is expected to take more is refused; one between `largest_bytes` and this runs alone
        self.ceiling_bytes = largest_bytes
        #: the tasks that wait here, each with what the strategy keeps of it
        self._waiting: dict[Task, Any] = {}

    @property
    def is_full(self) -> bool:
        """Whether it takes no more tasks for now."""
        return False

    @property
    def is_empty(self) -> bool:
        """Whether no task waits here."""
        return not self._waiting

    @property
    def waits_for_others(self) -> bool:
        """Whether tasks may wait although nothing runs here: other programs hold a part of the budget."""
        return False

    def waiting(self) -> list[Task]:
        """The tasks that wait here, in order of arrival."""
        return sorted(self._waiting, key=arrival)

    def add(self, task: Task) -> None:
        """Puts a task that has been charged at its place: a repeat comes before all that arrived after it."""
        raise NotImplementedError

    def remove(self, task: Task) -> None:
        """Forgets a task that waits; without effect on another one."""
        raise NotImplementedError

    def assignments(self, pool: Pool) -> Iterator[Assignment]:
        """What may start now. Each is carried out before the next is asked for."""
        raise NotImplementedError

    def recharge(self) -> None:
        """The charges of the tasks that wait have changed."""

    def oversize(self, task: Task) -> OversizeError:
        """The error for a task that is larger than `largest_bytes`, with both numbers."""
        return OversizeError(
            f"this task is expected to take {format_size(task.charged_bytes)}, more than the whole budget of "
            f"{format_size(self.largest_bytes)}; raise the budget, split the input, or run such tasks alone with "
            'ExecutorPolicy(oversize="alone")'
        )

    def set_budget(self, budget_bytes: int, largest_bytes: int, ceiling_bytes: int) -> None:
        """What tasks and workers of this machine may hold together now; the most that could be; and the machine's limit."""
        self.largest_bytes, self.ceiling_bytes = largest_bytes, ceiling_bytes

    def demand(self, pool: Pool) -> Demand:
        """What its tasks and workers ask of a budget that other programs share."""
        return Demand()

    def take_within(self, lease: Ticket) -> Task | None:
        """Takes out the first task that waits, where `lease` is enough for it as well."""
        return None

    def release(self, lease: Ticket) -> None:
        """Takes back what was granted."""

    # Workers of a cluster: they join and leave

    def workers_changed(self, slots: list[Slot]) -> None:
        """Workers joined or left, or offer another amount."""

    def stranded(self, pool: Pool) -> list[tuple[Task, Exception]]:
        """Takes out tasks that no worker can hold any more, each with its error."""
        return []

    # Workers of this machine: what they hold beside their tasks is charged

    @property
    def is_base_over_budget(self) -> bool:
        """Whether what workers hold before any task is more than all may hold together."""
        return False

    def may_start_ahead(self, pool: Pool) -> bool:
        """Whether there is memory for one more worker that has nothing to do yet."""
        return False

    def record_base(self, base_bytes: int) -> None:
        """A worker is ready, and its initializer has loaded so much."""

    def record_retained(self, slot: Slot, *, is_first: bool) -> None:
        """A worker has ended a task, its first one where `is_first`, and retains what its slot says."""

    def charge(self, slot: Slot, held_bytes: int) -> int:
        """Charges what the tasks of `slot` hold, `held_bytes` above the ready worker, where that is more.

        Returns what they hold above what the worker itself is charged.
        """
        return 0

    def load_to_come_bytes(self, slot: Slot) -> int:
        """What a worker is still expected to load and retain, beside what its tasks take."""
        return 0

    def has_outgrown(self, slot: Slot, pool: Pool, task_bytes: int) -> bool:
        """Whether what a worker retains and its next task exceed its share of the budget, and a new one would retain less."""
        return False


def arrival(task: Task) -> int:
    """Sorts tasks by their order of arrival."""
    return task.order


class CallerPlacement(Placement):
    """The thread that submits is the only worker: each task starts at once, also one that another task brings.

    Nothing waits for memory here, as the task that holds it may be the one that waits for this one.
    """

    def add(self, task: Task) -> None:
        """The task starts at the next decision."""
        self._waiting[task] = None

    def remove(self, task: Task) -> None:
        """Forgets a task."""
        self._waiting.pop(task, None)

    def assignments(self, pool: Pool) -> Iterator[Assignment]:
        """Everything."""
        while self._waiting:
            task = next(iter(self._waiting))
            del self._waiting[task]
            yield Assignment((task,))
