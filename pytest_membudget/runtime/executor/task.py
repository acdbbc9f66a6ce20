"""One input's way through the executor: what it is, what it may take, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from pytest_membudget.records.run import Cause, Level
from pytest_membudget.runtime.admission.ledger import Ticket


class Charge:
    """What one task is charged, and what is learned from it. A function's largest peak is remembered by the executor."""

    def first_bytes(self) -> int:
        """For the first attempt, by what is known when it is about to start."""
        raise NotImplementedError

    def retry_bytes(self, failed_bytes: int) -> int:
        """After an attempt with `failed_bytes` ran out: more than that."""
        raise NotImplementedError

    def observe(self, peak_bytes: int, duration_s: float) -> None:
        """Takes in what a finished attempt really took."""
        raise NotImplementedError


class Task:
    """A call on its way. Only the dispatcher's thread changes it; the rest of the world sees its future."""

    __slots__ = (
        "alone",
        "args",
        "attempts",
        "cause",
        "charge",
        "charged_bytes",
        "coordinator_peak_bytes",
        "duration_s",
        "estimate_bytes",
        "exact",
        "fn",
        "fresh_worker",
        "future",
        "host",
        "in_thread",
        "is_cancelled",
        "is_file",
        "is_running",
        "kwargs",
        "level",
        "lost",
        "peak_bytes",
        "ran_out",
        "result_bytes",
        "sequence",
        "stuck",
        "ticket",
        "timed_out",
        "timeout_s",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        charge: Charge,
        *,
        timeout_s: float | None = None,
        in_thread: bool = False,
        fresh_worker: bool = False,
        is_file: bool = False,
        exact: bool = False,
    ) -> None:
        self.future: Future[Any] = Future()
        self.fn, self.args, self.kwargs = fn, args, kwargs
        self.charge = charge
        self.timeout_s = timeout_s
        self.in_thread = in_thread
        self.fresh_worker = fresh_worker
        self.is_file = is_file
        self.exact = exact
        self.sequence = 0
        self.ticket: Ticket | None = None
        self.estimate_bytes: int | None = None
        self.charged_bytes: int | None = None  # fixed by the first attempt, raised by each further one
        self.alone = False
        self.is_running = False
        self.is_cancelled = False
        self.timed_out = False
        self.ran_out = False
        self.attempts = 0
        self.lost = 0
        self.stuck = 0  # workers that were ended because they did not come to it
        # What became of it:
        self.cause: Cause = "ok"
        self.level: Level = "process"
        self.host = ""
        self.peak_bytes: int | None = None
        self.duration_s = 0.0
        self.result_bytes = 0
        self.coordinator_peak_bytes = 0

    def begin(self) -> bool:
        """Takes it up, or goes on with it; False where the caller has cancelled it."""
        if not self.is_running and not self.is_cancelled:
            self.is_running = self.future.set_running_or_notify_cancel()
            self.is_cancelled = not self.is_running
            if self.is_cancelled:
                self.cause = "cancelled"
                self.forget_call()
        return self.is_running

    def forget_call(self) -> None:
        """Lets go of the function and its arguments, which the caller may want collected."""
        self.fn, self.args, self.kwargs = _done, (), {}


def _done() -> None:
    """Stands for the function of a task that has ended."""
