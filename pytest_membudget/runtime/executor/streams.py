"""`map`: inputs drawn as results are read, results in the order of the inputs.

Workers import this file for `run_chunk`, so it imports nothing of ours.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

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
                # The caller's inputs raised it: told when the results before it have been read.
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


def run_chunk(fn: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    """Runs in the worker: one call after the other."""
    return [fn(*arguments) for arguments in chunk]


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
