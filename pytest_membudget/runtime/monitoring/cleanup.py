"""Gives memory back: the callbacks of the program, a collection, and what malloc keeps."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from pytest_membudget.errors import UsageError, text_of
from pytest_membudget.records.monitor import CleanupEvent, CleanupResult

_logger = logging.getLogger("pytest_membudget")


class MemorySource(Protocol):
    """What a cleanup needs of `measurement.process_memory.ProcessMemory`."""

    def resident_bytes(self) -> int:
        """What is resident now."""

    def collect_and_trim(self) -> None:
        """Collects garbage and gives free memory back."""


class _Callback(NamedTuple):
    run: Callable[[], Any]
    emergency_only: bool

    @property
    def name(self) -> str:
        return getattr(self.run, "__qualname__", None) or repr(self.run)


class Cleaner:
    """Runs the registered callbacks in their order. One that raises is reported and stops none of the others."""

    def __init__(self, memory: MemorySource, clock: Callable[[], float], most: int) -> None:
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
