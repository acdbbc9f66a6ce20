"""Inputs in, outcomes out: what `run`, `stream` and `stream_async` have in common.

Inputs are drawn as there is room for their outcomes, and nothing is kept of an input whose outcome was read.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple, TextIO, cast

from pytest_membudget.records.run import FileCategory, Outcome
from pytest_membudget.runtime.executor.charges import Charged
from pytest_membudget.runtime.executor.done_file import DoneFile, key_of
from pytest_membudget.runtime.executor.driver import WAIT_PIECE_S
from pytest_membudget.runtime.executor.effects import TaskFuture
from pytest_membudget.runtime.executor.engine import CallOptions, Engine
from pytest_membudget.runtime.executor.state import Task
from pytest_membudget.runtime.prediction.files import FileClasses
from pytest_membudget.units import format_duration

_logger = logging.getLogger("pytest_membudget.runtime")


class Item(NamedTuple):
    """An input, its place among all inputs, and what it is charged."""

    place: int
    value: Any
    charged: Charged
    #: what it goes by in the file of inputs that were done; taken before it runs, as the task may change its file
    done_key: str | None = None


class Ended(NamedTuple):
    """An input whose outcome is known; `task` is `None` where an earlier run had done it."""

    item: Item
    outcome: Outcome
    task: Task | None


class Outcomes:
    """The outcomes of `fn` over inputs, as their tasks end. Used by one thread, or one coroutine.

    Args:
        engine: runs the tasks.
        fn: takes one input.
        items: drawn as there is room.
        options: charges and limits of these calls.
        window: how many inputs may be submitted and unread.
        done: inputs that an earlier run has done, if any are kept.
        on_end: called in any thread when an outcome can be read.
        prefers_thread: whether inputs that are not large run in threads.
    """

    def __init__(
        self,
        engine: Engine,
        fn: Callable[[Any], Any],
        items: Iterable[Item],
        options: CallOptions,
        *,
        window: Callable[[], int],
        done: DoneFile | None = None,
        on_end: Callable[[], object] | None = None,
        prefers_thread: bool = False,
    ) -> None:
        self._engine = engine
        self._fn = fn
        self._items = iter(items)
        self._options = options
        self._window = window
        self._done = done
        self._on_end = on_end
        self._prefers_thread = prefers_thread
        self._ended: queue.SimpleQueue[tuple[Item, Future[Any] | None]] = queue.SimpleQueue()
        self._running: dict[int, Future[Any]] = {}
        self._unread = 0
        self._is_drawn = False
        self._drawing_error: Exception | None = None

    @property
    def is_over(self) -> bool:
        """Whether every outcome was read."""
        return self._is_drawn and not self._unread

    def raise_drawing_error(self) -> None:
        """Raises what drawing the inputs raised, once: to be called when the outcomes of those before it have been read."""
        if self._drawing_error is not None:
            error, self._drawing_error = self._drawing_error, None
            raise error

    def fill(self, unread: int = 0) -> None:
        """Submits inputs while there is room; `unread` outcomes are kept elsewhere and take up room as well."""
        while not self._is_drawn and self._unread + unread < self._window():
            try:
                item = next(self._items, None)
            except Exception as error:  # the caller's
                item, self._drawing_error = None, error
            if item is None:
                self._is_drawn = True
                return
            self._unread += 1
            if self._done is not None:
                item = item._replace(done_key=key_of(item.value))
                if self._done.has(item.done_key):
                    self._ended.put((item, None))
                    continue
            self._submit(item)

    def read(self, unread: int = 0) -> Ended | None:
        """The next outcome, `None` after the last; `unread` are kept elsewhere and take up room as well.

        Draws inputs before, and while it waits: there is more room when workers join, or tasks turn out to be short. Waits in
        pieces: a Ctrl-C that comes just before a wait counts only when that wait ends.
        """
        while True:
            self.fill(unread)
            if self.is_over:
                self.raise_drawing_error()
                return None
            with contextlib.suppress(queue.Empty):
                return self._read(*self._ended.get(timeout=WAIT_PIECE_S))

    def read_nowait(self) -> Ended | None:
        """The next outcome; `None` where none can be read yet."""
        with contextlib.suppress(queue.Empty):
            return self._read(*self._ended.get_nowait())
        return None

    def close(self) -> None:
        """Draws no more, and cancels what has not started."""
        self._is_drawn = True
        for future in list(self._running.values()):
            future.cancel()

    def _submit(self, item: Item) -> None:
        task = self._engine.task(
            self._fn,
            (item.value,),
            {},
            item.charged,
            self._options,
            is_input=True,
            prefers_thread=self._prefers_thread,
        )
        policy = self._engine.settings.policy
        if (
            task.timeout_s is not None
            and self._options.timeout_s == "policy"
            and policy.timeout_s == "category"
        ):
            announce_time_limits(policy.classes)
        self._running[item.place] = self._engine.submit(
            task, functools.partial(_announce, self._ended, self._on_end, item)
        )

    def _read(self, item: Item, future: Future[Any] | None) -> Ended:
        self._unread -= 1
        if future is None:
            outcome = Outcome(item=item.value, cause="done", attempts=0, size_bytes=item.charged.size_bytes)
            return Ended(item, outcome, None)
        self._running.pop(item.place, None)
        task = cast("Task", cast("TaskFuture", future).task)
        outcome = _outcome(item, task, future)
        if self._done is not None and outcome.ok:
            self._done.add(item.done_key)
        return Ended(item, outcome, task)


@functools.cache
def announce_time_limits(classes: FileClasses) -> None:
    """Says once, before work starts, that files have a time limit that may not have been asked for."""
    _logger.warning(
        "a task on a file is ended after %s (small, medium and large files); "
        "ExecutorPolicy(timeout_s=None) lifts these limits, or give seconds for all",
        ", ".join(format_duration(classes.timeout_s(category)) for category in FileCategory),
    )


def drawn(items: Iterable[Any], charge: Callable[[Any], Charged]) -> Iterator[Item]:
    """Inputs in their order, each charged when it is drawn."""
    return (Item(place, value, charge(value)) for place, value in enumerate(items))


def in_order(outcomes: Outcomes) -> Iterator[Ended]:
    """Outcomes in the order of the inputs; those that ended before their turn wait, and take up room."""
    waiting: dict[int, Ended] = {}
    place = 0
    while (ended := outcomes.read(len(waiting))) is not None:
        waiting[ended.item.place] = ended
        del ended  # the caller alone keeps the result from now on
        while place in waiting:
            yield waiting.pop(place)
            place += 1
            outcomes.fill(len(waiting))


def as_they_end(outcomes: Outcomes) -> Iterator[Ended]:
    """Outcomes as soon as they are known."""
    return iter(outcomes.read, None)


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


def _announce(
    ended: queue.SimpleQueue[tuple[Item, Future[Any] | None]],
    on_end: Callable[[], object] | None,
    item: Item,
    future: Future[Any],
) -> None:
    ended.put((item, future))
    if on_end is not None:
        on_end()


def _outcome(item: Item, task: Task, future: Future[Any]) -> Outcome:
    cancelled = future.cancelled()
    error = None if cancelled else future.exception()
    return Outcome(
        item=item.value,
        value=None if cancelled or error is not None else future.result(),
        error=error,
        cause="cancelled" if cancelled else task.cause,
        attempts=task.attempts,
        level=task.level,
        size_bytes=item.charged.size_bytes,
        features=item.charged.features,
        peak_bytes=task.peak_bytes,
        peak_upper_bytes=task.peak_upper_bytes,
        estimate_bytes=task.estimate_bytes,
        limit_bytes=task.limit_bytes,
        duration_s=task.duration_s,
        host=task.host,
    )
