"""`run`: a batch of inputs, one outcome each, in their order.

In which order a list of inputs is run is free. Where memory does not bind, what takes longest goes first. Where it does,
three orders are played through as the ledger would grant them, and the one that ends soonest is taken:

- by cost, `duration × max(1/P, m/B)` descending: what takes most of the machine for longest;
- balanced: whenever a worker is free, the task that makes most use of what is free of both, `(m/B · free memory + 1/P ·
  free workers) · √duration` (the alignment of Grandl et al. 2014, "Multi-resource packing for cluster schedulers");
- by memory alone, descending.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_membudget.records.run import BatchResult, Outcome
from pytest_membudget.runtime.executor.breakdown import Recorder
from pytest_membudget.runtime.executor.cluster_placement import TOGETHER
from pytest_membudget.runtime.executor.dead_letters import DeadLetterFile
from pytest_membudget.runtime.executor.done import DoneFile
from pytest_membudget.runtime.executor.engine import CallOptions, Engine
from pytest_membudget.runtime.executor.local_placement import WINDOW
from pytest_membudget.runtime.executor.outcomes import Ended, Item, Outcomes, as_they_end, drawn, progress
from pytest_membudget.runtime.executor.retained_memory import growth_in_workers
from pytest_membudget.runtime.workers.serialization import name_of

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
        path = engine.settings.policy.dead_letters_path
        self._letters = None if path is None else DeadLetterFile(path, fn)
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
            self._recorder.record_task(ended.task)
        if self._letters is not None:
            self._letters.add(outcome)
        if self._monitor is not None:
            self._monitor.chunk_done(1, peak_bytes=outcome.peak_bytes or 0, duration_s=outcome.duration_s)


def _first_bytes(item: Item) -> int:
    with contextlib.suppress(Exception):  # the caller's own estimator: the task's outcome will say so
        return item.charged.charge.first_bytes()
    return 0


MOST_PLAYED = 1000
"""Longer lists go by cost at once: playing them through would take longer than it saves."""


class _Known(NamedTuple):
    """What is expected of an input, and its place in the list."""

    place: int
    bytes: int
    duration_s: float


class _Machine:
    """Workers and a budget, played through: when each task ends is known."""

    def __init__(self, workers: int, budget_bytes: int) -> None:
        self.workers = workers
        self.budget_bytes = max(1, budget_bytes)
        self.free_bytes = self.budget_bytes
        self.now_s = 0.0
        self._running: list[
            tuple[float, int, int]
        ] = []  # when each ends, its place in the order, and its bytes

    @property
    def free_workers(self) -> int:
        return self.workers - len(self._running)

    def fitting(self, tasks: list[_Known]) -> list[_Known]:
        """Those that could start now, in order; one that is larger than the budget runs when nothing else does."""
        if not self._running:
            return tasks
        free_bytes = self.free_bytes
        return [task for task in tasks if task.bytes <= free_bytes] if self.free_workers else []

    def start(self, task: _Known, at: int) -> None:
        """Starts `task`, number `at` of the order."""
        heapq.heappush(self._running, (self.now_s + task.duration_s, at, task.bytes))
        self.free_bytes -= task.bytes

    def go_on(self) -> None:
        """To the end of the task that ends next; of several the first of the order, as what starts then depends on it."""
        self.now_s, _, freed_bytes = heapq.heappop(self._running)
        self.free_bytes += freed_bytes

    def end_s(self) -> float:
        """When everything that runs has ended."""
        return max((end_s for end_s, _, _ in self._running), default=self.now_s)


def best_order(
    durations_s: Sequence[float],
    sizes_bytes: Sequence[int],
    *,
    workers: int,
    budget_bytes: int,
    max_overtakes: int = 32,
) -> list[int]:
    """Indices in the order to run. Ties keep their order.

    Args:
        durations_s: what is expected of each input, in seconds or anything in proportion.
        sizes_bytes: the memory that each is charged.
        workers: how many may run at once.
        budget_bytes: what they may take together.
        max_overtakes: how often the head of the line may be overtaken.
    """
    known = [_Known(*each) for each in zip(range(len(durations_s)), sizes_bytes, durations_s, strict=True)]
    by_cost = sorted(
        known, key=lambda task: -task.duration_s * max(1 / workers, task.bytes / max(1, budget_bytes))
    )
    memory_binds = sum(sorted(sizes_bytes)[-workers:]) > budget_bytes
    if not memory_binds or len(known) > MOST_PLAYED or workers == 1:
        return [task.place for task in by_cost]
    candidates = [
        by_cost,
        _balanced(by_cost, _Machine(workers, budget_bytes)),
        sorted(known, key=lambda task: -task.bytes),
    ]
    ends_s = [_makespan_s(order, _Machine(workers, budget_bytes), max_overtakes) for order in candidates]
    return [task.place for task in candidates[ends_s.index(min(ends_s))]]


def _balanced(by_cost: list[_Known], machine: _Machine) -> list[_Known]:
    left = list(by_cost)
    order: list[_Known] = []
    roots = [math.sqrt(task.duration_s) for task in sorted(by_cost)]
    while left:
        fitting = machine.fitting(left[:WINDOW])
        if not fitting:
            machine.go_on()
            continue
        memory_weight = machine.free_bytes / machine.budget_bytes**2
        worker_weight = machine.free_workers / machine.workers**2
        use = [(task.bytes * memory_weight + worker_weight) * roots[task.place] for task in fitting]
        chosen = fitting[use.index(max(use))]
        left.remove(chosen)
        machine.start(chosen, len(order))
        order.append(chosen)
    return order


def _makespan_s(order: list[_Known], machine: _Machine, max_overtakes: int) -> float:
    """When the last task ends where the ledger grants them: in order, past the head at most that often."""
    left, overtakes = list(order), 0
    places = {task: place for place, task in enumerate(order)}
    while left:
        fitting = machine.fitting(left[: WINDOW if overtakes < max_overtakes else 1])
        if not fitting:
            machine.go_on()
            continue
        overtakes = 0 if fitting[0] is left[0] else overtakes + 1
        left.remove(fitting[0])
        machine.start(fitting[0], places[fitting[0]])
    return machine.end_s()
