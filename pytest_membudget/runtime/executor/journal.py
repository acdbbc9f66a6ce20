"""What the caller can read afterwards: every change of level, loss and repeat, each with its cause."""

from __future__ import annotations

import logging
import time
from collections import deque

from pytest_membudget.records.run import LevelEvent

_logger = logging.getLogger("pytest_membudget.runtime")

MOST_EVENTS = 10_000


class Journal:
    """The latest events, oldest first, and the clock they are told by."""

    def __init__(self) -> None:
        self._events: deque[LevelEvent] = deque(maxlen=MOST_EVENTS)
        self._began_s = time.monotonic()

    def note(self, event: LevelEvent) -> None:
        """Keeps an event."""
        self._events.append(event)

    def tell_of_host(self, cause: str, next_step: str) -> None:
        """Logs and keeps what happened to a machine of a cluster."""
        event = LevelEvent(kind="host", level="dask", cause=cause, next_step=next_step, at_s=self.elapsed_s())
        _logger.warning("%s", event)
        self.note(event)

    def elapsed_s(self) -> float:
        """Seconds since the executor was made."""
        return time.monotonic() - self._began_s

    @property
    def events(self) -> tuple[LevelEvent, ...]:
        """All that is kept."""
        return tuple(self._events)
