"""What a task may hold, how long it may run, and how long a worker may take to come to it.

Decided on what a driver has read; the scheduler does what follows. How it is worded for the caller stands below.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pytest_membudget.errors import StartTimeoutError, TaskOverLimitError, TaskTimeoutError
from pytest_membudget.records.run import Level
from pytest_membudget.runtime.admission.ledger import Ticket
from pytest_membudget.runtime.executor.state import Failure, Record, Task, task_name
from pytest_membudget.runtime.workers.protocol import Stage
from pytest_membudget.runtime.workers.task_memory import RESOLUTION_BYTES
from pytest_membudget.units import format_duration, format_size

NOT_BEGUN_POLL_S = 0.05
"""When to ask again for a task with a time limit that its worker has not begun."""


class Excess(NamedTuple):
    """A task has held so many bytes, which is more than its limit, or than its charge, allows."""

    above: Literal["limit", "charge"]
    bytes: int


def limit_bytes(task: Task) -> int | None:
    """The limit of the next attempt: a size, or a factor of what it is charged; None without one."""
    if isinstance(task.limit, float):
        return int(task.limit * task.charged_bytes)
    return task.limit


def kernel_limit_bytes(task: Task, lease: Ticket, *, ends_overruns: bool) -> int | None:
    """Where the kernel may end an attempt, as `excess` would after the next reading; None for nowhere."""
    if task.limit_bytes is None and ends_overruns:
        return _allowed_bytes(task, lease)
    return task.limit_bytes


def excess(task: Task, lease: Ticket, taken_bytes: int) -> Excess | None:
    """Whether `taken_bytes`, which the task holds now, are more than it may hold."""
    if task.limit_bytes is not None and taken_bytes > task.limit_bytes:
        return Excess("limit", taken_bytes)
    return Excess("charge", taken_bytes) if taken_bytes > _allowed_bytes(task, lease) else None


def excess_at_kernel_limit(task: Task, taken_bytes: int) -> Excess | None:
    """The kernel has ended something of the task at a limit; what it held there may be gone when it is read."""
    if task.limit_bytes is not None:
        return Excess("limit", max(taken_bytes, task.limit_bytes + 1))
    if task.kernel_limit_bytes is not None:
        return Excess("charge", max(taken_bytes, task.kernel_limit_bytes + 1))
    return None


def _allowed_bytes(task: Task, lease: Ticket) -> int:
    """What is granted, or what the task is charged where that is more."""
    return max(lease.bytes, task.charged_bytes) + RESOLUTION_BYTES


def deadline_s(task: Task, now_s: float) -> float | None:
    """When a task that runs is out of time, or is to be asked for again where it has not begun; None for never."""
    if task.timeout_s is None:
        return None
    if task.began_s is None:
        return now_s + min(task.timeout_s, NOT_BEGUN_POLL_S)
    return task.began_s + task.timeout_s


# Errors ------------------------------------------------------------------------------------------------------------------


def timed_out(task: Task, *, ended: bool) -> Failure:
    """The task ran longer than it may."""
    what = (
        "its worker process was ended" if ended else "its thread cannot be ended and goes on until it returns"
    )
    return Failure(
        TaskTimeoutError(
            f"{task_name(task)} ran longer than {format_duration(task.timeout_s or 0)}; {what}; "
            "allow more time with ExecutorPolicy(timeout_s=…)"
        ),
        "timeout",
    )


def over_limit(task: Task, limit_bytes: int, reached_bytes: int) -> Failure:
    """The task took more than it may."""
    return Failure(TaskOverLimitError(limit_bytes, reached_bytes, task_name(task)), "over-limit")


def not_begun(task: Task, stage: Stage, limit_s: float) -> str:
    """What kept a worker from `task` for longer than it may take."""
    within = f"within {format_duration(limit_s)}"
    match stage:
        case "start":
            return f"a worker was not up {within}: it had an interpreter to start and the program's script to import"
        case "initializer":
            return f"the initializer did not return {within}"
        case "import":
            module = _module_of(task)
            return (
                f"a worker had not imported what {task_name(task)} needs, module {module!r} first, {within}"
            )


def never_began(task: Task, stage: Stage, limit_s: float) -> Failure:
    """No worker came to the task's function."""
    error = StartTimeoutError(
        f"{not_begun(task, stage, limit_s)}; look for what waits there at import, "
        "or allow more time with ExecutorPolicy(start_timeout_s=…)"
    )
    return Failure(error, "timeout")


def _module_of(task: Task) -> str:
    fn = None if task.submission is None else task.submission.fn
    return str(getattr(fn, "__module__", None) or type(fn).__module__)


# Events ------------------------------------------------------------------------------------------------------------------


def over_limit_event(task: Task, taken_bytes: int) -> Record:
    """A task is being ended since it exceeded its limit."""
    cause = f"{took(task, taken_bytes)} or more, its limit is {format_size(task.limit_bytes or 0)}"
    return Record("over-limit", task.level, cause, "it is ended with all that it started")


def unkept_limit_event(task: Task, limit_bytes: int) -> Record:
    """A task with a limit runs where nothing can be ended."""
    cause = (
        f"a limit of {format_size(limit_bytes)} for {task_name(task)} cannot be kept in the program itself"
    )
    return Record("over-limit", task.level, cause, "such tasks run without a limit", is_logged=True)


def start_timeout_event(task: Task, level: Level, stage: Stage, limit_s: float) -> Record:
    """A worker did not come to its call."""
    next_step = "no call can run" if stage == "initializer" else "that worker is ended"
    return Record("timeout", level, not_begun(task, stage, limit_s), next_step)


def timeout_event(task: Task, *, can_be_ended: bool) -> Record:
    """A task ran longer than it may."""
    cause = f"{task_name(task)} ran longer than {format_duration(task.timeout_s or 0)}"
    next_step = "its worker is replaced" if can_be_ended else "its thread is left to itself"
    return Record("timeout", task.level, cause, next_step)


def took(task: Task, taken_bytes: int) -> str:
    """How much a task took, in words."""
    return f"{task_name(task)} took {format_size(taken_bytes)}"
