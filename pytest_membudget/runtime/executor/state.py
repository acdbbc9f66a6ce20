"""What the scheduler knows of tasks, workers and levels, and what it has done about them.

Every field of a `Task` and of a `Slot` is written by `scheduler` alone. Placement strategies read them; a driver carries
out the effects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from pytest_membudget.records.run import Cause, EventKind, Level
from pytest_membudget.runtime.admission.ledger import Ticket
from pytest_membudget.runtime.executor.flow_control import Backend, ConcurrencyLimit, Levels, Throughput
from pytest_membudget.runtime.prediction.profiles import CallProfile, FollowedCall
from pytest_membudget.runtime.workers.protocol import Delay, Reply, Stage

State = Literal["new", "queued", "running", "done"]


class Charge:
    """What one task is charged, and what is learned from it. Made by the executor, asked by the scheduler."""

    __slots__ = ()

    def first_bytes(self) -> int:
        """For the first attempt, by what is known when it is about to start."""
        raise NotImplementedError

    def retry_bytes(self, failed_bytes: int) -> int:
        """After an attempt with `failed_bytes` ran out: more than that."""
        raise NotImplementedError

    def observe(self, peak_bytes: int, duration_s: float, peak_upper_bytes: int | None = None) -> None:
        """Learns from a finished attempt, of which `peak_bytes` are proven and no more than `peak_upper_bytes` possible."""
        raise NotImplementedError

    def observe_running(self, held_bytes: int) -> None:
        """Learns from a task that still runs."""

    @property
    def is_stated(self) -> bool:
        """Whether the caller said it: it is not lowered to a limit then."""
        return False

    @property
    def guess_of(self) -> str | None:
        """Where nothing is known yet: the function, of which one call at a time is tried at first."""
        return None


class Submission(NamedTuple):
    """The call as the user made it, and the future that they hold."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    future: Future[Any]


@dataclass(slots=True, eq=False)
class Task:
    """A call on its way through the executor, and afterwards what became of it."""

    #: None once it is done: the future must not keep the call alive, nor the task the result
    submission: Submission | None
    charge: Charge
    #: seconds from the call of the function; None for no limit
    timeout_s: float | None = None
    #: one of a small batch: runs in a thread, unless it ran out of memory before
    prefers_thread: bool = False
    #: gets a worker that has run nothing before and that ends afterwards
    fresh_worker: bool = False
    #: its only argument is the path of a file that was there when the task was made
    is_file: bool = False
    #: its own peak is wanted, not a bound of it
    exact: bool = False
    #: most that it may take: bytes, or as a float the factor of its charge; None for no limit
    limit: int | float | None = None
    #: what its function is known to hold over its time; None where admission goes by peaks alone
    profile: CallProfile | None = None
    #: what the first attempt is expected to take. Not to be confused with `charged_bytes`, which later attempts raise
    estimate_bytes: int | None = None

    # While it waits and runs:
    state: State = "new"
    #: place in the order of arrival; a repeat keeps it
    order: int = 0
    #: when it was sent to its worker last
    sent_s: float = 0.0
    #: when its function was called last, as far as a driver has seen; None before
    began_s: float | None = None
    #: number of the latest attempt in this executor, 0 before the first; a reply with another number is stale
    sequence: int = 0
    charged_bytes: int | None = None
    #: nothing runs beside it
    alone: bool = False
    timed_out: bool = False
    #: it is being ended since it was proven to take so much: more than its limit, or than it was charged
    over_limit_bytes: int = 0
    overran_bytes: int = 0
    #: the most that it was seen to take while it ran, where that was more than it was charged
    seen_above_charge_bytes: int = 0
    #: what this attempt was seen to hold, where it has a `profile`
    followed: FollowedCall | None = None
    #: it raised MemoryError in a process of its own: it is not repeated inside the coordinator
    ran_out: bool = False
    #: attempts that ended; a worker that was lost before it began the task is none
    attempts: int = 0
    #: workers that ended before they began it
    lost: int = 0
    #: workers that were ended because they did not come to its function
    stuck: int = 0

    # What became of it:
    cause: Cause = "ok"
    level: Level = "process"
    #: the machine of a cluster that it ran on; empty for this one
    host: str = ""
    peak_bytes: int | None = None
    peak_upper_bytes: int | None = None
    #: the limit of its latest attempt
    limit_bytes: int | None = None
    duration_s: float = 0.0
    #: size of the pickled result
    result_bytes: int = 0
    #: where it ran in the coordinator: the most that was resident there
    coordinator_peak_bytes: int = 0

    @property
    def is_first_attempt(self) -> bool:
        """Whether it was never sent to a worker."""
        return self.sequence == 0


@dataclass(slots=True, eq=False)
class Slot:
    """A worker as the scheduler sees it. The process or thread itself is the driver's."""

    backend: Backend
    #: on a cluster: name of the machine, the most that one call may add there, and whether its nanny restarts it
    host: str = ""
    capacity_bytes: int = 0
    is_renewable: bool = False
    #: its driver has started it; one that it has not come to yet may still fail to start
    is_started: bool = False
    #: calls it was sent and has not answered, in this order
    running: deque[Task] = field(default_factory=deque)
    #: what its calls run under, one after the other; None where nothing runs, and on a cluster
    lease: Ticket | None = None
    #: calls it was sent, short ones counted in part
    handed: float = 0.0
    #: it takes no further call
    is_closing: bool = False
    #: it ended, or is a thread left to itself; it may still hold a lease
    is_gone: bool = False
    #: when it was stopped, on the driver's clock
    stopped_s: float = 0.0
    #: what it was at when it was ended for not coming to its call
    stuck_at: Stage | None = None
    #: resident when it was ready, above a bare worker: what the initializer loaded; None until it is ready
    base_bytes: int | None = None
    #: resident above the ready worker after its latest task; and after its first
    retained_bytes: int = 0
    first_retained_bytes: int | None = None
    #: its latest task left something there
    left_something: bool = False
    tasks_done: int = 0
    first_task_s: float = 0.0
    busy_s: float = 0.0

    @property
    def has_begun(self) -> bool:
        """Whether it was sent a call yet."""
        return self.handed > 0

    @property
    def loading_s(self) -> float:
        """How much longer its first task took than the others: mostly what it had to import."""
        others_s = (self.busy_s - self.first_task_s) / max(1, self.tasks_done - 1)
        return max(0.0, self.first_task_s - others_s)


@dataclass(slots=True, eq=False)
class Pool:
    """All that placement strategies may read."""

    levels: Levels
    concurrency: ConcurrencyLimit
    throughput: Throughput
    #: calls that may be with workers at a time; None for no limit
    max_in_flight: int | None = None
    slots: list[Slot] = field(default_factory=list)
    #: stopped and not ended yet: what they retain is not free
    leaving: list[Slot] = field(default_factory=list)
    #: on the driver's monotonic clock
    now_s: float = 0.0
    #: whether tasks of this machine stall for want of memory; nothing then starts beside what runs
    is_under_pressure: bool = False
    #: nothing starts before, unless nothing runs
    pause_until_s: float = 0.0

    @property
    def backend(self) -> Backend:
        """The level that tasks run at now."""
        return self.levels.now

    @property
    def busy(self) -> int:
        """Workers that have something to do."""
        return sum(1 for slot in self.slots if slot.running)

    @property
    def room_in_flight(self) -> int | None:
        """How many more calls may be with workers; None for any number."""
        if self.max_in_flight is None:
            return None
        return self.max_in_flight - sum(len(slot.running) for slot in self.slots)

    @property
    def is_full_in_flight(self) -> bool:
        """Whether as many calls are with workers as may be."""
        room = self.room_in_flight
        return room is not None and room <= 0

    @property
    def is_saturated(self) -> bool:
        """Whether no further worker may be busy."""
        return self.busy >= (1 if self.is_under_pressure else self.concurrency.now) or self.is_full_in_flight

    def idle(self, backend: Backend | None = None) -> list[Slot]:
        """Workers (of `backend`) with nothing to do: those that have begun first, of these the one that retains most."""
        found = [
            slot
            for slot in self.slots
            if not slot.running and not slot.is_closing and backend in {None, slot.backend}
        ]
        return sorted(found, key=lambda slot: (not slot.has_begun, -slot.retained_bytes))


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


class Placement(Protocol):
    """Which of the tasks that wait starts next, and where."""

    @property
    def largest_bytes(self) -> int:
        """The most that one task can be charged."""

    @property
    def is_full(self) -> bool:
        """Whether it takes no more tasks for now."""

    @property
    def is_empty(self) -> bool:
        """Whether no task waits here."""

    @property
    def waits_for_others(self) -> bool:
        """Whether tasks may wait although nothing runs here: other programs hold a part of the budget."""

    def demand(self, pool: Pool) -> Demand:
        """What its tasks and workers ask of a budget that other programs share."""

    def waiting(self) -> list[Task]:
        """The tasks that wait here, in order."""

    def add(self, task: Task) -> None:
        """Puts a task that has been charged at its place."""

    def remove(self, task: Task) -> None:
        """Forgets a task that waits; without effect on another one."""

    def recharge(self) -> None:
        """The charges of the tasks that wait have changed."""

    def oversize(self, task: Task) -> Exception:
        """The error for a task that is larger than `largest_bytes`."""

    def assignments(self, pool: Pool) -> Iterator[Assignment]:
        """What may start now. Each is carried out before the next is asked for."""

    def set_budget(self, budget_bytes: int, largest_bytes: int, ceiling_bytes: int) -> None:
        """What tasks and workers of this machine may hold together now; the most that could be; and the machine's limit."""

    def workers_changed(self, slots: list[Slot]) -> None:
        """Workers of a cluster joined or left, or offer another amount."""

    def stranded(self, pool: Pool) -> list[tuple[Task, Exception]]:
        """Takes out tasks that no worker can hold any more, each with its error."""

    def take_within(self, lease: Ticket) -> Task | None:
        """Takes out the first task that waits, where `lease` is enough for it as well."""

    def release(self, lease: Ticket) -> None:
        """Takes back what was granted."""

    def may_start_ahead(self, pool: Pool) -> bool:
        """Whether there is memory for one more worker that has nothing to do yet."""

    @property
    def is_base_over_budget(self) -> bool:
        """Whether what workers hold before any task is more than all may hold together."""

    def record_base(self, base_bytes: int) -> None:
        """A worker is ready, and its initializer has loaded so much."""

    def charge(self, slot: Slot, held_bytes: int) -> int:
        """Charges what the tasks of `slot` hold, `held_bytes` above the ready worker, where that is more.

        Returns what they hold above what the worker itself is charged.
        """

    @property
    def ceiling_bytes(self) -> int:
        """A task that is expected to take more is refused; one between `largest_bytes` and this runs alone."""

    def has_outgrown(self, slot: Slot, pool: Pool, task_bytes: int) -> bool:
        """Whether what a worker retains and its next task exceed its share of the budget, and a new one would retain less."""

    def record_retained(self, slot: Slot, retained_bytes: int, *, is_first: bool) -> None:
        """A worker has ended a task and retains so much."""


class Reading(NamedTuple):
    """What the driver sees of a busy worker; the first two are about the first call that it has."""

    started_s: float | None
    delay: Delay | None
    #: resident above the ready worker
    held_bytes: int
    #: the kernel ended something of it at the call's limit
    reached_limit: bool = False


# Effects: what the scheduler has decided, for a driver to carry out in this order ---------------------------------------


class Start(NamedTuple):
    """Start a worker, unless it is gone by now; the answer is `Scheduler.started` or `Scheduler.start_failed`."""

    slot: Slot


class Send(NamedTuple):
    """Send the calls. Those whose future was cancelled are reported by `Scheduler.cancelled` instead."""

    slot: Slot
    calls: tuple[tuple[Task, int], ...]


class Kill(NamedTuple):
    """End the worker at once with what it runs."""

    slot: Slot


class Stop(NamedTuple):
    """The worker gets no more calls: let it end by itself, and forget it."""

    slot: Slot


class Forget(NamedTuple):
    """The worker is gone, or left to itself; `renew` first has its machine begin it again."""

    slot: Slot
    renew: bool = False


class Finish(NamedTuple):
    """Give the caller the result, or the exception where there is one."""

    submission: Submission
    value: Any
    error: BaseException | None


class Record(NamedTuple):
    """An event for the caller to read, logged as well where `is_logged`."""

    kind: EventKind
    level: Level
    cause: str
    next_step: str
    is_logged: bool = False


Effect = Start | Send | Kill | Stop | Forget | Finish | Record
Replied = tuple[Slot, int, Reply]


class UnchargedPlacement:
    """What a `Placement` answers whose calls take no memory from the budget of this machine: a cluster's, or the caller's own."""

    is_base_over_budget = False

    def take_within(self, lease: Ticket) -> Task | None:
        """None: calls here run under no lease."""
        return None

    def release(self, lease: Ticket) -> None:
        """Never asked: calls here run under no lease."""

    def may_start_ahead(self, pool: Pool) -> bool:
        """Never: no worker is ours to start."""
        return False

    def record_base(self, base_bytes: int) -> None:
        """Nothing: no worker's base is charged here."""

    def charge(self, slot: Slot, held_bytes: int) -> int:
        """Nothing: that memory cannot be separated here, or another machine's."""
        return 0

    def has_outgrown(self, slot: Slot, pool: Pool, task_bytes: int) -> bool:
        """Not ours to judge."""
        return False

    def record_retained(self, slot: Slot, retained_bytes: int, *, is_first: bool) -> None:
        """Nothing to learn: no worker is ours to replace."""
