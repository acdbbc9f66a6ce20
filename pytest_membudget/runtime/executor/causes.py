"""What comes after a failed attempt: the same task again with more memory, then alone, then a report."""

from __future__ import annotations

from typing import NamedTuple

from pytest_membudget.errors import (
    OversizeError,
    StartTimeoutError,
    TaskMemoryError,
    TaskTimeoutError,
    WorkerKilledError,
    text_of,
)
from pytest_membudget.records.run import Cause
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.workers.protocol import Died, RanOut, Stage
from pytest_membudget.units import format_duration, format_size


class Again(NamedTuple):
    """Repeat the task with so many bytes charged; `alone` with nothing beside it."""

    bytes: int
    alone: bool


class Failed(NamedTuple):
    """Report the task."""

    error: BaseException
    cause: Cause = "error"


def after_failure(
    task: Task, reply: Died | RanOut, *, retries: int, budget_bytes: int, in_own_memory: bool
) -> Again | Failed:
    """What follows when `task` was killed or ran out of memory in its attempt number `task.attempts`.

    Args:
        task: the task; `charged_bytes` is what the attempt was charged.
        reply: how it ended.
        retries: how often a task is repeated.
        budget_bytes: the most that can be charged.
        in_own_memory: whether the next attempt can have a worker process. Without one a task that ran out of
            memory is not repeated: the coordinator would be the next to run out.
    """
    repeats = task.attempts - 1
    charged_bytes = task.charged_bytes or 0
    if repeats < retries and in_own_memory:
        last = repeats + 1 == retries
        wanted_bytes = max(task.charge.retry_bytes(charged_bytes), charged_bytes + 1)
        return Again(min(wanted_bytes, budget_bytes), alone=last or wanted_bytes >= budget_bytes)
    return given_up(task, reply, in_own_memory=in_own_memory)


def given_up(task: Task, reply: Died | RanOut, *, in_own_memory: bool) -> Failed:
    """The report on a task that is not repeated."""
    times = "once" if task.attempts == 1 else f"{task.attempts} times, the last time alone"
    tried = f"tried {times}, with {format_size(task.charged_bytes or 0)} charged; "
    if isinstance(reply, Died) and reply.crashed:
        tried += "that is a crash rather than a lack of memory: run this input by itself, with python -X faulthandler"
    elif in_own_memory:
        tried += "give it a smaller input, a larger budget or more retries"
    else:
        tried += "it is not repeated inside the coordinator, which would be the next to run out"
    if isinstance(reply, Died):
        return Failed(WorkerKilledError(f"{reply.detail} while it ran {task_name(task)}, {tried}"), "killed")
    if not task.ran_out:  # in the coordinator itself: the user's own exception, as it is
        return Failed(reply.error, "out-of-memory")
    error = TaskMemoryError(f"{task_name(task)} ran out of memory, {tried}")
    error.__cause__ = reply.error
    return Failed(error, "out-of-memory")


def not_run(error: BaseException) -> Failed:
    """The report on a task that will not be run: too large, no worker for it, or the caller's own estimator failed."""
    match error:
        case OversizeError():
            return Failed(error, "oversize")
        case StartTimeoutError():
            return Failed(error, "timeout")
    return Failed(error)


def timed_out(task: Task, *, ended: bool) -> Failed:
    """The task ran longer than it may."""
    what = (
        "its worker process was ended" if ended else "its thread cannot be ended and goes on until it returns"
    )
    return Failed(
        TaskTimeoutError(
            f"{task_name(task)} ran longer than {format_duration(task.timeout_s or 0)}; {what}; "
            "allow more time with ExecutorPolicy(timeout_s=…)"
        ),
        "timeout",
    )


def not_begun(task: Task, stage: Stage, limit_s: float) -> str:
    """What kept a worker from `task` for longer than it may take."""
    within = f"within {format_duration(limit_s)}"
    match stage:
        case "start":
            return f"a worker was not up {within}: it had an interpreter to start and the program's script to import"
        case "initializer":
            return f"the initializer did not return {within}"
        case "import":
            module = getattr(task.fn, "__module__", None) or type(task.fn).__module__
            return (
                f"a worker had not imported what {task_name(task)} needs, module {module!r} first, {within}"
            )


def never_began(task: Task, stage: Stage, limit_s: float) -> Failed:
    """No worker came to the task's function."""
    error = StartTimeoutError(
        f"{not_begun(task, stage, limit_s)}; look for what waits there at import, "
        "or allow more time with ExecutorPolicy(start_timeout_s=…)"
    )
    return Failed(error, "timeout")


def task_name(task: Task) -> str:
    """The function's name, with its first argument where that is short."""
    name = getattr(task.fn, "__qualname__", None) or type(task.fn).__name__
    shown = ", ".join(_short(argument) for argument in task.args[:1])
    return f"{name}({shown}{', …' if len(task.args) > 1 else ''})"


def _short(argument: object) -> str:
    if not isinstance(argument, str | int | float) and not hasattr(argument, "__fspath__"):
        return f"<{type(argument).__name__}>"
    text = text_of(argument, repr)
    return text if len(text) <= 80 else text[:77] + "…"
