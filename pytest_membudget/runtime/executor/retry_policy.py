"""What an attempt is charged, what follows a failed one, and how that is worded for the caller: as errors and as events.

After a failed attempt the task runs again with more memory, the last time alone, or its outcome is an error.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

from pytest_membudget.errors import (
    OversizeError,
    StartTimeoutError,
    TaskMemoryError,
    UsageError,
    WorkerKilledError,
    text_of,
)
from pytest_membudget.records.run import EventKind, Level
from pytest_membudget.runtime.executor.limits import over_limit, timed_out, took
from pytest_membudget.runtime.executor.policy import USUAL_RETRIES
from pytest_membudget.runtime.executor.state import Failure, Record, Task, task_name
from pytest_membudget.runtime.workers.protocol import (
    Attempt,
    Died,
    Raised,
    RanOut,
    Returned,
    Unpicklable,
)
from pytest_membudget.units import format_size


class Answer(NamedTuple):
    """The task's outcome is this value."""

    value: Any


class Retry(NamedTuple):
    """Repeat the task with so many bytes charged; `alone` with nothing beside it."""

    charged_bytes: int
    alone: bool


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


# Events: what the caller can read of the scheduler's decisions ------------------------------------------------------------


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
        cause = f"{took(task, task.overran_bytes)}, more than it was charged, and was ended"
    if isinstance(what, Failure):
        next_step = f"{task_name(task)} is reported after {task.attempts} attempts"
    else:
        next_step = f"{task_name(task)} is repeated with {format_size(what.charged_bytes)} charged"
        next_step += ", alone" if alone else ""
    return Record(kind, task.level, cause, next_step)


def overrun_event(task: Task, peak_bytes: int | None) -> Record:
    """A task took more than it was charged, and has ended now."""
    taken_bytes = max(task.seen_above_charge_bytes, peak_bytes or 0)
    cause = f"{took(task, taken_bytes)}, {format_size(task.charged_bytes)} were granted"
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
