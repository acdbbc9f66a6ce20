"""Notes each full run of Python's cyclic collector, for as long as somebody wants to know."""

from __future__ import annotations

import gc
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from pytest_membudget.records.monitor import CollectionEvent

_FULL = 2


class CollectionsLog:
    """The latest full collections. Young generations are collected too often to be worth a line each."""

    def __init__(self, clock: Callable[[], float], most: int) -> None:
        events: deque[CollectionEvent] = deque(maxlen=most)

        def note(phase: str, info: dict[str, Any]) -> None:
            if phase == "stop" and info["generation"] == _FULL:
                events.append(CollectionEvent(clock(), _FULL, info["collected"]))

        gc.callbacks.append(note)
        self.events = events
        self._stop = weakref.finalize(self, _remove, note)

    def close(self) -> None:
        """Stops listening; the events stay. A log that nobody holds any more stops by itself."""
        self._stop()


def _remove(note: Callable[[str, dict[str, Any]], None]) -> None:
    if note in gc.callbacks:
        gc.callbacks.remove(note)
