"""What the caller can read of the scheduler's decisions: each kind of event, worded in one place."""

from __future__ import annotations

from pytest_membudget.records.run import EventKind, Level
from pytest_membudget.runtime.executor.retry_policy import Failure, Retry, not_begun, task_name
from pytest_membudget.runtime.executor.state import Record, Task
from pytest_membudget.runtime.workers.protocol import Died, RanOut, Stage
from pytest_membudget.units import format_duration, format_size


def lost(task: Task, reply: Died | RanOut, what: Retry | Failure) -> Record:
    """An attempt was lost: what ended it, and what follows."""
    alone = isinstance(what, Retry) and what.alone
    kind: EventKind = "worker-killed" if isinstance(reply, Died) else "alone" if alone else "retry"
    cause = reply.detail if isinstance(reply, Died) else str(reply.error) or "MemoryError"
    if task.overran_bytes:
        kind = "overrun"
        cause = f"{task_name(task)} took {format_size(task.overran_bytes)}, more than it was charged, and was ended"
    if isinstance(what, Failure):
        next_step = f"{task_name(task)} is reported after {task.attempts} attempts"
    else:
        next_step = f"{task_name(task)} is repeated with {format_size(what.charged_bytes)} charged"
        next_step += ", alone" if alone else ""
    return Record(kind, task.level, cause, next_step)


def overrun(task: Task, peak_bytes: int | None) -> Record:
    """A task took more than it was charged, and has ended now."""
    taken_bytes = max(task.seen_above_charge_bytes, peak_bytes or 0)
    return Record(
        "overrun",
        task.level,
        f"{task_name(task)} took {format_size(taken_bytes)}, {format_size(task.charged_bytes or 0)} were granted",
        "that was charged, and nothing started until it fitted",
    )


def over_limit(task: Task, taken_bytes: int) -> Record:
    """A task is being ended since it exceeded its limit."""
    return Record(
        "over-limit",
        task.level,
        f"{task_name(task)} took {format_size(taken_bytes)}, its limit is {format_size(task.limit_bytes or 0)}",
        "it is ended with all that it started",
    )


def limit_cannot_be_kept(task: Task, limit_bytes: int) -> Record:
    """A task with a limit runs where nothing can be ended."""
    return Record(
        "over-limit",
        task.level,
        f"a limit of {format_size(limit_bytes)} for {task_name(task)} cannot be kept in the program itself",
        "such tasks run without a limit",
        is_logged=True,
    )


def start_timeout(task: Task, level: Level, stage: Stage, limit_s: float) -> Record:
    """A worker did not come to its call."""
    next_step = "no call can run" if stage == "initializer" else "that worker is ended"
    return Record("timeout", level, not_begun(task, stage, limit_s), next_step)


def timeout(task: Task, *, can_be_ended: bool) -> Record:
    """A task ran longer than it may."""
    return Record(
        "timeout",
        task.level,
        f"{task_name(task)} ran longer than {format_duration(task.timeout_s or 0)}",
        "its worker is replaced" if can_be_ended else "its thread is left to itself",
    )


def fallback(level: Level, detail: str, next_level: Level) -> Record:
    """No worker can be had at a level."""
    cause = no_worker(level, detail)
    return Record("fallback", level, cause, f"continues with level {next_level!r}", is_logged=True)


def no_worker(level: Level, detail: str) -> str:
    """Why no worker can be had."""
    return f"no {level} worker can be started: {detail}"


def recovery(level: Level, most: int) -> Record:
    """Concurrency is back to where it was."""
    return Record("recovery", level, "a run of clean tasks", f"{most} tasks may run at once again")


def pressure(level: Level, source: str) -> Record:
    """Tasks of this machine stall; the gate that noticed has logged it."""
    next_step = "nothing new starts beside what runs until that has passed"
    return Record("pressure", level, f"tasks stall for want of memory ({source})", next_step)


def base_over_budget(level: Level) -> Record:
    """One worker alone is more than the budget."""
    return Record(
        "overrun",
        level,
        "what a worker holds before any task is more than the whole budget",
        "one task runs at a time; raise the budget, or load less in the initializer",
        is_logged=True,
    )
