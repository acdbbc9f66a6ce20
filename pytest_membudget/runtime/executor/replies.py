"""What a worker's reply means for its task: the result for the caller, one more attempt, or a report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

from pytest_membudget.errors import text_of
from pytest_membudget.records.run import Level, LevelEvent
from pytest_membudget.runtime.executor.causes import Again, Failed, after_failure, task_name, timed_out
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.workers.protocol import (
    Died,
    Figures,
    InitializerFailed,
    Raised,
    RanOut,
    Reply,
    Returned,
    Unpicklable,
)
from pytest_membudget.units import format_size

_logger = logging.getLogger("pytest_membudget.runtime")

LOST_TOO_OFTEN = 10
"""A task whose worker ended just before it began has not been attempted. After so many times it counts as the cause."""


class Rules(NamedTuple):
    """What decides between one more attempt and a report."""

    retries: int
    start_timeout_s: float | None
    largest_bytes: Callable[[], int]
    note: Callable[[LevelEvent], None]
    clock: Callable[[], float]

    def note_recovery(self, level: Level, most: int) -> None:
        """Concurrency is back to where it was."""
        self.note(
            LevelEvent(
                kind="recovery",
                level=level,
                cause="a run of clean tasks",
                next_step=f"{most} tasks may run at once again",
                at_s=self.clock(),
            )
        )


def learn(task: Task, level: Level, figures: Figures, left_bytes: int = 0) -> int | None:
    """Keeps what an attempt took, and teaches the estimate, which is told what is returned: bytes, if they are known.

    What it has left in its worker (modules that it imported, say) is the worker's from now on, and no other task's.
    """
    task.level = level
    task.duration_s = figures.duration_s
    task.result_bytes = figures.result_bytes
    task.coordinator_peak_bytes = figures.coordinator_peak_bytes
    if figures.peak_bytes is None:
        return None
    task.peak_bytes = figures.peak_bytes
    taken_bytes = max(0, figures.peak_bytes - left_bytes)
    try:
        task.charge.observe(taken_bytes, figures.duration_s)
    except Exception:  # the caller's own estimator; the result is good all the same
        _logger.exception("the estimator cannot learn from %s", task_name(task))
    return taken_bytes


def is_loss(reply: Reply) -> bool:
    """Whether a worker was lost or ran out of memory."""
    return isinstance(reply, Died | RanOut)


def verdict(task: Task, reply: Reply, rules: Rules, *, in_own_memory: bool) -> Again | Failed | Returned:
    """What `reply` means for `task`. One that was queued behind a killed one has not been attempted.

    An exception of the user's is the answer, whatever its type: it came back in a reply, and so cannot be ours.
    """
    match reply:
        case Returned():
            return reply
        case Raised(error=error):
            return Failed(error)
        case Unpicklable(error=error):
            return Failed(error, "unpicklable")
        case InitializerFailed(error=error):
            return Failed(broken_by(error))
        case RanOut():
            task.ran_out = task.ran_out or in_own_memory
        case Died() if task.timed_out:
            return timed_out(task, ended=True)
    return _repeated(task, reply, rules, in_own_memory=in_own_memory)


def _repeated(task: Task, reply: Died | RanOut, rules: Rules, *, in_own_memory: bool) -> Again | Failed:
    what_next = after_failure(
        task, reply, retries=rules.retries, budget_bytes=rules.largest_bytes(), in_own_memory=in_own_memory
    )
    cause = reply.detail if isinstance(reply, Died) else str(reply.error) or "MemoryError"
    if isinstance(what_next, Again):
        next_step = f"{task_name(task)} is repeated with {format_size(what_next.bytes)} charged"
        if what_next.alone:
            next_step += ", alone"
    else:
        next_step = f"{task_name(task)} is reported after {task.attempts} attempts"
    rules.note(
        LevelEvent(
            kind="worker-killed" if isinstance(reply, Died) else "alone" if _is_alone(what_next) else "retry",
            level=task.level,
            cause=cause,
            next_step=next_step,
            at_s=rules.clock(),
        )
    )
    return what_next


def _is_alone(what_next: Again | Failed) -> bool:
    return isinstance(what_next, Again) and what_next.alone


def broken_by(error: BaseException) -> BrokenProcessPool:
    """What every task gets after the caller's initializer failed, as in the standard library's pools."""
    broken = BrokenProcessPool(f"the initializer failed: {type(error).__name__}: {text_of(error)}")
    broken.__cause__ = error
    return broken


def conclude(task: Task, what: Returned | Failed) -> None:
    """Gives the caller the result or the exception, and lets go of the call."""
    future = task.future
    task.forget_call()
    task.cause = "ok" if isinstance(what, Returned) else what.cause
    try:
        if isinstance(what, Returned):
            future.set_result(what.value)
        else:
            future.set_exception(what.error)
    except InvalidStateError:
        _logger.debug("a future was settled by someone else")
    except BaseException:  # a callback of the user's; it must not end the thread that serves everybody
        _logger.exception("a callback of a future raised")
