"""Threads: for small batches, and where processes cannot be started.

A thread shares the coordinator's memory and cannot be ended from outside. So at this level a task past its time is
reported but goes on until it returns, its memory stays charged until then, a peak cannot be told apart from its
neighbours', and a task that exhausts memory takes the coordinator with it.
"""

from __future__ import annotations

import queue
import threading
import time

from pytest_membudget.records.run import Level
from pytest_membudget.runtime.workers.in_process import LocalLauncher, LocalWorker, Prepare, run_here
from pytest_membudget.runtime.workers.protocol import Call, CannotStartError, Delay, Done

_Item = tuple[Call, Done] | None


class ThreadLauncher(LocalLauncher):
    """Starts worker threads."""

    level: Level = "thread"

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

    def send(self, call: Call, done: Done) -> None:
        """Queues the call."""
        self._calls.put((call, done))

    def started_at(self, sequence: int) -> float | None:
        """When the thread began that call."""
        return self._started.get(sequence)

    def delay(self, sequence: int) -> Delay | None:
        """The initializer, until it has returned."""
        return None if self._is_ready.is_set() else Delay("initializer", self._born_s)

    def kill(self) -> bool:
        """A thread cannot be ended: it is left to itself."""
        self._abandoned = True
        self._calls.put(None)
        return False

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
