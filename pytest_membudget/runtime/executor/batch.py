"""`run`: a batch of inputs, one outcome each, in their order; and where the peak of all processes went."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, SupportsFloat, TypeAlias

import msgspec

from pytest_membudget.errors import UsageError, text_of
from pytest_membudget.measurement.probe import Probe
from pytest_membudget.measurement.process.children import descendants
from pytest_membudget.measurement.process.heap import read_heap
from pytest_membudget.measurement.process.shared_pages import SharedPages
from pytest_membudget.measurement.tree.sampler import sampler
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.records.run import BatchResult, Breakdown, LevelEvent, Outcome
from pytest_membudget.runtime.executor.dead_letters import DeadLetterFile
from pytest_membudget.runtime.executor.done_file import DoneFile
from pytest_membudget.runtime.executor.driver import WATCHED_TICK_S
from pytest_membudget.runtime.executor.engine import CallOptions, Engine
from pytest_membudget.runtime.executor.flow_control import best_order
from pytest_membudget.runtime.executor.journal import growth_in_workers
from pytest_membudget.runtime.executor.outcomes import (
    Ended,
    Item,
    Outcomes,
    as_they_end,
    drawn,
    progress,
)
from pytest_membudget.runtime.executor.state import Task
from pytest_membudget.runtime.workers.protocol import Reading
from pytest_membudget.runtime.workers.serialization import name_of
from pytest_membudget.units import format_size

if TYPE_CHECKING:
    from pytest_membudget.runtime.monitoring.monitor import MemoryMonitor

Durations: TypeAlias = Callable[[Any], float] | Sequence[float]
"""Expected seconds of an input: one for each, in their order, or a function of the input."""


class Batch:
    """One call of `run`."""

    def __init__(
        self,
        engine: Engine,
        fn: Callable[[Any], Any],
        items: Iterable[Any],
        options: CallOptions,
        *,
        durations_s: Durations | None = None,
        monitor: MemoryMonitor | None = None,
        done: str | os.PathLike[str] | None = None,
    ) -> None:
        self._engine = engine
        self._fn = fn
        self._durations_s = durations_s
        self._monitor = monitor
        path = engine.settings.policy.dead_letters_path
        self._letters = None if path is None else DeadLetterFile(path, fn)
        self._done = None if done is None else DoneFile(done, fn)
        self._is_sized = isinstance(items, Sized)
        self._total = len(items) if isinstance(items, Sized) else None
        if durations_s is not None and not callable(durations_s) and len(durations_s) != self._total:
            raise UsageError(
                f"durations_s has {len(durations_s)} for {self._total or 'an unknown number of'} inputs; give one for each "
                "of a list of inputs, or a function of the input"
            )
        inputs = drawn(items, partial(engine.charge_rule(options).charge, fn))
        first, is_small = self._counted(inputs)
        self._recorder = Recorder(engine)
        self._outcomes = Outcomes(
            engine,
            fn,
            first,
            options,
            window=engine.list_window if self._is_sized else engine.lazy_window,
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
            dead_letters_path=None if self._letters is None else str(self._letters.path),
            growth=growth.together,
            worker_growth=growth.workers,
            caveats=(
                *recorder.breakdown.caveats,
                *(self._letters.caveats if self._letters is not None else ()),
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
            [item.charged.charge.expected_bytes() or 0 for item in known],
            workers=self._engine.most_workers,
            budget_bytes=self._engine.budget.largest_bytes,
            max_overtakes=self._engine.settings.policy.max_overtakes,
        )
        return (known[index] for index in order), len(known) < least

    def _expected_s(self, item: Item) -> float:
        """Expected seconds, or where that is not known, something in proportion to the input's size."""
        given = self._durations_s
        if given is None:
            return float(item.charged.size_bytes or 0) + 1.0
        expected_s = given(item.value) if callable(given) else given[item.place]
        if not (isinstance(expected_s, SupportsFloat) and 0 <= float(expected_s) < math.inf):
            raise UsageError(
                f"durations_s gives {text_of(expected_s, repr)} for {text_of(item.value, repr)}; give seconds of 0 or more"
            )
        return float(expected_s)

    def _record(self, ended: Ended) -> None:
        outcome = ended.outcome
        if ended.task is not None:
            self._recorder.record_task(ended.task)
        if self._letters is not None:
            self._letters.add(outcome)
        if self._monitor is not None:
            self._monitor.chunk_done(1, peak_bytes=outcome.peak_bytes or 0, duration_s=outcome.duration_s)


_WORTH_A_CAVEAT = 0.03
"""Up to this share of the peak may be of unknown origin without a caveat."""

_WALK_EVERY = 10
"""Samples between two searches for processes that are neither the coordinator nor a worker."""


class Recorder:
    """Samples all processes while a batch runs and keeps the parts of the highest moment.

    All figures of a breakdown are of one instant, so its parts add up. What a thread's task takes cannot be
    separated in the coordinator: there the coordinator's growth, less the results that wait, counts as the tasks'.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pages = SharedPages()
        self._others: list[int] = []
        self._of_tasks: set[int] = set()  # processes that tasks have started
        self._probe = Probe("run")
        self._helper_pid: int | None = None
        self._samples = 0
        self._start_bytes = 0
        self._kept_at_start_bytes = 0  # resident but free: results may take it without growth
        self._events_before = len(engine.journal.events)
        self._waiting_bytes = 0
        self.limit_bytes = engine.settings.reading().limit.bytes
        self.workers = 1
        self.breakdown = Breakdown(
            peak_bytes=0,
            coordinator_bytes=0,
            workers_base_bytes=0,
            task_bytes=0,
            waiting_results_bytes=0,
            other_bytes=0,
        )

    def __enter__(self) -> Self:
        self._probe.begin()
        helper = sampler()
        self._helper_pid = None if helper is None else helper.pid
        self._start_bytes = self._pages.holdings([os.getpid()]).get(os.getpid(), 0)
        self._kept_at_start_bytes = read_heap().kept_bytes
        self.sample(self._engine.driver.readings())
        self._engine.driver.observers.append(self.sample)
        self._engine.driver.wake()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._engine.driver.observers.remove(self.sample)
        # A short batch may have ended before a reading has met its workers.
        self.sample(self._engine.driver.readings())
        self._complete(self._probe.finish())

    @property
    def events(self) -> tuple[LevelEvent, ...]:
        """Events since the recorder began."""
        return self._engine.journal.events[self._events_before :]

    def record_task(self, task: Task) -> None:
        """Counts a finished task: its result waits to be read, and its peak is known where it ran here alone."""
        self._waiting_bytes += task.result_bytes
        if task.coordinator_peak_bytes:
            own_pid = os.getpid()
            held = self._pages.holdings([own_pid, *self._others])
            # The peak has shared pages in full, and `_others` have their parts in the same ones.
            private_bytes = task.coordinator_peak_bytes - self._pages.shared_bytes(own_pid)
            self._keep({**held, own_pid: self._pages.with_shared_part(own_pid, private_bytes)}, {})

    def sample(self, readings: Iterable[Reading]) -> None:
        """Adds the coordinator, and what is neither that nor a worker, to what was read of the workers."""
        self.workers = max(self.workers, self._engine.scheduler.pool.busy)
        workers = {reading.pid: reading for reading in readings if reading.pid is not None}
        if self._samples % _WALK_EVERY == 0:
            ours = {*workers, self._helper_pid}
            self._others = [pid for pid in descendants() if pid not in ours]
            self._of_tasks = {below for pid in workers for below in descendants(pid)}
        self._samples += 1
        pids = [os.getpid(), *workers, *self._others]
        held = self._pages.holdings(pids)
        if sum(held.values()) > self.breakdown.peak_bytes:
            self._keep(self._pages.exact_holdings(pids), workers)

    def _keep(self, held: dict[int, int], workers: dict[int, Reading]) -> None:
        peak_bytes = sum(held.values())
        if peak_bytes <= self.breakdown.peak_bytes:
            return
        own_bytes = held.get(os.getpid(), 0)
        in_workers_bytes = sum(held.get(pid, 0) for pid in workers)
        of_tasks_bytes = sum(held.get(pid, 0) for pid in self._of_tasks if pid not in workers)
        base_bytes = sum(self._base_bytes(pid, reading, held.get(pid, 0)) for pid, reading in workers.items())
        in_use_at_start_bytes = max(0, self._start_bytes - self._kept_at_start_bytes)
        waiting_bytes = min(self._waiting_bytes, max(0, own_bytes - in_use_at_start_bytes))
        elsewhere = bool(workers) or self._engine.scheduler.levels.now.is_cluster
        here_bytes = 0 if elsewhere else max(0, own_bytes - self._start_bytes - waiting_bytes)
        self.breakdown = Breakdown(
            peak_bytes=peak_bytes,
            coordinator_bytes=own_bytes - waiting_bytes - here_bytes,
            workers_base_bytes=base_bytes,
            task_bytes=in_workers_bytes - base_bytes + of_tasks_bytes + here_bytes,
            waiting_results_bytes=waiting_bytes,
            other_bytes=peak_bytes - own_bytes - in_workers_bytes - of_tasks_bytes,
        )

    def _base_bytes(self, pid: int, reading: Reading, held_bytes: int) -> int:
        """What a worker holds without its tasks; all of it while its initializer still loads.

        By what it was when it was ready, and not by what it has grown by: that would be read at another moment than `held_bytes`.
        """
        if reading.ready_anonymous_bytes is None:
            return held_bytes
        return min(held_bytes, self._pages.with_shared_part(pid, reading.ready_anonymous_bytes))

    def _complete(self, measured: Measurement) -> None:
        """Takes the probe's peak, which is exact, for the whole; what it has beyond the parts seen here becomes *other*.

        Part of that is pages of libraries that programs outside this tree map as well. The parts count only this
        tree's share of such pages, its peak counts them in full. What that does not explain, and is more than
        `_WORTH_A_CAVEAT` of the peak, was there too briefly to be seen, and a caveat says so.
        """
        missed_bytes = measured.total_peak_bytes - self.breakdown.peak_bytes
        if missed_bytes <= 0:
            return
        caveats = measured.caveats
        unexplained_bytes = missed_bytes - self._pages.shared_bytes(os.getpid())
        if unexplained_bytes > _WORTH_A_CAVEAT * measured.total_peak_bytes:
            caveat = (
                f"{format_size(unexplained_bytes)} of the peak lasted too briefly to say whose they were: "
                f"parts are read every {WATCHED_TICK_S * 1000:g} ms"
            )
            caveats = (*caveats, caveat)
        self.breakdown = msgspec.structs.replace(
            self.breakdown,
            peak_bytes=measured.total_peak_bytes,
            other_bytes=self.breakdown.other_bytes + missed_bytes,
            caveats=caveats,
        )
