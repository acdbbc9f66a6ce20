"""Builds the parts of an executor and joins them; ends them when the interpreter does."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.context import BaseContext
from typing import Any, Literal, NamedTuple

from pytest_membudget.errors import UnreadableFileError, size_of
from pytest_membudget.measurement.process.children import ancestors
from pytest_membudget.measurement.system.machine import memory_reading
from pytest_membudget.records.measurement import MemoryReading
from pytest_membudget.records.run import FileCategory, Level
from pytest_membudget.runtime.admission.budgets import RESERVE_SHARE, Budget
from pytest_membudget.runtime.admission.host_scope import HostScope
from pytest_membudget.runtime.admission.host_share import AnyBudget, GroupShare, HostShare, SharedBudget
from pytest_membudget.runtime.executor.charges import (
    Charged,
    ChargeRule,
    FileEstimators,
    FunctionPeaks,
    Memory,
    SizeOf,
    function_key,
)
from pytest_membudget.runtime.executor.cluster_placement import TOGETHER, ClusterPlacement
from pytest_membudget.runtime.executor.driver import CallerDriver, Driver, Ending
from pytest_membudget.runtime.executor.effects import TaskFuture
from pytest_membudget.runtime.executor.flow_control import WINDOW
from pytest_membudget.runtime.executor.journal import Journal
from pytest_membudget.runtime.executor.local_memory import LocalMemory
from pytest_membudget.runtime.executor.local_placement import LocalPlacement
from pytest_membudget.runtime.executor.placement import CallerPlacement
from pytest_membudget.runtime.executor.policy import ExecutorPolicy
from pytest_membudget.runtime.executor.scheduler import Scheduler
from pytest_membudget.runtime.executor.state import Backend, Submission, Task
from pytest_membudget.runtime.prediction.estimator import MemoryEstimator
from pytest_membudget.runtime.prediction.profiles import Profiles
from pytest_membudget.runtime.workers.in_process import SequentialLauncher, ThreadLauncher
from pytest_membudget.runtime.workers.process import ProcessLauncher
from pytest_membudget.runtime.workers.protocol import ClusterLauncher, Launcher

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
    host_name: str | None = None  # the budget of this host to lease from


class CallOptions(NamedTuple):
    """The options of these calls: charges as in `ChargeRule`, and limits where they differ from the policy's."""

    memory: Memory | None = None
    size_bytes: SizeOf | None = None
    #: a size, or as a float the factor of the charge
    limit: int | float | None = None
    #: seconds; None for no limit
    timeout_s: float | Literal["policy"] | None = "policy"


class Engine:
    """The running parts behind one executor. Knows nothing of the executor, so that that can be collected."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.journal = Journal()
        self.peaks = FunctionPeaks()
        self.estimators = FileEstimators(settings.estimator, by_kind=settings.learns_by_kind)
        self.profiles = Profiles() if settings.policy.profiles else None
        self._task_limit = settings.policy.task_limit
        self.budget = _budget(settings)
        self.scheduler = Scheduler(
            _backends(settings, self.budget),
            settings.policy,
            max_workers=settings.max_workers,
            max_in_flight=settings.max_in_flight or sys.maxsize,
        )
        self.driver = Driver(self.scheduler, _Launchers(settings, self.journal), self.budget, self.journal)
        self._caller: CallerDriver | None = None
        self._is_started = False
        #: no more tasks are taken
        self.is_shut = False
        self._owner_pid = os.getpid()
        self._lock = threading.Lock()
        _ENGINES.add(self)

    @property
    def level(self) -> Level:
        """Where tasks run now."""
        return self.scheduler.levels.now.level if self._caller is None else "sequential"

    @property
    def most_workers(self) -> int:
        """How many tasks may run at once where they run now."""
        pool = self.scheduler.pool
        if not pool.levels.now.is_cluster:
            return pool.concurrency.most
        workers = max(1, len(pool.slots))
        most = self.settings.most_in_cluster
        return workers if most is None else min(workers, most)

    def budget_now_bytes(self) -> int:
        """What tasks may take together now: in a cluster, what its workers offer."""
        if self.scheduler.levels.now.is_cluster:
            return sum(slot.capacity_bytes for slot in list(self.scheduler.pool.slots))
        if self.budget.share is not None:  # what is held of it moves with every task
            return self.budget.largest_bytes
        return self.budget.now_bytes(self.driver.added_bytes)

    def list_window(self) -> int:
        """How many inputs of a list may be submitted and unread: all of them are known, so enough for the ledger to choose from."""
        return max(2 * WINDOW, TOGETHER * self.most_workers)

    def lazy_window(self) -> int:
        """How many lazily drawn inputs may be submitted and unread: one is drawn when a worker is about to need it."""
        pool = self.scheduler.pool
        # At first those of a cluster have yet to join.
        workers = max(self.most_workers, pool.concurrency.most)
        return self.settings.max_in_flight or workers * pool.throughput.drawn_ahead

    def charge_rule(self, options: CallOptions) -> ChargeRule:
        """How the inputs of a call are charged.

        Raises:
            UsageError: a size that was said of all of them is none.
        """
        memory, size_bytes = options.memory, options.size_bytes
        if memory is not None and not callable(memory) and not isinstance(memory, MemoryEstimator):
            size_of("memory", memory)
        if size_bytes is not None and not callable(size_bytes):
            size_of("size_bytes", size_bytes)
        return ChargeRule(self.peaks, self.estimators, self.settings.estimator, memory, size_bytes)

    def task(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        charged: Charged,
        options: CallOptions,
        *,
        is_input: bool = False,
        prefers_thread: bool = False,
    ) -> Task:
        """A task with its future, not submitted yet.

        `is_input`: of `run` or `stream`. Its own peak is wanted, the size of its file gives it a time limit, and where that is
        large a worker of its own.
        """
        policy = self.settings.policy
        file_bytes = charged.size_bytes if is_input else None
        is_large = file_bytes is not None and policy.classes.category(file_bytes) is FileCategory.LARGE
        future = TaskFuture(self.driver.cancelled)
        task = Task(
            Submission(fn, args, kwargs, future),
            charged.charge,
            timeout_s=policy.time_limit_s(file_bytes) if options.timeout_s == "policy" else options.timeout_s,
            limit=self._task_limit if options.limit is None else options.limit,
            profile=None if self.profiles is None else self.profiles.of(function_key(fn), charged.size_bytes),
            is_file=is_input and charged.is_file,
            exact=is_input,
            fresh_worker=is_large,
            prefers_thread=prefers_thread and not is_large,
            estimate_bytes=charged.charge.expected_bytes() if is_input else None,
        )
        future.task = task
        return task

    def submit(self, task: Task, when_done: Callable[[Future[Any]], object] | None = None) -> Future[Any]:
        """Queues a task; runs it here where the level is sequential. `when_done` is a callback of its future.

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
        if task.submission is None:
            raise ValueError("this task is done already")
        future = task.submission.future
        if when_done is not None:
            future.add_done_callback(when_done)
        with self._lock:
            if self.is_shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            broken = self.scheduler.broken or (self._caller and self._caller.scheduler.broken)
            if broken:
                raise broken
            caller = self._ready()
            if caller is None:
                self.driver.submit(task)
        if caller is not None:
            caller.submit(task)
        return future

    def close(self, *, wait: bool, cancel: bool = False, kill: bool = False) -> None:
        """Takes no more tasks and ends, as the standard library's executors do; `kill` does not let tasks finish."""
        with self._lock:
            self.is_shut = True
            if self._is_started:
                self.driver.close(Ending(cancel, kill))
            elif self.budget.share is not None:
                self.budget.share.close()
        if wait and self._is_started:
            self.driver.join()

    def _ready(self) -> CallerDriver | None:
        """Starts the driver's thread, once; the caller's driver where there is none or that is where we are."""
        if self._caller is None and self.level != "sequential" and not self._is_started:
            try:
                self.driver.start()
                self._is_started = True
            except RuntimeError as error:
                if "sequential" not in self.settings.levels:
                    raise
                cause = f"no {self.level} worker can be started: {error}"
                next_step = "continues with level 'sequential'"
                self.journal.record("fallback", self.level, cause, next_step, is_logged=True)
                self._caller = self._caller_driver()
        if self._caller is None and self.level == "sequential":
            self._caller = self._caller_driver()
        return self._caller

    def _caller_driver(self) -> CallerDriver:
        settings = self.settings
        backend = Backend("sequential", CallerPlacement(self.budget.largest_bytes), own_memory=False)
        scheduler = Scheduler([backend], settings.policy, max_workers=1)
        launcher = SequentialLauncher(settings.initializer, settings.initargs)
        return CallerDriver(scheduler, launcher, self.journal, self.budget.share)


def _budget(settings: Settings) -> AnyBudget:
    target_memory = settings.policy.target_memory
    if settings.host_name is not None:
        return SharedBudget(HostShare(_scope(settings, settings.host_name)))
    if settings.budget_bytes is None and not settings.policy.profiles:
        limit = settings.reading().limit
        if limit.source.startswith("cgroup"):
            with contextlib.suppress(OSError, UnreadableFileError), contextlib.ExitStack() as on_failure:
                scope = _scope(settings, limit.source)
                on_failure.callback(scope.close)
                if not scope.is_within(ancestors(os.getpid())):
                    on_failure.pop_all()
                    return SharedBudget(GroupShare(scope), limit.bytes)
    return Budget(settings.budget_bytes, target_memory, settings.reading, time.monotonic)


def _scope(settings: Settings, name: str) -> HostScope:
    return HostScope(
        settings.budget_bytes,
        name=name,
        reserve=max(RESERVE_SHARE, 1 - settings.policy.target_memory),
        max_overtakes=settings.policy.max_overtakes,
        reading=settings.reading,
    )


def _backends(settings: Settings, budget: AnyBudget) -> list[Backend]:
    """The levels, each with what the scheduler has to know about it: the one place that does."""
    policy, base_bytes = settings.policy, settings.estimator.base_bytes
    memory = LocalMemory(
        budget.largest_bytes,
        max_overtakes=policy.max_overtakes,
        base_bytes=base_bytes,
        has_initializer=settings.initializer is not None and "process" in settings.levels,
        is_shared=budget.share is not None,
    )
    here = LocalPlacement(memory)

    def backend(level: Level) -> Backend:
        match level:
            case "dask":
                cluster = ClusterPlacement(most=settings.most_in_cluster, base_bytes=base_bytes)
                return Backend(level, cluster, own_memory=True)
            case "process":
                return Backend(level, here, own_memory=True)
            case "thread":
                return Backend(level, here, own_memory=False, most_after_fallback=policy.degraded_threads)
            case "sequential":
                return Backend(level, here, own_memory=False, most_after_fallback=1)

    return [backend(level) for level in settings.levels]


class _Launchers(dict[Level, Launcher]):
    """That of the first level, and those below it once the executor has come down to them."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        super().__init__()
        self._settings = settings
        self._journal = journal
        self[settings.levels[0]] = _launcher(settings.levels[0], settings, journal)

    def __missing__(self, level: Level) -> Launcher:
        launcher = self[level] = _launcher(level, self._settings, self._journal)
        return launcher


def _launcher(level: Level, settings: Settings, journal: Journal) -> Launcher:
    match level:
        case "dask":
            return _cluster(settings, journal)
        case "process":
            return ProcessLauncher(
                settings.context,
                settings.initializer,
                settings.initargs,
                start_timeout_s=settings.policy.start_timeout_s,
                preload=settings.policy.preload,
            )
        case "thread":
            return ThreadLauncher(settings.initializer, settings.initargs)
        case "sequential":
            return SequentialLauncher(settings.initializer, settings.initargs)


def _cluster(settings: Settings, journal: Journal) -> ClusterLauncher:
    from pytest_membudget.runtime.cluster.launcher import DaskLauncher

    return DaskLauncher(
        settings.dask,
        report=journal.record_host,
        budget_bytes=settings.budget_bytes,
        sent_bytes=settings.policy.sent_bytes,
        start_timeout_s=settings.policy.start_timeout_s,
        initializer=settings.initializer,
        initargs=settings.initargs,
    )


def engine_for(owner: object, settings: Settings) -> Engine:
    """A new engine; when its owner is simply dropped, it finishes what it has and ends."""
    engine = Engine(settings)
    weakref.finalize(owner, engine.close, wait=False).atexit = False
    return engine


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
