"""A counting semaphore whose permits follow the pressure on memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pytest_membudget.runtime.admission.available_budget import REREAD_S, ReadMemory, read_memory
from pytest_membudget.runtime.parameters import count_of, share_of, timeout_of

WaitForChange = Callable[[threading.Condition, float], bool]


class DynamicSemaphore:
    """Think of a club that lets fewer people in when the air gets thin, and never asks anybody to leave.

    All `initial_permits` are there while at most `eta` of the limit is in use. From there to the limit they go down
    evenly, to one, and come back as memory does. It counts tasks, not bytes: where sizes are known, `MemorySemaphore`
    is the better choice.

    Args:
        initial_permits: how many may be inside together while memory is plenty.
        eta: share of the limit in use from which permits are withheld.
        reading, clock, wait: replaced by tests.
    """

    def __init__(
        self,
        initial_permits: int = 4,
        eta: float = 0.75,
        *,
        reading: ReadMemory = read_memory,
        clock: Callable[[], float] = time.monotonic,
        wait: WaitForChange = threading.Condition.wait,
    ) -> None:
        self.initial_permits = count_of("initial_permits", initial_permits)
        self.eta = share_of("eta", eta)
        self._reading = reading
        self._clock = clock
        self._wait = wait
        self._held = 0
        self._changed = threading.Condition(threading.Lock())

    @property
    def permits(self) -> int:
        """How many may be inside now: at least 1. Those who are inside stay, even where they are more."""
        reading = self._reading()
        used_share = reading.used_bytes / max(1, reading.limit.bytes)
        if used_share <= self.eta:
            return self.initial_permits
        left = (1.0 - used_share) / (1.0 - self.eta)
        return max(1, int(self.initial_permits * left))

    @property
    def held(self) -> int:
        """How many are inside."""
        return self._held

    def acquire(self, blocking: bool = True, timeout_s: float | None = None) -> bool:
        """Takes a permit; False where none came free in time, or at once where `blocking` is false."""
        limit_s = timeout_of("timeout_s", timeout_s) if blocking else 0.0
        deadline_s = None if limit_s is None else self._clock() + limit_s
        with self._changed:
            while self._held >= self.permits:
                patience_s = REREAD_S if deadline_s is None else min(REREAD_S, deadline_s - self._clock())
                if patience_s <= 0:
                    return False
                self._wait(self._changed, patience_s)
            self._held += 1
        return True

    def release(self) -> None:
        """Gives a permit back.

        Raises:
            ValueError: none is held.
        """
        with self._changed:
            if self._held == 0:
                raise ValueError(
                    "released more often than acquired; release once for each acquire that said True"
                )
            self._held -= 1
            self._changed.notify()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return (
            f"<DynamicSemaphore: {self._held} of {self.permits} permits held, at most {self.initial_permits}>"
        )
