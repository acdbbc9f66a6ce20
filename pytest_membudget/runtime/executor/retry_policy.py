"""What an attempt is charged, and what follows a failed one: the task again with more memory, alone, or an error."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

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
from pytest_membudget.records.run import Cause
from pytest_membudget.runtime.executor.policy import USUAL_RETRIES
from pytest_membudget.runtime.executor.state import Task
from pytest_membudget.runtime.workers.protocol import Died, RanOut, Stage
from pytest_membudget.units import format_duration, format_size


class Retry(NamedTuple):
    """Repeat the task with so many bytes charged; `alone` with nothing beside it."""

    charged_bytes: int
    alone: bool


class Failure(NamedTuple):
    """The task's outcome is this error."""

    error: BaseException
    cause: Cause = "error"


def first_charge(task: Task) -> int:
    """What a first attempt is charged: no more than its limit, unless the caller said what it takes.

    Raises:
        UsageError: they said more than the limit.
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
    charged_bytes = task.charged_bytes or 0
    if task.alone and isinstance(reply, Died) and retries <= USUAL_RETRIES:
        # There is no more memory than all. Who asks for more repeats than usual expects kills of another kind.
        return given_up(task, reply, own_memory=own_memory)
    if repeats < retries and own_memory:
        last = repeats + 1 == retries
        wanted_bytes = max(task.charge.retry_bytes(charged_bytes), charged_bytes + 1)
        return Retry(min(wanted_bytes, largest_bytes), alone=last or wanted_bytes >= largest_bytes)
    return given_up(task, reply, own_memory=own_memory)


def given_up(task: Task, reply: Died | RanOut, *, own_memory: bool) -> Failure:
    """The error of a task that is not repeated."""
    times = "once" if task.attempts == 1 else f"{task.attempts} times"
    alone = (", alone" if task.attempts == 1 else ", the last time alone") if task.alone else ""
    tried = f"tried {times}{alone}, with {format_size(task.charged_bytes or 0)} charged; "
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


def broken_by(error: BaseException) -> BrokenProcessPool:
    """What every task gets after the caller's initializer failed, as in the standard library's pools."""
    broken = BrokenProcessPool(f"the initializer failed: {type(error).__name__}: {text_of(error)}")
    broken.__cause__ = error
    return broken


def task_name(task: Task) -> str:
    """The function's name, with its first argument where that is short."""
    if task.submission is None:
        return "a task that has ended"
    fn, args, _, _ = task.submission
    name = getattr(fn, "__qualname__", None) or type(fn).__name__
    shown = ", ".join(_short(argument) for argument in args[:1])
    return f"{name}({shown}{', …' if len(args) > 1 else ''})"


def _module_of(task: Task) -> str:
    fn = None if task.submission is None else task.submission.fn
    return str(getattr(fn, "__module__", None) or type(fn).__module__)


def _short(argument: object) -> str:
    if not isinstance(argument, str | int | float) and not hasattr(argument, "__fspath__"):
        return f"<{type(argument).__name__}>"
    text = text_of(argument, repr)
    return text if len(text) <= 80 else text[:77] + "…"
