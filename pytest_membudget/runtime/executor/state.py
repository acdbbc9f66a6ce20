"""What is known of tasks, workers and levels, and the effects that a driver is to carry out.

After it was made, a `Slot` is written by `worker_pool` alone, a `Task` by `scheduler` and, where it says so, by `task_queue` and
`task_watch`.
Placements read both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pytest_membudget.errors import text_of
from pytest_membudget.records.run import Cause, EventKind, Level
from pytest_membudget.runtime.admission.ledger import Ticket
from pytest_membudget.runtime.executor.charges import Charge
from pytest_membudget.runtime.prediction.profiles import CallProfile, FollowedCall
from pytest_membudget.runtime.workers.protocol import Reply, Stage

if TYPE_CHECKING:
    from pytest_membudget.runtime.executor.local_memory import LocalMemory
    from pytest_membudget.runtime.executor.placement import Placement

State = Literal["new", "queued", "running", "done"]


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

    # Its place and its charge, written by `task_queue`:
    #: place in the order of arrival; a repeat keeps it
    order: int = 0
    #: what the attempt is charged; 0 until it is estimated, when its turn is near
    charged_bytes: int = 0
    #: nothing runs beside it
    alone: bool = False

    # While it waits and runs, written by `scheduler`:
    state: State = "new"
    #: number of the latest attempt in this executor, 0 before the first; a reply with another number is stale
    sequence: int = 0
    #: it raised MemoryError in a process of its own: it is not repeated inside the coordinator
    ran_out: bool = False
    #: attempts that ended; a worker that was lost before it began the task is none
    attempts: int = 0
    #: workers that ended before they began it
    lost: int = 0
    #: workers that were ended because they did not come to its function
    stuck: int = 0

    # What became of it, written by `scheduler`:
    cause: Cause = "ok"
    level: Level = "process"
    #: the machine of a cluster that it ran on; empty for this one
    host: str = ""

    # Its latest attempt, written by `task_watch`:
    #: the most that it may take, and where the kernel is to end it: there, or at its charge; None for nowhere
    limit_bytes: int | None = None
    kernel_limit_bytes: int | None = None
    #: when it was sent to its worker, and when its function was called, as far as a driver has seen; None before
    sent_s: float = 0.0
    began_s: float | None = None
    #: it is being ended: it is out of time, or was proven to take so much, more than its limit or than its charge
    timed_out: bool = False
    over_limit_bytes: int = 0
    overran_bytes: int = 0
    #: the most that readings have shown, and when they last showed more, on the driver's clock
    held_bytes: int = 0
    grew_s: float = float("-inf")
    #: the same where that was more than it was charged; and of that, what its charge has learned
    seen_above_charge_bytes: int = 0
    learned_running_bytes: int = 0
    #: what it was seen to hold, where it has a `profile`
    followed: FollowedCall | None = None
    #: what it took, by the figures of its worker or else by what was seen
    peak_bytes: int | None = None
    peak_upper_bytes: int | None = None
    duration_s: float = 0.0
    #: size of the pickled result
    result_bytes: int = 0
    #: where it ran in the coordinator: the most that was resident there
    coordinator_peak_bytes: int = 0

    @property
    def may_follow(self) -> bool:
        """Whether it may wait in a worker for the call before it."""
        return not (self.fresh_worker or self.prefers_thread)

    @property
    def is_being_ended(self) -> bool:
        """Whether we end it: it is beyond its time, its limit or its charge."""
        return bool(self.timed_out or self.over_limit_bytes or self.overran_bytes)

    @property
    def is_first_attempt(self) -> bool:
        """Whether it was never sent to a worker."""
        return self.sequence == 0


@dataclass(slots=True, eq=False)
class Slot:
    """A worker as it is known here. The process or thread itself is the driver's."""

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
class Backend:
    """A level as the scheduler sees it."""

    level: Level
    placement: Placement
    #: tasks run outside the coordinator: a death costs one task, and what ran out of memory may be repeated
    own_memory: bool
    #: tasks at once after the executor has fallen back to this level; None for as many as before
    most_after_fallback: int | None = None
    #: the account of this machine that its tasks and workers are charged to; None where they are charged to none
    memory: LocalMemory | None = field(init=False)
    #: its workers are processes of this machine, ours to start and stop: each runs several calls under one lease, and is charged
    #: for what it retains
    is_local_pool: bool = field(init=False)
    #: its workers are a cluster's: each has a budget of its own, and is not ours to start or stop
    is_cluster: bool = field(init=False)

    # Written by `worker_pool`:
    #: workers that ended before they were ready, in a row
    failed_starts: int = 0
    #: a worker has come to a call
    is_proven: bool = False

    def __post_init__(self) -> None:
        self.memory = self.placement.memory
        self.is_local_pool = self.own_memory and self.memory is not None
        self.is_cluster = self.own_memory and self.memory is None


class Failure(NamedTuple):
    """The task's outcome is this error."""

    error: BaseException
    cause: Cause = "error"


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


def task_name(task: Task) -> str:
    """The function's name, with its first argument where that is short; or what it calls itself, as joblib's batches do."""
    if task.submission is None:
        return "a task that has ended"
    fn, args, _, _ = task.submission
    while isinstance(fn, partial):
        fn = fn.func
    own_name = getattr(fn, "call_name", None)
    if isinstance(own_name, str):
        return own_name
    name = getattr(fn, "__qualname__", None) or type(fn).__name__
    shown = ", ".join(_short(argument) for argument in args[:1])
    return f"{name}({shown}{', …' if len(args) > 1 else ''})"


def _short(argument: object) -> str:
    if not isinstance(argument, str | int | float) and not hasattr(argument, "__fspath__"):
        return f"<{type(argument).__name__}>"
    text = text_of(argument, repr)
    return text if len(text) <= 80 else text[:77] + "…"
