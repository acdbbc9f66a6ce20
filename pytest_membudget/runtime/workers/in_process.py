"""The levels without processes: calls run in the coordinator itself, in its own memory.

A thread cannot be ended from outside. So at its level a task past its time is reported but goes on until it returns, its
memory stays charged until then, its peak cannot be separated from that of its neighbours, and a task that exhausts memory takes
the coordinator with it. The sequential level needs no process, no thread and no semaphore, so it always works.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pytest_membudget.measurement.process import high_water
from pytest_membudget.runtime.workers.protocol import (
    Call,
    CannotStartError,
    Delay,
    Done,
    Figures,
    InitializerFailed,
    Raised,
    RanOut,
    Reading,
    Reply,
    Returned,
)

_logger = logging.getLogger("concurrent.futures")

Prepare = Callable[[], InitializerFailed | None]


class LocalLauncher:
    """Starts workers that are part of the coordinator: its own thread, or others beside it."""

    def __init__(
        self, initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()
    ) -> None:
        self._initializer = initializer
        self._initargs = initargs

    def prepare(self) -> InitializerFailed | None:
        """Runs the caller's initializer; what it raised, if anything."""
        if self._initializer is None:
            return None
        try:
            self._initializer(*self._initargs)
        except BaseException as error:  # the caller's: it is reported with the first call
            _logger.critical("Exception in initializer:", exc_info=True)
            return InitializerFailed(error)
        return None


class LocalWorker:
    """A worker in the coordinator."""

    pid = None

    def reading(self, sequence: int = 0) -> Reading:
        """Nothing: what calls hold here cannot be separated from the rest."""
        return Reading()


def run_here(call: Call) -> Reply:
    """Runs the call in this thread; whatever it raises becomes the reply."""
    began = time.monotonic()
    try:
        value = call.fn(*call.args, **call.kwargs)
    except MemoryError as error:
        return RanOut(error, Figures(time.monotonic() - began))
    except BaseException as error:  # the caller's own, whatever it is
        return Raised(error, Figures(time.monotonic() - began))
    return Returned(value, Figures(time.monotonic() - began))


_Item = tuple[Call, Done] | None


class ThreadLauncher(LocalLauncher):
    """Starts worker threads."""

    def start(self) -> ThreadWorker:
        """A new worker thread.

        Raises:
            CannotStartError: the system has no room for one.
        """
        try:
            return ThreadWorker(self.prepare)
        except (RuntimeError, MemoryError) as error:
            raise CannotStartError(f"{type(error).__name__}: {error}") from error


class ThreadWorker(LocalWorker):
    """One thread with a queue."""

    def __init__(self, prepare: Prepare) -> None:
        self._calls: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._started: dict[int, float] = {}
        self._abandoned = False
        self._is_ready = threading.Event()
        self._born_s = time.monotonic()
        self._thread = threading.Thread(
            target=_work,
            args=(self._calls, self._started, self._is_ready, prepare),
            name="membudget-worker",
            daemon=True,  # one that never returns must not keep the interpreter; shutdown waits for the others
        )
        self._thread.start()

    def send(self, calls: Sequence[tuple[Call, Done]]) -> None:
        """Queues the calls."""
        for each in calls:
            self._calls.put(each)

    def reading(self, sequence: int = 0) -> Reading:
        """When it began that call, or how long its initializer has run."""
        delay = None if self._is_ready.is_set() else Delay("initializer", self._born_s)
        return Reading(self._started.get(sequence), delay)

    def kill(self) -> None:
        """A thread cannot be ended: it is left to itself."""
        self._abandoned = True
        self._calls.put(None)

    def retire(self) -> None:
        """Lets the thread end after the calls that it has."""
        self._calls.put(None)

    def join(self) -> None:
        """Waits for a thread that was retired, not for one that was left to itself."""
        if not self._abandoned:
            self._thread.join()

    def has_ended(self) -> bool:
        """Whether the thread is gone, or left to itself."""
        return self._abandoned or not self._thread.is_alive()


def _work(
    calls: queue.SimpleQueue[_Item], started: dict[int, float], is_ready: threading.Event, prepare: Prepare
) -> None:
    failure = prepare()
    is_ready.set()
    while (item := calls.get()) is not None:
        call, done = item
        del item
        started[call.sequence] = time.monotonic()
        done(failure or run_here(call))
        del started[call.sequence], call, done  # nothing of a finished call is kept while this thread waits


class SequentialLauncher(LocalLauncher):
    """Has one worker: the thread that calls it."""

    def start(self) -> SequentialWorker:
        """The worker; always there."""
        return SequentialWorker(self.prepare)


class SequentialWorker(LocalWorker):
    """Runs each call inside `send`."""

    def __init__(self, prepare: Prepare) -> None:
        self._failure = prepare()

    def send(self, calls: Sequence[tuple[Call, Done]]) -> None:
        """Runs the calls here and now.

        Raises:
            KeyboardInterrupt: the user pressed Ctrl-C meanwhile; the call's outcome is that, too.
        """
        for call, done in calls:
            with _interruptions() as interrupted:
                reply = self._failure or _measured(call)
            done(reply)
            if interrupted:
                raise KeyboardInterrupt

    def kill(self) -> None:
        """Cannot end its own caller."""

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

    def record(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        handler(number, frame)

    signal.signal(signal.SIGINT, record)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, handler)
