"""Brings events to a scheduler, and has its effects carried out. Nothing is decided here.

`Driver` is one thread that owns the scheduler; callers and workers only put events into its queue. That is a `SimpleQueue`, which
never blocks and may be used from a future's callback, and no lock is held while anything happens: a callback that
runs inline, because its future is done already, finds nothing to wait for. `CallerDriver` does the same in the thread that
submits: the sequential level.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, cast

from pytest_membudget.errors import WorkerKilledError
from pytest_membudget.records.run import HostUse, Level
from pytest_membudget.runtime.admission.budgets import PressureGate
from pytest_membudget.runtime.admission.host_share import SHARE_POLL_S, SURPLUS_S, AnyBudget, HostShare
from pytest_membudget.runtime.executor.effects import Connection, Effects, TaskFuture, resolve
from pytest_membudget.runtime.executor.journal import HeapLog, Journal
from pytest_membudget.runtime.executor.placement import Demand
from pytest_membudget.runtime.executor.scheduler import Scheduler
from pytest_membudget.runtime.executor.state import Backend, Replied, Slot, Task
from pytest_membudget.runtime.workers.protocol import (
    CannotStartError,
    ClusterLauncher,
    ClusterWorker,
    Launcher,
    NoWorkerYetError,
    Reading,
    Reply,
    Returned,
    Worker,
)

_logger = logging.getLogger("pytest_membudget.runtime")

TICK_S = 0.1
"""Seconds between two readings of the running workers."""

LIMIT_TICK_S = 0.02
"""The same while a task with a limit runs: at 400 MB a second it grows by 8 MB between two readings."""

WATCHED_TICK_S = 0.01
"""The same while a batch records where memory goes, or while replies may have come that the thread was not woken for."""

WAIT_PIECE_S = 0.5
"""Seconds that a caller waits in one piece: a Ctrl-C that comes just before a wait counts only when that wait ends."""


class Ending(NamedTuple):
    """How to end: after all that was submitted, or without what has not started, or at once."""

    cancel: bool = False
    kill: bool = False


class Driver:
    """The thread that owns a scheduler, until it is closed."""

    def __init__(
        self, scheduler: Scheduler, launchers: Mapping[Level, Launcher], budget: AnyBudget, journal: Journal
    ) -> None:
        self.scheduler = scheduler
        self.heap_log = HeapLog()
        #: called with what was read about a hundred times a second while there are any, in the driver's thread
        self.observers: list[Callable[[Iterable[Reading]], None]] = []
        self._launchers = launchers
        self._budget = budget
        self._gate = PressureGate()
        self._share = budget.share
        self._effects = Effects(scheduler, launchers, journal, self._receive)
        self._events: queue.SimpleQueue[TaskFuture | Ending | None] = queue.SimpleQueue()
        self._arrivals: deque[Task] = deque()
        self._replies: deque[Replied] = deque()
        self._can_accept = True
        self._has_stopped = False
        self._ending: Ending | None = None
        #: what was read last of each worker
        self._latest: dict[Slot, Reading] = {}
        self._observe_at_s = 0.0
        self._read_at_s = 0.0
        self._thread = threading.Thread(target=self._run, name="membudget-driver", daemon=True)

    def start(self) -> None:
        """Starts the thread.

        Raises:
            RuntimeError: no thread can be started.
        """
        self._thread.start()

    def submit(self, task: Task) -> None:
        """Brings a task. The thread is not woken while it could not start it anyway."""
        self._arrivals.append(task)
        if self._can_accept:
            self._events.put(None)
        if self._has_stopped:
            self._refuse_arrivals()

    def cancelled(self, future: TaskFuture) -> None:
        """A future was cancelled, in any thread."""
        self._events.put(future)

    def close(self, ending: Ending) -> None:
        """Ends as `ending` says; does not wait."""
        self._events.put(ending)

    def wake(self) -> None:
        """Has the thread read its workers now, and not at its next tick."""
        self._events.put(None)

    def join(self) -> None:
        """Waits for the thread, unless this is it."""
        while self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(WAIT_PIECE_S)

    def readings(self) -> list[Reading]:
        """What each worker holds now; from any thread."""
        return [connection.worker.reading() for connection in list(self._effects.connections.values())]

    def added_bytes(self) -> int:
        """What the workers hold above bare ones."""
        return sum((reading.base_bytes or 0) + reading.held_bytes for reading in self.readings())

    def hosts(self) -> tuple[HostUse, ...]:
        """What was used of each machine of a cluster."""
        cluster = self._launchers.get("dask")
        return () if cluster is None else cast("ClusterLauncher", cluster).hosts()

    def _receive(self, slot: Slot, connection: Connection, sequence: int, reply: Reply) -> None:
        """From a worker's thread. The driver is not woken while that worker has enough to do, if all is well."""
        connection.answered += 1
        self._replies.append((slot, sequence, reply))
        refill_at = self.scheduler.pool.throughput.refill_at
        if connection.sent - connection.answered <= refill_at or not isinstance(reply, Returned):
            self._events.put(None)

    # What follows runs in the thread.

    def _run(self) -> None:
        kill = True
        try:
            while not self._is_over():
                self._handle_events()
                self._step()  # a worker that is free should not wait for a reading of the others
                self._read_when_due()
            kill = self._ending is not None and self._ending.kill
        except BaseException as error:  # a defect of ours: no future may be left waiting for ever
            _logger.exception("the executor stopped")
            self._stop_with(error)
        finally:
            self._has_stopped = True
            self._refuse_arrivals()
            self._effects.close(kill=kill)
            if self._share is not None:
                self._share.close()

    def _step(self) -> None:
        while self._replies:
            self._handle_reply(*self._replies.popleft())
        while self._arrivals:
            self.scheduler.submitted(self._arrivals[0])  # where that fails, it is refused with the others
            self._arrivals.popleft()
        self._update_cluster()
        self._effects.let_go_of_ended()
        if self.scheduler.has_waiting and not self.scheduler.levels.now.is_cluster:
            self.scheduler.pool.pressure_changed(self._gate.source if self._gate.is_closed() else "")
        if not self._budget.is_fixed and self.scheduler.has_waiting:
            now_bytes = self._budget.now_bytes(self.added_bytes)
            self.scheduler.budget_changed(now_bytes, self._budget.largest_bytes, self._budget.ceiling_bytes)
        self._effects.carry_out()
        if self._share is not None:
            self._adjust_share(self._share)
        self._can_accept = self.scheduler.can_accept

    def _adjust_share(self, share: HostShare) -> None:
        """Asks the host for what could start now, gives back what is not needed, and starts what was granted."""
        before_bytes = share.held_bytes
        now_bytes = share.adjust(*self.scheduler.demand(), nothing_runs=not self.scheduler.pool.busy)
        if share.is_contended and not self.scheduler.open_tasks:
            self.scheduler.pool.stop_idle()
            self._effects.carry_out()
            now_bytes = share.adjust(*self.scheduler.demand())
        if now_bytes != before_bytes:
            self.scheduler.budget_changed(now_bytes, self._budget.largest_bytes, self._budget.ceiling_bytes)
            self._effects.carry_out()

    def _handle_reply(self, slot: Slot, sequence: int, reply: Reply) -> None:
        connection = self._effects.connections.get(slot)
        if reply.figures.heap is not None and connection is not None and connection.worker.pid is not None:
            self.heap_log.record(connection.worker.pid, reply.figures.heap)
        if slot.base_bytes is None and connection is not None:
            self._record(slot, connection.worker.reading())
        self.scheduler.replied(slot, sequence, reply)

    def _record(self, slot: Slot, reading: Reading) -> None:
        self._latest[slot] = reading
        if slot.base_bytes is None and reading.base_bytes is not None:
            self.scheduler.pool.ready(slot, reading.base_bytes)

    def _update_cluster(self) -> None:
        backend = self.scheduler.levels.now
        if not backend.is_cluster:
            return
        launcher = cast("ClusterLauncher", self._launchers[backend.level])
        joined = []
        try:
            while True:
                slot = self._slot_of(backend, launcher.start())
                joined.append(slot)
        except NoWorkerYetError:
            pass
        except CannotStartError as error:
            self.scheduler.cluster_lost(backend, str(error))
            return
        capacities = {
            slot: cast("ClusterWorker", connection.worker).capacity_bytes
            for slot, connection in self._effects.connections.items()
            if slot.backend is backend
        }
        self.scheduler.pool.workers_changed(backend, joined, capacities)

    def _slot_of(self, backend: Backend, worker: ClusterWorker) -> Slot:
        slot = Slot(backend, host=worker.host, is_renewable=worker.has_nanny, is_started=True)
        self._effects.connections[slot] = Connection(worker)
        return slot

    def _read_when_due(self) -> None:
        if (now_s := time.monotonic()) < self._observe_at_s:
            return
        if now_s >= self._read_at_s or self.observers:
            self.scheduler.time_passed(now_s, self._read_workers())
            self._effects.carry_out()
            deadline_s = self.scheduler.deadline_s
            tick_s = LIMIT_TICK_S if self.scheduler.watch.has_limits else TICK_S
            self._read_at_s = now_s + tick_s if deadline_s is None else min(deadline_s, now_s + tick_s)
            for observer in self.observers:
                observer(self._latest.values())
        pool = self.scheduler.pool
        often = self.observers or pool.leaving or pool.throughput.refill_at > 1
        self._observe_at_s = min(self._read_at_s, now_s + (WATCHED_TICK_S if often else TICK_S))

    def _read_workers(self) -> dict[Slot, Reading]:
        """Reads those that have a call, or are not known to be ready. What is known of one that is idle stays."""
        connections = self._effects.connections
        self._latest = {slot: reading for slot, reading in self._latest.items() if slot in connections}
        readings = {}
        for slot, connection in connections.items():
            if slot.running or slot.base_bytes is None or slot not in self._latest:
                sequence = slot.running[0].sequence if slot.running else 0
                readings[slot] = reading = connection.worker.reading(sequence)
                self._record(slot, reading)
        return readings

    def _is_over(self) -> bool:
        if self._ending is None or self.scheduler.open_tasks:
            return False
        return self._events.empty() and not self._arrivals and not self._replies

    def _handle_events(self) -> None:
        """Waits for the first event, until a reading is due, and handles all that there are."""
        wait_s = self._wait_s()
        with contextlib.suppress(queue.Empty):
            while True:
                event = self._events.get(timeout=wait_s)
                wait_s = 0.0
                if isinstance(event, TaskFuture):
                    event.begin()  # wakes the threads that wait for it
                    if event.task is not None:
                        self.scheduler.cancelled(event.task)
                elif isinstance(event, Ending):
                    self._end(event)

    def _wait_s(self) -> float | None:
        """How long nothing needs a reading; `None` for as long as nothing happens."""
        if self._arrivals and self._can_accept:
            return 0.0  # came after the last step, and before the flag that has arrivals announced
        if not self.scheduler.open_tasks and not self.observers:
            return None if self._share is None or not self._share.held_bytes else SURPLUS_S
        return max(0.0, self._observe_at_s - time.monotonic())

    def _end(self, ending: Ending) -> None:
        self._step()  # what was submitted before the end has its chance to start
        self._ending = ending
        if ending.cancel:
            for task in self.scheduler.queue.waiting():
                if task.submission is not None:
                    task.submission.future.cancel()
        if ending.kill:
            self.scheduler.shut_down(WorkerKilledError("the executor was ended while this task ran"))

    def _stop_with(self, error: BaseException) -> None:
        """Every task gets `error`; effects that are left, and fail as well, are logged."""
        self.scheduler.shut_down(error)
        while True:
            try:
                self._effects.carry_out()
            except BaseException:  # the defect again
                _logger.exception("the executor could not end in order")
            else:
                return

    def _refuse_arrivals(self) -> None:
        error = self.scheduler.broken or RuntimeError("the executor has ended")
        while self._arrivals:
            with contextlib.suppress(IndexError):  # the thread that ends and a caller may both be here
                submission = self.scheduler.came_too_late(self._arrivals.popleft())
                if submission is not None:
                    resolve(submission, None, error)


class CallerDriver:
    """Runs each task inside `submit`, in the thread that brings it; a task may bring another one.

    Args:
        scheduler: of one worker.
        launcher: of the sequential level.
        journal: keeps events.
        share: what tasks lease from the budget of the host, where they do.
    """

    def __init__(
        self, scheduler: Scheduler, launcher: Launcher, journal: Journal, share: HostShare | None = None
    ) -> None:
        self.scheduler = scheduler
        self._share = share
        self._running_bytes = 0
        self._effects = Effects(scheduler, {"sequential": _OneWorker(launcher)}, journal, self._receive)
        self._lock = threading.RLock()

    def submit(self, task: Task) -> None:
        """Runs `task`; its future is done when this returns.

        Raises:
            KeyboardInterrupt: the user pressed Ctrl-C meanwhile.
        """
        with self._lock, self._leased(task):
            self.scheduler.submitted(task)
            self._effects.carry_out()

    @contextlib.contextmanager
    def _leased(self, task: Task) -> Iterator[None]:
        """Waits until the host has granted what the task takes; not inside another task, which could be what it waits for."""
        if self._share is None:
            yield
            return
        running_bytes = self._running_bytes
        task_bytes = min(task.charge.expected_bytes() or 0, self._share.ceiling_bytes)
        asked = Demand(running_bytes, task_bytes, running_bytes + task_bytes)
        try:
            while (
                self._share.adjust(*asked, nothing_runs=not running_bytes) < task_bytes and not running_bytes
            ):
                time.sleep(SHARE_POLL_S)
            self._running_bytes += task_bytes
            yield
        finally:
            self._running_bytes = running_bytes
            if not running_bytes:
                self._share.give_back()

    def _receive(self, slot: Slot, _: Connection, sequence: int, reply: Reply) -> None:
        self.scheduler.replied(slot, sequence, reply)
        self._effects.carry_out()


class _OneWorker:
    """A launcher whose worker is started once, however deep tasks bring tasks: its initializer runs once."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._worker: Worker | None = None

    def start(self) -> Worker:
        if self._worker is None:
            self._worker = self._launcher.start()
        return self._worker
