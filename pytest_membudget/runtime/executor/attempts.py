"""One attempt at a task: what it is charged, and what follows it.

The scheduler asks, and writes what these functions decide. Errors and events are worded below, for the caller to read.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

from pytest_membudget.errors import (
    OversizeError,
    StartTimeoutError,
    TaskMemoryError,
    TaskOverLimitError,
    TaskTimeoutError,
    UsageError,
    WorkerKilledError,
    text_of,
)
from pytest_membudget.records.run import EventKind, Level
from pytest_membudget.runtime.executor.policy import USUAL_RETRIES
from pytest_membudget.runtime.executor.state import Failure, Record, Task, task_name
from pytest_membudget.runtime.workers.protocol import (
    Attempt,
    Died,
    Raised,
    RanOut,
    Returned,
    Stage,
    Unpicklable,
)
from pytest_membudget.units import format_duration, format_size


class Answer(NamedTuple):
    """The task's outcome is this value."""

    value: Any


class Retry(NamedTuple):
    """Repeat the task with so many bytes charged; `alone` with nothing beside it."""

    charged_bytes: int
    alone: bool


# Before it: its charge -------------------------------------------------------------------------------------------------


def first_charge(task: Task) -> int:
    """What a first attempt is charged: no more than its limit, unless the caller stated what it takes.

    Raises:
        UsageError: they stated more than the limit.
        Exception: the caller's own estimator failed.
    """
    charged_bytes = task.charge.first_bytes()
    if task.limit is None or isinstance(task.limit, float) or charged_bytes <= task.limit:
        return charged_bytes
    if task.charge.is_stated:
        raise UsageError(
            f"limit: {task_name(task)} is to take {format_size(charged_bytes)}, more than its limit of "
            f"{format_size(task.limit)}; raise the limit, or lower memory"
        )
    return task.limit


# After it --------------------------------------------------------------------------------------------------------------


def after_attempt(
    task: Task, reply: Attempt, *, retries: int, largest_bytes: int, own_memory: bool
) -> Answer | Retry | Failure:
    """What follows attempt number `task.attempts`; see `after_failure` for the arguments.

    An exception of the user's is the answer, whatever its type: it came back in a reply.
    """
    if task.over_limit_bytes and (isinstance(reply, Died) or reply.figures.reached_limit):
        return over_limit(task, task.limit_bytes or 0, task.over_limit_bytes)
    match reply:
        case Returned(value=value):
            return Answer(value)
        case Raised(error=error):
            return Failure(error)
        case Unpicklable(error=error):
            return Failure(error, "unpicklable")
        case Died() if task.timed_out:
            return timed_out(task, ended=True)
        case Died() | RanOut():
            return after_failure(
                task, reply, retries=retries, largest_bytes=largest_bytes, own_memory=own_memory
            )


def after_failure(
    task: Task, reply: Died | RanOut, *, retries: int, largest_bytes: int, own_memory: bool
) -> Retry | Failure:
    """What follows when `task` was killed or ran out of memory in its attempt number `task.attempts`.

    Args:
        task: the task; `charged_bytes` is what the attempt was charged.
        reply: how it ended.
        retries: how often a task is repeated.
        largest_bytes: the most that can be charged.
        own_memory: whether the next attempt can have a worker process. Without one a task that ran out of
            memory is not repeated: the coordinator would be the next to run out.
    """
    repeats = task.attempts - 1
    charged_bytes = max(task.charged_bytes, task.overran_bytes)
    if task.alone and isinstance(reply, Died) and (retries <= USUAL_RETRIES or task.overran_bytes):
        # There is no more memory than all. A caller who allows more repeats than usual expects kills of another kind.
        return _given_up_or_over_limit(task, reply, own_memory=own_memory)
    if repeats < retries and own_memory:
        last = repeats + 1 == retries
        wanted_bytes = max(task.charge.retry_bytes(charged_bytes), charged_bytes + 1)
        return Retry(min(wanted_bytes, largest_bytes), alone=last or wanted_bytes >= largest_bytes)
    return _given_up_or_over_limit(task, reply, own_memory=own_memory)


def _given_up_or_over_limit(task: Task, reply: Died | RanOut, *, own_memory: bool) -> Failure:
    if task.overran_bytes:  # we have ended it, for breaking its charge
        return over_limit(task, task.charged_bytes, task.overran_bytes)
    return given_up(task, reply, own_memory=own_memory)


# Errors ----------------------------------------------------------------------------------------------------------------


def given_up(task: Task, reply: Died | RanOut, *, own_memory: bool) -> Failure:
    """The error of a task that is not repeated."""
    times = "once" if task.attempts == 1 else f"{task.attempts} times"
    alone = (", alone" if task.attempts == 1 else ", the last time alone") if task.alone else ""
    tried = f"tried {times}{alone}, with {format_size(task.charged_bytes)} charged; "
    if isinstance(reply, Died) and reply.crashed:
        tried += "that is a crash rather than a lack of memory: run this input by itself, with python -X faulthandler"
    elif own_memory:
        tried += "give it a smaller input, a larger budget or more retries"
    else:
        tried += "it is not repeated inside the coordinator, which would be the next to run out"
    if isinstance(reply, Died):
        return Failure(WorkerKilledError(f"{reply.detail} while it ran {task_name(task)}, {tried}"), "killed")
    if not task.ran_out:  # in the coordinator itself: the user's own exception, as it is
        return Failure(reply.error, "out-of-memory")
    error = TaskMemoryError(f"{task_name(task)} ran out of memory, {tried}")
    error.__cause__ = reply.error
    return Failure(error, "out-of-memory")


def not_run(error: BaseException) -> Failure:
    """For a task that will not be run: too large, no worker for it, or the caller's own estimator failed."""
    match error:
        case OversizeError():
            return Failure(error, "oversize")
        case StartTimeoutError():
            return Failure(error, "timeout")
    return Failure(error)


def broken_by(error: BaseException) -> BrokenProcessPool:
    """What every task gets after the caller's initializer failed, as in the standard library's pools."""
    broken = BrokenProcessPool(f"the initializer failed: {type(error).__name__}: {text_of(error)}")
    broken.__cause__ = error
    return broken


def broken_by_kills(times: int, detail: str) -> BrokenProcessPool:
    """What every task gets after so many workers in a row ended in the caller's initializer."""
    return BrokenProcessPool(
        f"{times} workers in a row ended while the initializer ran ({detail}); it needs more memory than there is, "
        "or ends its own process"
    )


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


# Events: what the caller can read of the scheduler's decisions ---------------------------------------------------------


def lost_event(task: Task, reply: Attempt, what: Answer | Retry | Failure) -> Record | None:
    """An attempt was lost: what ended it, and what follows. None where it was not, or its end is recorded already."""
    if not isinstance(reply, Died | RanOut) or isinstance(what, Answer):
        return None
    if isinstance(what, Failure) and what.cause in {"timeout", "over-limit"} and not task.overran_bytes:
        return None  # by the event of its limit, when that was exceeded
    alone = isinstance(what, Retry) and what.alone
    kind: EventKind = "worker-killed" if isinstance(reply, Died) else "alone" if alone else "retry"
    cause = reply.detail if isinstance(reply, Died) else str(reply.error) or "MemoryError"
    if task.overran_bytes:
        kind = "overrun"
        cause = f"{_took(task, task.overran_bytes)}, more than it was charged, and was ended"
    if isinstance(what, Failure):
        next_step = f"{task_name(task)} is reported after {task.attempts} attempts"
    else:
        next_step = f"{task_name(task)} is repeated with {format_size(what.charged_bytes)} charged"
        next_step += ", alone" if alone else ""
    return Record(kind, task.level, cause, next_step)


def overrun_event(task: Task, peak_bytes: int | None) -> Record:
    """A task took more than it was charged, and has ended now."""
    taken_bytes = max(task.seen_above_charge_bytes, peak_bytes or 0)
    cause = f"{_took(task, taken_bytes)}, {format_size(task.charged_bytes)} were granted"
    return Record("overrun", task.level, cause, "that was charged, and nothing started until it fitted")


def fallback_event(level: Level, detail: str, next_level: Level) -> Record:
    """No worker can be had at a level."""
    cause = no_worker(level, detail)
    return Record("fallback", level, cause, f"continues with level {next_level!r}", is_logged=True)


def no_worker(level: Level, detail: str) -> str:
    """Why no worker can be had."""
    return f"no {level} worker can be started: {detail}"


def recovery_event(level: Level, most: int) -> Record:
    """Concurrency is back to where it was."""
    return Record("recovery", level, "a run of clean tasks", f"{most} tasks may run at once again")


def pressure_event(level: Level, source: str) -> Record:
    """Tasks of this machine stall; the gate that noticed has logged it."""
    cause = f"tasks stall for want of memory ({source})"
    return Record("pressure", level, cause, "nothing new starts beside what runs until that has passed")


def base_over_budget_event(level: Level) -> Record:
    """One worker alone is more than the budget."""
    cause = "what a worker holds before any task is more than the whole budget"
    next_step = "one task runs at a time; raise the budget, or load less in the initializer"
    return Record("overrun", level, cause, next_step, is_logged=True)


def over_limit_event(task: Task, taken_bytes: int) -> Record:
    """A task is being ended since it exceeded its limit."""
    cause = f"{_took(task, taken_bytes)} or more, its limit is {format_size(task.limit_bytes or 0)}"
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


def _took(task: Task, taken_bytes: int) -> str:
    return f"{task_name(task)} took {format_size(taken_bytes)}"
