"""One by one, where the caller stands: needs no process, no thread and no semaphore, so it always works."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pytest_membudget.measurement.process import high_water
from pytest_membudget.records.run import Level
from pytest_membudget.runtime.workers.in_process import LocalLauncher, LocalWorker, Prepare, run_here
from pytest_membudget.runtime.workers.protocol import Call, Done, Reply


class SequentialLauncher(LocalLauncher):
    """Has one worker: the thread that calls it."""

    level: Level = "sequential"

    def start(self) -> SequentialWorker:
        """The worker; always there."""
        return SequentialWorker(self.prepare)


class SequentialWorker(LocalWorker):
    """Runs each call inside `send`."""

    def __init__(self, prepare: Prepare) -> None:
        self._failure = prepare()

    def send(self, call: Call, done: Done) -> None:
        """Runs the call here and now.

        Raises:
            KeyboardInterrupt: the user pressed Ctrl-C meanwhile; the call's outcome is that, too.
        """
        with _interruptions() as interrupted:
            reply = self._failure or _measured(call)
        done(reply)
        if interrupted:
            raise KeyboardInterrupt

    def started_at(self, sequence: int) -> float | None:
        """Never asked while a call runs."""
        return None

    def kill(self) -> bool:
        """Cannot end its own caller."""
        return False

    def retire(self) -> None:
        """Nothing to end."""

    def join(self) -> None:
        """Nothing to wait for."""

    def has_ended(self) -> bool:
        """Nothing goes on here."""
        return True


def _measured(call: Call) -> Reply:
    mark = high_water.open_mark()
    reply = run_here(call)
    if mark is None:
        return reply
    total_bytes = high_water.close_mark(mark)
    figures = reply.figures._replace(
        peak_bytes=total_bytes - mark.start_bytes, coordinator_peak_bytes=total_bytes
    )
    return reply._replace(figures=figures)


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Collects Ctrl-C: a KeyboardInterrupt that the function itself raises is its outcome, the user's ends more."""
    seen: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield seen
        return

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, handler)
