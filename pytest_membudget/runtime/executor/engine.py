"""Builds the parts of an executor and joins them; ends them when the interpreter does."""

from __future__ import annotations

import importlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

from pytest_membudget.measurement.system.limit import memory_reading
from pytest_membudget.records.measurement import MemoryReading
from pytest_membudget.records.run import Level
from pytest_membudget.runtime.executor.admission import Admission, Budget
from pytest_membudget.runtime.executor.concurrency import Concurrency
from pytest_membudget.runtime.executor.dispatcher import Dispatcher, Ending
from pytest_membudget.runtime.executor.floor import Floor
from pytest_membudget.runtime.executor.handover import Handover
from pytest_membudget.runtime.executor.inline import Inline
from pytest_membudget.runtime.executor.journal import Journal
from pytest_membudget.runtime.executor.learning import FileEstimators, FunctionPeaks
from pytest_membudget.runtime.executor.levels import Levels
from pytest_membudget.runtime.executor.line import Line
from pytest_membudget.runtime.executor.placement import Placement
from pytest_membudget.runtime.executor.policy import ExecutorPolicy
from pytest_membudget.runtime.executor.replies import Rules
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.prediction.estimator import MemoryEstimator
from pytest_membudget.runtime.workers.fork_server import end_loading
from pytest_membudget.runtime.workers.in_process import SequentialLauncher, ThreadLauncher
from pytest_membudget.runtime.workers.pool import Crew
from pytest_membudget.runtime.workers.process import ProcessLauncher
from pytest_membudget.runtime.workers.protocol import ClusterLauncher, Launcher
from pytest_membudget.runtime.workers.slot import Replied

Initializer = Callable[..., object]


class Settings(NamedTuple):
    """What the caller asked for, checked."""

    max_workers: int
    most_in_cluster: int | None
    max_in_flight: int | None
    budget_bytes: int | None
    estimator: MemoryEstimator
    learns_by_kind: bool  # whether each kind of file gets an estimator like that one
    policy: ExecutorPolicy
    levels: tuple[Level, ...]
    context: BaseContext | None
    initializer: Initializer | None
    initargs: tuple[Any, ...]
    dask: Any = None
    reading: Callable[[], MemoryReading] = memory_reading


class Engine:
    """The running parts behind one executor. Knows nothing of the executor, so that that can be collected."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.journal = Journal()
        self.peaks = FunctionPeaks()
        self.estimators = FileEstimators(settings.estimator, by_kind=settings.learns_by_kind)
        policy = settings.policy
        self.budget = Budget(settings.budget_bytes, policy, settings.reading, time.monotonic)
        self.admission = Admission(self.budget, policy)
        self._rules = Rules(
            retries=policy.retries,
            start_timeout_s=policy.start_timeout_s,
            largest_bytes=self._largest_bytes,
            note=self.journal.note,
            clock=self.journal.elapsed_s,
        )
        cluster = _cluster(settings, self.journal) if "dask" in settings.levels else None
        local = [_launcher(level, settings) for level in settings.levels if level != "dask"]
        self._launchers: list[Launcher] = [*([] if cluster is None else [cluster]), *local]
        self.crew = Crew(
            Levels(self._launchers, self.journal.note, self.journal.elapsed_s),
            policy.max_tasks_per_child,
            settings.estimator.base_bytes,
            cluster,
        )
        self.placement = Placement(self.crew, policy, time.monotonic)
        self.dispatcher = Dispatcher(self._floor, self._rules)
        self._inline: Inline | None = None
        self._is_started = False
        self._is_shut = False
        self._owner_pid = os.getpid()
        self._lock = threading.Lock()
        _ENGINES.add(self)

    @property
    def is_shut(self) -> bool:
        """Whether no more tasks are taken."""
        return self._is_shut

    @property
    def most_workers(self) -> int:
        """How many tasks may run at once where they run now."""
        if not self.crew.in_cluster:
            return self.settings.max_workers
        lent = max(1, len(self.crew.posts))
        return lent if self.settings.most_in_cluster is None else min(lent, self.settings.most_in_cluster)

    def budget_now_bytes(self) -> int:
        """What tasks may take together now: in a cluster, what its workers offer."""
        if self.crew.in_cluster:
            return sum(post.lent.capacity_bytes for post in list(self.crew.posts) if post.lent is not None)
        return self.budget.now_bytes(self.dispatcher.floor.own_bytes)

    def submit(self, task: Task) -> None:
        """Takes a task; runs it here where the level is sequential.

        Raises:
            RuntimeError: it was shut down, or belongs to the process that this one was forked from.
            BrokenExecutor: the initializer failed.
            KeyboardInterrupt: Ctrl-C while it ran here.
        """
        if os.getpid() != self._owner_pid:
            raise RuntimeError(
                f"this FallbackExecutor belongs to process {self._owner_pid}, which {os.getpid()} was forked from: "
                "its workers and threads are there; make one in each process, after the fork"
            )
        with self._lock:
            if self._is_shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            broken = self.dispatcher.floor.line.broken or (self._inline and self._inline.broken)
            if broken:
                raise broken
            inline = self._ready()
            if inline is None:
                self.dispatcher.submit(task)
        if inline is not None:
            inline.run(task)

    def close(self, *, wait: bool, cancel: bool = False, kill: bool = False) -> None:
        """Takes no more tasks and ends, as the standard library's executors do; `kill` does not let tasks finish."""
        with self._lock:
            self._is_shut = True
            if self._is_started:
                self.dispatcher.close(Ending(cancel, kill))
                if kill:
                    end_loading()  # the dispatcher may be waiting for it
        if wait and self._is_started:
            self.dispatcher.join()

    def _ready(self) -> Inline | None:
        """Starts the dispatcher's thread, once; the inline level where there is none or that is where we are."""
        if self._inline is None and self.crew.level != "sequential" and not self._is_started:
            try:
                self.dispatcher.start()
                self._is_started = True
            except RuntimeError as error:
                sequential = next((each for each in self._launchers if each.level == "sequential"), None)
                if sequential is None:
                    raise
                self.crew.levels.fall_to(sequential, str(error))
        if self._inline is None and self.crew.level == "sequential":
            launcher = SequentialLauncher(self.settings.initializer, self.settings.initargs)
            self._inline = Inline(launcher, self.admission, self._rules)
        return self._inline

    def _largest_bytes(self) -> int:
        """The most that one task can be charged."""
        return self.placement.largest_bytes if self.crew.in_cluster else self.budget.largest_bytes

    def _floor(self, report: Callable[[Replied], None]) -> Floor:
        return Floor(
            Line(self.admission, self.placement, self.crew),
            Handover(self.crew, self.settings.max_in_flight, report),
            Concurrency(self.settings.max_workers, self.settings.policy.recover_after),
            most_in_cluster=self.settings.most_in_cluster,
            degraded_threads=self.settings.policy.degraded_threads,
        )


def _launcher(level: Level, settings: Settings) -> Launcher:
    match level:
        case "process":
            return ProcessLauncher(
                settings.context,
                settings.initializer,
                settings.initargs,
                start_timeout_s=settings.policy.start_timeout_s,
            )
        case "thread":
            return ThreadLauncher(settings.initializer, settings.initargs)
        case _:
            return SequentialLauncher(settings.initializer, settings.initargs)


def _cluster(settings: Settings, journal: Journal) -> ClusterLauncher:
    from pytest_membudget.runtime.cluster.launcher import DaskLauncher

    return DaskLauncher(
        settings.dask,
        tell=journal.tell_of_host,
        budget_bytes=settings.budget_bytes,
        sent_bytes=settings.policy.sent_bytes,
        start_timeout_s=settings.policy.start_timeout_s,
        initializer=settings.initializer,
        initargs=settings.initargs,
    )


_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


def _finish_at_exit() -> None:
    """What was submitted is finished before the interpreter ends, as with the standard library's executors."""
    for engine in list(_ENGINES):
        engine.close(wait=True)


def _register_at_exit() -> None:
    """Before the hooks of the standard library's pools, which take no more calls once their turn has come.

    Hooks run in reverse order, so those two modules must have registered theirs already.
    """
    for pool in ("process", "thread"):
        importlib.import_module(f"concurrent.futures.{pool}")
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        register(_finish_at_exit)
    else:
        import atexit

        atexit.register(_finish_at_exit)


_register_at_exit()
