"""`run`: a batch of inputs, one outcome each, in their order."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, TextIO

from pytest_membudget.records.run import BatchResult, Outcome
from pytest_membudget.runtime.executor.breakdown import Recorder
from pytest_membudget.runtime.executor.cluster_placement import TOGETHER
from pytest_membudget.runtime.executor.dead_letters import DeadLetterFile
from pytest_membudget.runtime.executor.done import DoneFile
from pytest_membudget.runtime.executor.engine import CallOptions, Engine
from pytest_membudget.runtime.executor.ordering import best_order
from pytest_membudget.runtime.executor.outcomes import Ended, Item, Outcomes, as_they_end, drawn
from pytest_membudget.runtime.workers.serialization import name_of
from pytest_membudget.runtime.workers.worker_growth import growth_in_workers

if TYPE_CHECKING:
    from pytest_membudget.runtime.monitoring.monitor import MemoryMonitor

_WINDOW = 256
"""Tasks of a list that are submitted at a time: enough for the ledger to choose from."""


class Batch:
    """One call of `run`."""

    def __init__(
        self,
        engine: Engine,
        fn: Callable[[Any], Any],
        items: Iterable[Any],
        options: CallOptions,
        *,
        durations_s: Callable[[Any], float] | None = None,
        monitor: MemoryMonitor | None = None,
        done: str | os.PathLike[str] | None = None,
    ) -> None:
        self._engine = engine
        self._fn = fn
        self._durations_s = durations_s
        self._monitor = monitor
        self._letters = DeadLetterFile(engine.settings.policy.dead_letters_path, fn)
        self._letters.check()
        self._done = None if done is None else DoneFile(done, fn)
        self._is_sized = isinstance(items, Sized)
        self._total = len(items) if isinstance(items, Sized) else None
        inputs = drawn(items, lambda item: engine.charge_rule(options).charge(fn, item))
        first, is_small = self._counted(inputs)
        self._recorder = Recorder(engine)
        self._outcomes = Outcomes(
            engine,
            fn,
            first,
            options,
            window=self._window,
            done=self._done,
            prefers_thread=is_small,
        )

    def run(self) -> BatchResult:
        """Runs everything and says what became of it; Ctrl-C ends all workers and goes on to the caller."""
        began_s = time.monotonic()
        heap_log = self._engine.driver.heap_log
        held_before = heap_log.latest()
        found: dict[int, Outcome] = {}
        try:
            with self._recorder as recorder, progress(self._total) as advance:
                for ended in as_they_end(self._outcomes):
                    found[ended.item.place] = ended.outcome
                    self._record(ended)
                    advance()
        except KeyboardInterrupt:
            self._engine.close(wait=True, cancel=True, kill=True)
            raise
        outcomes = tuple(found[index] for index in range(len(found)))
        growth = growth_in_workers(heap_log.since(held_before), name_of(self._fn))
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
            caveats=(
                *recorder.breakdown.caveats,
                *self._letters.caveats,
                *(self._done.caveats if self._done is not None else ()),
            ),
        )

    def _counted(self, inputs: Iterator[Item]) -> tuple[Iterator[Item], bool]:
        """The inputs in the order they are run, and whether they are few. A list is run in the order that ends soonest."""
        least = self._engine.settings.policy.small_batch
        if not self._is_sized:
            first = list(itertools.islice(inputs, least))
            return itertools.chain(first, inputs), len(first) < least
        known = list(inputs)
        order = best_order(
            [self._expected_s(item) for item in known],
            [_first_bytes(item) for item in known],
            workers=self._engine.most_workers,
            budget_bytes=self._engine.budget.largest_bytes,
            max_overtakes=self._engine.settings.policy.max_overtakes,
        )
        return (known[index] for index in order), len(known) < least

    def _expected_s(self, item: Item) -> float:
        """Expected seconds, or where that is not known, something in proportion to the input's size."""
        if self._durations_s is not None:
            return self._durations_s(item.value)
        return float(item.charged.size_bytes or 0) + 1.0

    def _window(self) -> int:
        """A list may be submitted in advance. What is drawn lazily is drawn when a worker is about to need it."""
        if self._is_sized:
            return max(_WINDOW, TOGETHER * self._engine.most_workers)
        return self._engine.lazy_window()

    def _record(self, ended: Ended) -> None:
        outcome = ended.outcome
        if ended.task is not None:
            self._recorder.take_in(ended.task)
        self._letters.add(outcome)
        if self._monitor is not None:
            self._monitor.chunk_done(1, peak_bytes=outcome.peak_bytes or 0, duration_s=outcome.duration_s)


def _first_bytes(item: Item) -> int:
    with contextlib.suppress(Exception):  # the caller's own estimator: the task's outcome will say so
        return item.charged.charge.first_bytes()
    return 0


@contextlib.contextmanager
def progress(total: int | None, stream: TextIO | None = None) -> Iterator[Callable[[], object]]:
    """A function to be called for each input that ended: how far a batch is, on a terminal, and nothing elsewhere."""
    where = sys.stderr if stream is None else stream
    if where is None or not where.isatty():
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="file", file=where, leave=False) as bar:
        yield bar.update
