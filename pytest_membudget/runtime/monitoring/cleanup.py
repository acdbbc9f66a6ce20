"""What a monitor reads of this process, and how that gives memory back: the program's callbacks, a collection, a trim of the heap."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from pytest_membudget.errors import UsageError, text_of
from pytest_membudget.measurement.process import heap, high_water
from pytest_membudget.measurement.system.machine import memory_reading
from pytest_membudget.originals import gc
from pytest_membudget.records.monitor import CleanupEvent, CleanupResult

_logger = logging.getLogger("pytest_membudget")


class ProcessFigures(NamedTuple):
    """This process at one instant, in bytes, and what is available to it beyond."""

    rss_bytes: int
    uss_bytes: int
    vms_bytes: int
    available_bytes: int


class ProcessMemory:
    """Everything that a monitor asks about this process, in one place that tests can replace."""

    def resident_bytes(self) -> int:
        """What is resident now (about 15 µs)."""
        return high_water.resident_bytes()

    def figures(self) -> ProcessFigures:
        """The full figures (about 10 ms for 1 GiB: unshared memory is counted page by page)."""
        try:
            rss_bytes, uss_bytes, vms_bytes = _psutil_figures()
        except ImportError:
            rss_bytes = uss_bytes = vms_bytes = high_water.resident_bytes()
        return ProcessFigures(rss_bytes, uss_bytes, vms_bytes, memory_reading().available_bytes)

    def limit_bytes(self) -> int:
        """The real limit of this process."""
        return memory_reading().limit.bytes

    def open_mark(self) -> high_water.Mark | None:
        """Starts to keep the exact peak; `None` where the kernel cannot."""
        return high_water.open_mark()

    def mark_peak_bytes(self, mark: high_water.Mark) -> int:
        """The most that was resident since `mark` was opened, which stays open."""
        return max(mark.peak_bytes, high_water.high_water_bytes())

    def close_mark(self, mark: high_water.Mark) -> int:
        """The most that was resident since `mark` was opened."""
        return high_water.close_mark(mark)

    def heap(self) -> heap.Heap:
        """Malloc's heap, in use and kept."""
        return heap.read_heap()

    def trim(self) -> None:
        """Gives free memory back to the system, as far as malloc can."""
        heap.trim_heap()

    def collect_and_trim(self) -> None:
        """Collects cyclic garbage and gives free memory back to the system."""
        gc.collect()
        heap.trim_heap()


def _psutil_figures() -> tuple[int, int, int]:
    import psutil

    memory = psutil.Process().memory_full_info()
    return int(memory.rss), int(memory.uss), int(memory.vms)


class _Callback(NamedTuple):
    run: Callable[[], Any]
    emergency_only: bool

    @property
    def name(self) -> str:
        return getattr(self.run, "__qualname__", None) or repr(self.run)


class Cleaner:
    """Runs the registered callbacks in their order. One that raises is reported and stops none of the others."""

    def __init__(self, memory: ProcessMemory, clock: Callable[[], float], most: int) -> None:
        self.events: deque[CleanupEvent] = deque(maxlen=most)
        self._memory = memory
        self._clock = clock
        self._callbacks: list[_Callback] = []

    def register(self, callback: Callable[[], Any], *, emergency_only: bool) -> None:
        """Adds a callback without arguments.

        Raises:
            UsageError: it cannot be called.
        """
        if not callable(callback):
            raise UsageError(f"a cleanup callback is called without arguments; {callback!r} cannot be called")
        self._callbacks.append(_Callback(callback, emergency_only))

    def unregister(self, callback: Callable[[], Any]) -> None:
        """Removes a callback; nothing happens where it is not registered."""
        self._callbacks = [known for known in self._callbacks if known.run != callback]

    def run(self, reason: str, *, emergency: bool) -> CleanupResult:
        """Cleans up, and keeps the event."""
        before_bytes = self._memory.resident_bytes()
        failures = tuple(
            failure for callback in list(self._callbacks) if (failure := _failure(callback, emergency))
        )
        self._memory.collect_and_trim()
        event = CleanupEvent(
            at_s=self._clock(),
            reason=reason,
            emergency=emergency,
            before_bytes=before_bytes,
            after_bytes=self._memory.resident_bytes(),
            failures=failures,
        )
        self.events.append(event)
        return CleanupResult(
            ran=True,
            before_bytes=before_bytes,
            after_bytes=event.after_bytes,
            reason=reason,
            emergency=emergency,
            failures=failures,
        )


def _failure(callback: _Callback, emergency: bool) -> str:
    """Runs one callback, if this is its case; what it raised, or nothing."""
    if callback.emergency_only and not emergency:
        return ""
    try:
        callback.run()
    except Exception as error:  # the program's own cleanup must not end its work, nor the other cleanups
        _logger.warning("cleanup callback %s failed", callback.name, exc_info=True)
        return f"{callback.name}: {type(error).__name__}: {text_of(error)}"
    return ""
