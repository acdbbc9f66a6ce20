"""Placement: which of the tasks that wait starts next, and where. One strategy for each kind of level.

`LocalPlacement` goes by the memory of this machine, `ClusterPlacement` by what each worker of a cluster
offers, and `CallerPlacement` starts everything at once, in the thread that submits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_membudget.errors import OversizeError
from pytest_membudget.runtime.admission.ledger import Ticket
from pytest_membudget.runtime.executor.state import Slot, Task, task_name
from pytest_membudget.runtime.executor.worker_pool import WorkerPool
from pytest_membudget.units import format_size

if TYPE_CHECKING:
    from pytest_membudget.runtime.executor.local_memory import LocalMemory


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
    """Which of the tasks that wait starts next, and where: a queue, and one strategy of taking tasks out of it."""

    #: the account that its tasks are charged to; None where they take nothing from the budget of this machine
    memory: LocalMemory | None = None

    def __init__(self) -> None:
        #: the tasks that wait here, each with what the strategy keeps of it
        self._waiting: dict[Task, Any] = {}

    @property
    def largest_bytes(self) -> int:
        """The most that one task can be charged beside others."""
        raise NotImplementedError

    @property
    def ceiling_bytes(self) -> int:
        """A task that is expected to take more is refused; one between `largest_bytes` and this runs alone."""
        return self.largest_bytes

    @property
    def is_full(self) -> bool:
        """Whether it takes no more tasks for now."""
        return False

    @property
    def is_empty(self) -> bool:
        """Whether no task waits here."""
        return not self._waiting

    def waiting(self) -> list[Task]:
        """The tasks that wait here, in order of arrival."""
        return sorted(self._waiting, key=arrival)

    def add(self, task: Task) -> None:
        """Puts a task that has been charged at its place: a repeat comes before all that arrived after it."""
        raise NotImplementedError

    def remove(self, task: Task) -> None:
        """Forgets a task that waits; without effect on another one."""
        raise NotImplementedError

    def recharge(self) -> None:
        """The charges of the tasks that wait have changed."""

    def assignments(self, pool: WorkerPool) -> Iterator[Assignment]:
        """What may start now. Each is carried out before the next is asked for."""
        raise NotImplementedError

    def oversize(self, task: Task) -> OversizeError:
        """The error for a task that is larger than `largest_bytes`, with both numbers."""
        return OversizeError(
            f"{task_name(task)} is expected to take {format_size(task.charged_bytes)}, more than the whole budget of "
            f"{format_size(self.largest_bytes)}; raise the budget, split the input, or run such tasks alone with "
            f'ExecutorPolicy(oversize="alone"){unmeasured(task)}'
        )

    # Of this machine alone

    def demand(self, pool: WorkerPool) -> Demand:
        """What its tasks and workers ask of a budget that other programs share."""
        return Demand()

    def take_within(self, lease: Ticket) -> Task | None:
        """Takes out the first task that waits, where `lease` is enough for it as well."""
        return None

    # Of a cluster alone: workers join and leave

    def workers_changed(self, slots: list[Slot]) -> None:
        """Workers joined or left, or offer another amount."""

    def stranded(self, pool: WorkerPool) -> list[tuple[Task, Exception]]:
        """Takes out tasks that no worker can hold any more, each with its error."""
        return []


def arrival(task: Task) -> int:
    """Sorts tasks by their order of arrival."""
    return task.order


class CallerPlacement(Placement):
    """The thread that submits is the only worker: each task starts at once, also one that another task brings.

    Nothing waits for memory here, as the task that holds it may be the one that waits for this one.

    Args:
        largest_bytes: what is refused above.
    """

    largest_bytes: int = 0

    def __init__(self, largest_bytes: int) -> None:
        super().__init__()
        self.largest_bytes = largest_bytes

    def add(self, task: Task) -> None:
        """The task starts at the next decision."""
        self._waiting[task] = None

    def remove(self, task: Task) -> None:
        """Forgets a task."""
        self._waiting.pop(task, None)

    def assignments(self, pool: WorkerPool) -> Iterator[Assignment]:
        """Everything."""
        while self._waiting:
            task = next(iter(self._waiting))
            del self._waiting[task]
            yield Assignment((task,))


def unmeasured(task: Task) -> str:
    """A preset knows no function before a call of it has ended."""
    if task.charge.calls_seen != 0:
        return ""
    return ". That is a guess, as no such call was measured yet: memory= states what one takes"
