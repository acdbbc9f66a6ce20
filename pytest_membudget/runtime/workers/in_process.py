"""What the levels without processes have in common: calls run in the coordinator itself, in its own memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from pytest_membudget.runtime.workers.protocol import (
    Call,
    Delay,
    Figures,
    InitializerFailed,
    Raised,
    RanOut,
    Reply,
    Returned,
)

_logger = logging.getLogger("concurrent.futures")

Prepare = Callable[[], InitializerFailed | None]


class LocalLauncher:
    """Starts workers that are part of the coordinator: its own thread, or others beside it."""

    own_memory = False

    def __init__(
        self, initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()
    ) -> None:
        self._initializer = initializer
        self._initargs = initargs

    def prepare(self) -> InitializerFailed | None:
        """Runs the caller's initializer; what it raised, if anything."""
        if self._initializer is None:
            return None
        try:
            self._initializer(*self._initargs)
        except BaseException as error:  # the caller's: it is reported with the first call
            _logger.critical("Exception in initializer:", exc_info=True)
            return InitializerFailed(error)
        return None


class LocalWorker:
    """A worker in the coordinator."""

    pid = None

    def delay(self, sequence: int) -> Delay | None:
        """It has nothing to start or to import."""
        return None

    def added_bytes(self) -> int:
        """It has no memory of its own."""
        return 0


def run_here(call: Call) -> Reply:
    """Runs the call in this thread; whatever it raises becomes the reply."""
    began = time.monotonic()
    try:
        value = call.fn(*call.args, **call.kwargs)
    except MemoryError as error:
        return RanOut(error, Figures(time.monotonic() - began))
    except BaseException as error:  # the caller's own, whatever it is
        return Raised(error, Figures(time.monotonic() - began))
    return Returned(value, Figures(time.monotonic() - began))
