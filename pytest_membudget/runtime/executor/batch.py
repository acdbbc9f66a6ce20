"""`run`: a batch of files, one outcome each, in their order."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pytest_membudget.records.files import FileCategory
from pytest_membudget.records.run import BatchResult, Outcome
from pytest_membudget.runtime.executor.breakdown import Recorder
from pytest_membudget.runtime.executor.charges import CallCharge, FileCharge
from pytest_membudget.runtime.executor.cluster_placement import TOGETHER
from pytest_membudget.runtime.executor.dead_letters import DeadLetterFile
from pytest_membudget.runtime.executor.driver import PATIENCE_S, TaskFuture
from pytest_membudget.runtime.executor.engine import Engine
from pytest_membudget.runtime.executor.ordering import best_order
from pytest_membudget.runtime.executor.progress import progress
from pytest_membudget.runtime.executor.state import Charge, Task
from pytest_membudget.runtime.workers.protocol import HeapReading
from pytest_membudget.runtime.workers.serialization import name_of
from pytest_membudget.runtime.workers.worker_growth import growth_in_workers

if TYPE_CHECKING:
    from pytest_membudget.runtime.monitoring.monitor import MemoryMonitor

_WINDOW = 256
"""Tasks of a list that are submitted at a time: enough for the ledger to choose from."""


class _Item(NamedTuple):
    """An input, its place, and its file's size where it is one."""

    place: int
    value: Any
    size_bytes: int | None


class Batch:
    """One call of `run`."""

    def __init__(
        self,
        engine: Engine,
        fn: Callable[[Any], Any],
        items: Iterable[Any],
        durations_s: Callable[[Any], float] | None,
        monitor: MemoryMonitor | None = None,
    ) -> None:
        self._engine = engine
        self._policy = engine.settings.policy
        self._fn = fn
        self._durations_s = durations_s
        self._monitor = monitor
        self._letters = DeadLetterFile(self._policy.dead_letters_path, fn)
        self._is_sized = isinstance(items, Sized)
        self._items, self._total, self._is_small = self._looked_at(items)
        self._ended: queue.SimpleQueue[tuple[_Item, Future[Any]]] = queue.SimpleQueue()
        self._outcomes: dict[int, Outcome] = {}
        self._unread = 0
        self._recorder = Recorder(engine)
        self._heap_log = engine.driver.heap_log
        self._held_before: dict[int, HeapReading] = {}

    def run(self) -> BatchResult:
        """Runs everything and says what became of it; Ctrl-C ends all workers and goes on to the caller."""
        self._letters.check()
        began_s = time.monotonic()
        self._held_before = self._heap_log.latest()
        try:
            with self._recorder as recorder, progress(self._total) as advance:
                for item in self._items:
                    while self._unread >= self._window():
                        self._take_one(advance)
                    self._submit(item)
                while self._unread:
                    self._take_one(advance)
        except KeyboardInterrupt:
            self._engine.close(wait=True, cancel=True, kill=True)
            raise
        outcomes = tuple(self._outcomes[index] for index in range(len(self._outcomes)))
        growth = growth_in_workers(self._heap_log.since(self._held_before), name_of(self._fn))
        return BatchResult(
            outcomes=outcomes,
            peak_bytes=recorder.breakdown.peak_bytes,
            duration_s=time.monotonic() - began_s,
            budget_bytes=self._engine.budget_now_bytes(),
            limit_bytes=recorder.limit_bytes,
            workers=recorder.workers,
            max_in_flight=self._engine.settings.max_in_flight or recorder.workers,
            breakdown=recorder.breakdown,
            events=recorder.events,
            hosts=self._engine.driver.hosts(),
            dead_letters=tuple(outcome for outcome in outcomes if not outcome.ok),
            dead_letters_path=self._letters.path,
            growth=growth.together,
            worker_growth=growth.workers,
            caveats=(*recorder.breakdown.caveats, *self._letters.caveats),
        )

    def _looked_at(self, items: Iterable[Any]) -> tuple[Iterator[_Item], int | None, bool]:
        """The inputs in the order they are run, their number where it is known, and whether they are few."""
        least = self._policy.small_batch
        if not self._is_sized:
            drawn = iter(items)
            first = list(itertools.islice(drawn, least))
            lazily = enumerate(itertools.chain(first, drawn))
            return (_item(*each) for each in lazily), None, len(first) < least
        known = [_item(*each) for each in enumerate(items)]
        sizes_bytes = [self._charge(item).first_bytes() for item in known]
        order = best_order(
            [self._expected_s(item) for item in known],
            sizes_bytes,
            workers=self._engine.most_workers,
            budget_bytes=self._engine.budget.largest_bytes,
            max_overtakes=self._policy.max_overtakes,
        )
        return (known[index] for index in order), len(known), len(known) < least

    def _expected_s(self, item: _Item) -> float:
        """Expected seconds, or where nobody says, something in proportion to the file's size."""
        if self._durations_s is not None:
            return self._durations_s(item.value)
        return float(item.size_bytes or 0) + 1.0

    def _window(self) -> int:
        """A list may be looked at in advance. What is drawn lazily is drawn when a worker is about to need it."""
        if self._is_sized:
            return max(_WINDOW, TOGETHER * self._engine.most_workers)
        most = self._engine.scheduler.pool.concurrency.most
        return self._engine.settings.max_in_flight or most * self._engine.drawn_ahead

    def _submit(self, item: _Item) -> None:
        large = item.size_bytes is not None and self._category(item.size_bytes) is FileCategory.LARGE
        charge = self._charge(item)
        task = self._engine.task(self._fn, (item.value,), {}, charge, timeout_s=self._timeout_s(item))
        task.prefers_thread = self._is_small and not large
        task.fresh_worker = large
        task.is_file = item.size_bytes is not None
        task.exact = True
        task.estimate_bytes = charge.first_bytes()
        self._unread += 1
        self._engine.submit(task, partial(_announce, self._ended, item))

    def _charge(self, item: _Item) -> Charge:
        estimator = self._engine.settings.estimator
        if estimator.goes_by_predictors:
            return FileCharge(estimator.features(item.value), estimator)
        if item.size_bytes is None:
            return CallCharge(self._fn, self._engine.peaks, self._engine.settings.estimator)
        return FileCharge(item.size_bytes, self._engine.estimators.of(self._fn, item.value))

    def _category(self, size_bytes: int) -> FileCategory:
        return self._policy.classes.category(size_bytes)

    def _timeout_s(self, item: _Item) -> float | None:
        if self._policy.timeout_s is not None or item.size_bytes is None:
            return self._policy.timeout_s
        return self._policy.classes.timeout_s(self._category(item.size_bytes))

    def _next_ended(self) -> tuple[_Item, Future[Any]]:
        """Waits in pieces: a Ctrl-C that comes just before a wait is noticed only when that wait ends."""
        while True:
            with contextlib.suppress(queue.Empty):
                return self._ended.get(timeout=PATIENCE_S)

    def _take_one(self, advance: Callable[[], object]) -> None:
        item, future = self._next_ended()
        self._unread -= 1
        task = cast("Task", cast("TaskFuture", future).task)
        self._recorder.take_in(task)
        outcome = _outcome(item, task, future)
        self._outcomes[item.place] = outcome
        self._letters.add(outcome)
        if self._monitor is not None:
            self._monitor.chunk_done(1, peak_bytes=outcome.peak_bytes or 0, duration_s=outcome.duration_s)
        advance()


def _announce(ended: queue.SimpleQueue[tuple[_Item, Future[Any]]], item: _Item, future: Future[Any]) -> None:
    ended.put((item, future))


def _outcome(item: _Item, task: Task, future: Future[Any]) -> Outcome:
    cancelled = future.cancelled()
    error = None if cancelled else future.exception()
    return Outcome(
        item=item.value,
        value=None if cancelled or error is not None else future.result(),
        error=error,
        cause="cancelled" if cancelled else task.cause,
        attempts=task.attempts,
        level=task.level,
        size_bytes=item.size_bytes,
        peak_bytes=task.peak_bytes,
        estimate_bytes=task.estimate_bytes,
        duration_s=task.duration_s,
        host=task.host,
    )


def _item(index: int, value: Any) -> _Item:
    """Looks at the file. One that cannot be looked at goes on: the caller's function will say what is wrong."""
    size_bytes = None
    if isinstance(value, str | bytes | os.PathLike):
        with contextlib.suppress(OSError, ValueError):
            size_bytes = Path(os.fsdecode(value)).stat().st_size
    return _Item(index, value, size_bytes)
