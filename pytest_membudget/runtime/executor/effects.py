"""Carries out what a scheduler has decided, in order: workers start and end, calls are sent, futures get their results."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from pytest_membudget.records.run import Level
from pytest_membudget.runtime.executor.journal import Journal
from pytest_membudget.runtime.executor.scheduler import Scheduler
from pytest_membudget.runtime.executor.state import (
    Effect,
    Finish,
    Forget,
    Kill,
    Record,
    Send,
    Slot,
    Start,
    Stop,
    Submission,
    Task,
)
from pytest_membudget.runtime.workers.protocol import (
    Call,
    CannotStartError,
    ClusterLauncher,
    ClusterWorker,
    Done,
    Launcher,
    Reply,
    Worker,
)

_logger = logging.getLogger("pytest_membudget.runtime")


class TaskFuture(Future[Any]):
    """The future of a task. It notifies the driver when it is cancelled, without a callback that would refer to the task."""

    def __init__(self, notify: Callable[[TaskFuture], None] | None = None) -> None:
        super().__init__()
        self._notify = notify
        self._has_begun: bool | None = None
        self.task: Task | None = None

    def cancel(self) -> bool:
        """As in `concurrent.futures`."""
        is_cancelled = super().cancel()
        if is_cancelled and self._notify is not None:
            self._notify(self)
        return is_cancelled

    def begin(self) -> bool:
        """Marks it as running, once; False where it was cancelled. Only the driver calls this."""
        if self._has_begun is None:
            self._has_begun = self.set_running_or_notify_cancel()
        return self._has_begun


@dataclass(slots=True)
class Connection:
    """A worker, and how many calls it was sent (by the driver) and has answered (in a thread of its own)."""

    worker: Worker
    sent: int = 0
    answered: int = 0


class Effects:
    """Carries effects out, in order. A defect of ours in one of them reaches the caller; those after it stay.

    Args:
        scheduler: decides.
        launchers: that of each level.
        journal: keeps events.
        receive: gets each reply of a worker, in any thread, with the number of its call.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        launchers: Mapping[Level, Launcher],
        journal: Journal,
        receive: Callable[[Slot, Connection, int, Reply], None],
    ) -> None:
        self.scheduler = scheduler
        self.connections: dict[Slot, Connection] = {}
        self._launchers = launchers
        self._journal = journal
        self._receive = receive
        self._queue: deque[Effect] = deque()
        self._leaving: dict[Slot, Worker] = {}

    def carry_out(self) -> None:
        """Has the scheduler decide, and does so."""
        self._queue.extend(self.scheduler.decide(time.monotonic()))
        while self._queue:
            self._carry_out(self._queue.popleft())
            if not self._queue:
                self._queue.extend(self.scheduler.decide())

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Finish(submission=submission, value=value, error=error):
                resolve(submission, value, error)
            case Send():
                self._send(effect)
            case Start(slot=slot):
                self._start(slot)
            case Kill(slot=slot):
                if (connection := self.connections.get(slot)) is not None:
                    connection.worker.kill()
            case Stop() | Forget():
                self._let_go(effect)
            case Record(kind=kind, level=level, cause=cause, next_step=next_step, is_logged=is_logged):
                self._journal.record(kind, level, cause, next_step, is_logged=is_logged)

    def _start(self, slot: Slot) -> None:
        if slot.is_gone:
            return
        try:
            worker = self._launchers[slot.backend.level].start()
        except CannotStartError as error:
            self.scheduler.start_failed(slot, str(error))
        else:
            self.connections[slot] = Connection(worker)
            self.scheduler.pool.started(slot)

    def _send(self, effect: Send) -> None:
        slot, connection = effect.slot, self.connections.get(effect.slot)
        if connection is None:
            return  # it could not be started; the scheduler knows, and sends the tasks elsewhere
        calls: list[tuple[Call, Done]] = []
        for task, sequence in effect.calls:
            submission = task.submission
            if submission is None or task.sequence != sequence:
                continue
            if not cast("TaskFuture", submission.future).begin():
                self.scheduler.cancelled(task)
                continue
            connection.sent += 1
            call = Call(
                sequence,
                submission.fn,
                submission.args,
                submission.kwargs,
                charged_bytes=task.charged_bytes,
                is_file=task.is_file,
                exact=task.exact,
                limit_bytes=task.kernel_limit_bytes,
            )
            calls.append((call, partial(self._receive, slot, connection, sequence)))
        if calls:
            connection.worker.send(calls)

    def _let_go(self, effect: Stop | Forget) -> None:
        connection = self.connections.pop(effect.slot, None)
        if connection is None:
            return
        if isinstance(effect, Stop):
            connection.worker.retire()
        elif effect.renew:
            cast("ClusterWorker", connection.worker).renew()
        self._leaving[effect.slot] = connection.worker

    def let_go_of_ended(self) -> None:
        """Reports to the scheduler the workers that were stopped and have ended since."""
        for slot in [slot for slot, worker in self._leaving.items() if worker.has_ended()]:
            del self._leaving[slot]
            self.scheduler.pool.ended(slot)

    def close(self, *, kill: bool) -> None:
        """Ends every worker and waits for that."""
        workers = [connection.worker for connection in self.connections.values()]
        for worker in workers:
            if kill:
                worker.kill()
            worker.retire()
        for worker in (*self._leaving.values(), *workers):
            worker.join()
        self.connections.clear()
        self._leaving.clear()
        if (cluster := self._launchers.get("dask")) is not None:
            cast("ClusterLauncher", cluster).close()


def resolve(submission: Submission, value: Any, error: BaseException | None) -> None:
    """Gives the caller the result or the exception."""
    future = cast("TaskFuture", submission.future)
    if not future.begin():
        return
    try:
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
    except InvalidStateError:
        _logger.debug("a future was resolved by its holder")
    except BaseException:  # a callback of the user's; it must not end the thread that serves all calls
        _logger.exception("a callback of a future raised")
