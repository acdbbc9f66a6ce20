"""The thread that owns the floor. Callers and workers only put events into its queue.

The queue is a `SimpleQueue`, which never blocks and may be used from a future's callback, and no lock is held while
anything happens: a callback that runs inline, because its future is done already, finds nothing to wait for.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from pytest_membudget.errors import WorkerKilledError
from pytest_membudget.runtime.executor.aftermath import Aftermath
from pytest_membudget.runtime.executor.floor import Floor
from pytest_membudget.runtime.executor.line import refuse
from pytest_membudget.runtime.executor.replies import Rules
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.executor.watch import Watch
from pytest_membudget.runtime.workers.protocol import Returned
from pytest_membudget.runtime.workers.slot import Replied

_logger = logging.getLogger("pytest_membudget.runtime")

TICK_S = 0.1
"""Seconds between two looks at the running workers."""

WATCHED_TICK_S = 0.01
"""The same while somebody records where memory goes, or while replies may lie here unannounced."""

PATIENCE_S = 0.5
"""Seconds that a caller waits in one piece: a Ctrl-C that comes just before a wait counts only when that wait ends."""


class Ending(NamedTuple):
    """How to end: after all that was submitted, or without what has not started, or at once."""

    cancel: bool = False
    kill: bool = False


class Dispatcher:
    """Runs tasks until it is closed."""

    def __init__(self, make_floor: Callable[[Callable[[Replied], None]], Floor], rules: Rules) -> None:
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._arrivals: deque[Task] = deque()
        self._replies: deque[Replied] = deque()
        self._is_hungry = True
        self._has_stopped = False
        self.floor = make_floor(self._take_in)
        self._aftermath = Aftermath(self.floor, rules)
        self._watch = Watch(self.floor, rules)
        self._ending: Ending | None = None
        self._look_at_s = 0.0
        self._watch_at_s = 0.0
        self._thread = threading.Thread(target=self._run, name="membudget-dispatcher", daemon=True)
        self.observers: list[Callable[[], None]] = []

    def start(self) -> None:
        """Starts the thread.

        Raises:
            RuntimeError: no thread can be started.
        """
        self._thread.start()

    def submit(self, task: Task) -> None:
        """Puts `task` at the end of the line. The thread is not woken while it could not start it anyway."""
        self._arrivals.append(task)
        if self._is_hungry:
            self._events.put(None)
        task.future.add_done_callback(partial(self._note_cancelled, task))
        if self._has_stopped:
            self._refuse_arrivals()

    def close(self, ending: Ending) -> None:
        """Ends as `ending` says; does not wait."""
        self._events.put(ending)

    def wake(self) -> None:
        """Has the thread look at its workers now, and not at its next tick."""
        self._events.put(None)

    def join(self) -> None:
        """Waits for the thread, unless this is it."""
        while self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(PATIENCE_S)

    def _take_in(self, replied: Replied) -> None:
        """From a worker's thread. The dispatcher is not woken while that worker has enough to do, if all is well."""
        post = replied.post
        post.answered += 1
        self._replies.append(replied)
        if len(post.in_flight) - post.answered <= self.floor.handover.pace.enough or not isinstance(
            replied.reply, Returned
        ):
            self._events.put(None)

    def _note_cancelled(self, task: Task, future: object) -> None:
        if task.future.cancelled():
            self._events.put(partial(self.floor.line.withdraw, task))

    # What follows runs in the thread.

    def _run(self) -> None:
        kill = True
        try:
            while not self._is_over():
                self._take_events()
                self._dispatch()  # a worker that is free should not wait for a look at the others
                self._look_when_due()
            kill = self._ending is not None and self._ending.kill
        except BaseException as error:  # a defect of ours: no future may be left waiting for ever
            _logger.exception("the dispatcher stopped")
            self.floor.end_with(error)
        finally:
            self._has_stopped = True
            self._refuse_arrivals()
            self.floor.crew.close(kill=kill)

    def _refuse_arrivals(self) -> None:
        while self._arrivals:
            with contextlib.suppress(IndexError):  # whoever submits and the thread that ends may both be here
                task = self._arrivals.popleft()
                refuse(task, self.floor.line.broken or RuntimeError("the executor has ended"))

    def _dispatch(self) -> None:
        while self._replies:
            replied = self._replies.popleft()
            replied.post.answered -= 1
            self._aftermath.replied(*replied)
            del replied
        while self._arrivals:
            self.floor.line.accept(self._arrivals.popleft())
        self.floor.dispatch()
        self._is_hungry = self.floor.is_hungry

    def _look_when_due(self) -> None:
        if (now_s := time.monotonic()) < self._look_at_s:
            return
        if now_s >= self._watch_at_s or self.observers:
            due_s = self._watch.look(now_s)
            self._watch_at_s = now_s + TICK_S if due_s is None else min(due_s, now_s + TICK_S)
        for observer in self.observers:
            observer()
        often = self.observers or self.floor.handover.pace.enough > 1
        self._look_at_s = min(self._watch_at_s, now_s + (WATCHED_TICK_S if often else TICK_S))

    def _is_over(self) -> bool:
        if self._ending is None or self.floor.crew.busy() or self.floor.line.has_waiting:
            return False
        return self._events.empty() and not self._arrivals and not self._replies

    def _take_events(self) -> None:
        try:
            self._take(self._events.get(timeout=self._patience_s()))
            while True:
                self._take(self._events.get_nowait())
        except queue.Empty:
            return

    def _patience_s(self) -> float | None:
        """How long nothing needs a look; `None` for as long as nothing happens."""
        if self._arrivals and self._is_hungry:
            return 0.0  # came between the last look at them and the flag that has them announced
        if self.floor.crew.busy() == 0 and not self.floor.line.has_waiting and not self.observers:
            return None
        return max(0.0, self._look_at_s - time.monotonic())

    def _take(self, event: Any) -> None:
        match event:
            case Ending():
                self._end(event)
            case None:
                pass
            case _:
                event()

    def _end(self, ending: Ending) -> None:
        self._dispatch()  # what was submitted before the end has its chance to start
        self._ending = ending
        if ending.cancel:
            self.floor.line.cancel_waiting()
        if ending.kill:
            self.floor.end_with(WorkerKilledError("the executor was ended while this task ran"))
