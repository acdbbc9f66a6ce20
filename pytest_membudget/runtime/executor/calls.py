"""The calls that an executor takes: `submit`, `map`, `run`, `stream`, each with the options it was given."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sized
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_membudget.errors import UsageError
from pytest_membudget.records.run import BatchResult, Outcome
from pytest_membudget.runtime.executor.charges import (
    Charged,
    ChargeRule,
    Memory,
    SizeOf,
    item_of_call,
    largest_of,
)
from pytest_membudget.runtime.executor.driver import WAIT_PIECE_S
from pytest_membudget.runtime.executor.engine import CallOptions, Engine, engine_for
from pytest_membudget.runtime.workers.worker_main import run_chunk

if TYPE_CHECKING:
    from pytest_membudget.runtime.executor.batch import Durations
    from pytest_membudget.runtime.executor.outcomes import Outcomes
    from pytest_membudget.runtime.monitoring.monitor import MemoryMonitor

T = TypeVar("T")


class Calls:
    """What an executor, and a view of it with options, can be asked to run."""

    def __init__(self, engine: Engine, options: CallOptions) -> None:
        self._engine = engine
        self._options = options
        self._rule = engine.charge_rule(options)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queues `fn(*args, **kwargs)`; never waits, except that the sequential level runs it here.

        It is charged like an input of `run`: by the paths in its arguments, else by what was seen of `fn`.
        """
        charged = self._rule.charge(fn, item_of_call(args, kwargs))
        return self._engine.submit(self._engine.task(fn, args, kwargs, charged, self._options))

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """Results of `fn` over the inputs, in order; inputs are drawn as results are read.

        An iterator that outlives its executor computes what it has not drawn yet in one of its own.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        inputs: Iterator[tuple[Any, ...]] = zip(*iterables)  # noqa: B905 - the shortest ends it, as in the standard library
        source = _Source(self._engine, self._options, self._rule)
        if chunksize == 1:
            return ResultStream(partial(source.submit, fn), inputs, source.window, timeout)
        chunks = iter(lambda: list(itertools.islice(inputs, chunksize)), [])
        return flattened(
            ResultStream(
                partial(source.submit_chunk, fn),
                ((chunk,) for chunk in chunks),
                lambda: max(1, source.window() // chunksize),
                timeout,
            )
        )

    def run(
        self,
        fn: Callable[[Any], T],
        items: Iterable[Any],
        *,
        memory: Memory | None = None,
        size_bytes: SizeOf | None = None,
        durations_s: Durations | None = None,
        monitor: MemoryMonitor | None = None,
        done: str | os.PathLike[str] | None = None,
    ) -> BatchResult[T]:
        """Runs `fn(item)` for every input and returns when all have ended: one outcome per input, in their order.

        Args:
            fn: takes one input.
            items: paths of files or folders, tuples, lists or dicts with paths in them, or anything else.
            memory: what an input takes: a size, a function of the input, or an estimator; by default the executor's
                estimator goes by its files, and without any by what was seen of `fn`.
            size_bytes: the size that the estimator goes by, where that is not what the files of the input take: a size
                or a function of the input.
            durations_s: how long each input is expected to take, where that is known: a list of seconds, or a function of
                the input. A list of inputs is run in the order that ends soonest; other iterables are drawn lazily, in order.
            monitor: a `MemoryMonitor` of this process, which records each input that ended (as a chunk of one row,
                with the peak of its task), reads this process then, and cleans up where it is time.
            done: a file of inputs that ended well. Those of earlier runs are skipped, with the cause "done" and without
                a value; those of this run are added as they end.

        Raises:
            UsageError: `items` is one path, `durations_s` makes no sense, or the files of `done` or
                `ExecutorPolicy(dead_letters=…)` cannot be written.
            KeyboardInterrupt: Ctrl-C; all workers have been ended then.
        """
        from pytest_membudget.runtime.executor.batch import Batch

        options = self._with(memory, size_bytes)
        batch = Batch(
            self._engine, fn, _inputs(items), options, durations_s=durations_s, monitor=monitor, done=done
        )
        return batch.run()

    def stream(
        self,
        fn: Callable[[Any], T],
        items: Iterable[Any],
        *,
        ordered: bool = False,
        memory: Memory | None = None,
        size_bytes: SizeOf | None = None,
        done: str | os.PathLike[str] | None = None,
    ) -> Iterator[Outcome[T]]:
        """Yields the outcome of each input as its task ends, or with `ordered` in the order of the inputs.

        Inputs are drawn lazily, and nothing is kept of what was yielded, so memory stays flat at any number. Letting go of
        the iterator cancels what has not started. The arguments are those of `run`.

        Raises:
            UsageError: as by `run`.
        """
        from pytest_membudget.runtime.executor.outcomes import as_they_end, in_order

        outcomes = self._outcomes(fn, items, self._with(memory, size_bytes), done)
        return _yielded(outcomes, in_order if ordered else as_they_end, _total(items))

    def stream_async(
        self,
        fn: Callable[[Any], T],
        items: Iterable[Any],
        *,
        memory: Memory | None = None,
        size_bytes: SizeOf | None = None,
        done: str | os.PathLike[str] | None = None,
    ) -> AsyncIterator[Outcome[T]]:
        """As `stream`, for `async for`: the event loop goes on while tasks run (at the sequential level it cannot)."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed before the task ended
                loop.call_soon_threadsafe(ended.set)

        outcomes = self._outcomes(fn, items, self._with(memory, size_bytes), done, wake)
        return _yielded_async(outcomes, ended, _total(items))

    def _outcomes(
        self,
        fn: Callable[[Any], Any],
        items: Iterable[Any],
        options: CallOptions,
        done: str | os.PathLike[str] | None,
        on_end: Callable[[], object] | None = None,
    ) -> Outcomes:
        from pytest_membudget.runtime.executor.done_file import DoneFile
        from pytest_membudget.runtime.executor.outcomes import Outcomes, drawn

        engine = self._engine
        rule = engine.charge_rule(options)
        return Outcomes(
            engine,
            fn,
            drawn(_inputs(items), partial(rule.charge, fn)),
            options,
            window=engine.lazy_window,
            done=None if done is None else DoneFile(done, fn),
            on_end=on_end,
        )

    def _with(self, memory: Memory | None, size_bytes: SizeOf | None) -> CallOptions:
        options = self._options
        if memory is not None:
            options = options._replace(memory=memory)
        return options if size_bytes is None else options._replace(size_bytes=size_bytes)


def _total(items: Iterable[Any]) -> int | None:
    return len(items) if isinstance(items, Sized) else None


def _yielded(
    outcomes: Outcomes, order: Callable[[Outcomes], Iterator[Any]], total: int | None
) -> Iterator[Outcome]:
    from pytest_membudget.runtime.executor.outcomes import progress

    with contextlib.closing(outcomes), progress(total) as advance:
        for ended in order(outcomes):
            outcome = ended.outcome
            del ended  # the caller alone keeps the result from now on
            advance()
            yield outcome
            del outcome


async def _yielded_async(
    outcomes: Outcomes, ended: asyncio.Event, total: int | None
) -> AsyncIterator[Outcome]:
    from pytest_membudget.runtime.executor.outcomes import progress

    with contextlib.closing(outcomes), progress(total) as advance:
        while True:
            outcomes.fill()
            if outcomes.is_over:
                outcomes.raise_drawing_error()
                return
            ended.clear()
            read = outcomes.read_nowait()
            if read is None:
                # After a while there may be more room, as in `Outcomes.read`.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WAIT_PIECE_S):
                        await ended.wait()
                continue
            outcome = read.outcome
            del read
            advance()
            yield outcome
            del outcome


def _inputs(items: Iterable[Any]) -> Iterable[Any]:
    if isinstance(items, AsyncIterable):
        raise UsageError(
            f"items is {items!r}, which only `async for` reads; give [item async for item in items]"
        )
    if isinstance(items, str | bytes | os.PathLike) or not isinstance(items, Iterable):
        raise UsageError(f"items is {items!r}; give a list of inputs, such as [{items!r}]")
    return items


class _Source:
    """Where a stream's calls go: its executor, or one like it after that was shut down."""

    def __init__(self, engine: Engine, options: CallOptions, rule: ChargeRule) -> None:
        self._engine = engine
        self._options = options
        self._rule = rule
        self._has_begun = False

    def submit(self, fn: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        return self._submit(fn, arguments, self._rule.charge(fn, item_of_call(arguments, {})))

    def submit_chunk(self, fn: Callable[..., Any], arguments: tuple[list[Any]]) -> Future[Any]:
        charged = [self._rule.charge(fn, item_of_call(each, {})) for each in arguments[0]]
        return self._submit(run_chunk, (fn, *arguments), largest_of(charged))

    def window(self) -> int:
        """Results waited for or not read yet."""
        return self._engine.lazy_window()

    def _submit(self, fn: Callable[..., Any], arguments: tuple[Any, ...], charged: Charged) -> Future[Any]:
        if self._has_begun and self._engine.is_shut:
            self._engine = engine_for(self, self._engine.settings)
            self._rule = self._engine.charge_rule(self._options)
        self._has_begun = True
        return self._engine.submit(self._engine.task(fn, arguments, {}, charged, self._options))


Submit = Callable[[tuple[Any, ...]], "Future[Any]"]


class ResultStream(Iterator[Any]):
    """Results of calls, in order.

    At most `window()` results are waited for or wait to be read. An input is drawn in the thread that reads, when
    there is room for its result. As in the standard library, the first exception ends the stream and cancels what
    has not started; so does letting go of it.
    """

    def __init__(
        self,
        submit: Submit,
        inputs: Iterator[tuple[Any, ...]],
        window: Callable[[], int],
        timeout_s: float | None,
    ) -> None:
        self._futures: deque[Future[Any]] = deque()
        self._submit = submit
        self._inputs = inputs
        self._window = window
        self._end_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._drawing_error: BaseException | None = None
        self._is_drawn = False
        self._fill()
        try:
            self._raise_drawing_error()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> ResultStream:
        return self

    def __next__(self) -> Any:
        if not self._futures:
            self._raise_drawing_error()
            raise StopIteration
        try:
            value = _result_of(self._futures, self._end_s)
        except StopIteration as error:
            self.close()
            # Raised on, it would be taken for the end of the results: those that follow would be lost in silence.
            raise RuntimeError(f"a call of map raised {error!r}") from error
        except BaseException:
            self.close()
            raise
        self._fill()
        return value

    def close(self) -> None:
        """Draws no more and cancels what has not started."""
        self._is_drawn = True
        self._inputs = iter(())
        while self._futures:
            self._futures.pop().cancel()

    def __del__(self) -> None:
        if hasattr(self, "_futures"):
            self.close()

    def _fill(self) -> None:
        while not self._is_drawn and len(self._futures) < self._window():
            try:
                arguments = next(self._inputs)
            except StopIteration:
                self._is_drawn = True
                return
            except BaseException as error:
                # The caller's inputs raised it: raised again when the results before it have been read.
                self._is_drawn = True
                self._drawing_error = error
                return
            self._futures.append(self._submit(arguments))

    def _raise_drawing_error(self) -> None:
        if self._drawing_error is not None:
            error, self._drawing_error = self._drawing_error, None
            raise error


def flattened(chunks: Iterator[list[Any]]) -> Iterator[Any]:
    """The items of lists, none of them kept after it was given out."""
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()


def _result_of(futures: deque[Future[Any]], end_s: float | None) -> Any:
    """The first one's result. No name here or in the stream keeps it alive."""
    future = futures.popleft()
    try:
        return future.result(None if end_s is None else max(0.0, end_s - time.monotonic()))
    except BaseException:
        future.cancel()
        raise
    finally:
        del future
