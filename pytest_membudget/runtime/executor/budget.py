"""What all tasks may take together: the figure that was given, or what is really available now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pytest_membudget.records.measurement import MemoryReading
from pytest_membudget.runtime.admission.available_budget import RESERVE_SHARE
from pytest_membudget.runtime.admission.host_share import HostShare

READ_EVERY_S = 0.25


class AnyBudget(Protocol):
    """What a driver and an engine ask of a budget."""

    @property
    def is_fixed(self) -> bool:
        """Whether it is a figure that was given, and never moves."""

    @property
    def largest_bytes(self) -> int:
        """The budget as it would be if nothing else used any memory."""

    @property
    def ceiling_bytes(self) -> int:
        """A task that is expected to take more is refused."""

    def now_bytes(self, own_bytes: Callable[[], int]) -> int:
        """The budget as it is now; `own_bytes` says what this executor's own workers hold."""


class SharedBudget:
    """What this executor holds of the budget that programs of this host share.

    Args:
        share: grows and shrinks with what the tasks need.
    """

    is_fixed = False

    def __init__(self, share: HostShare) -> None:
        self.share = share

    @property
    def largest_bytes(self) -> int:
        """The smallest budget among the programs that take part."""
        return self.share.ceiling_bytes

    ceiling_bytes = largest_bytes

    def now_bytes(self, own_bytes: Callable[[], int]) -> int:
        """What is granted now."""
        return self.share.held_bytes


class Budget:
    """In bytes. Without a figure it is the limit, less a reserve, less what others use.

    The reserve is 20% of the limit, or what `target_memory` leaves where that is more. What this executor's own workers
    hold is not "others".

    Args:
        fixed_bytes: the figure that was given, if any.
        target_memory: share of the limit that all use together may reach.
        reading: reads the limit and what is used of it.
        clock: seconds that pass.
    """

    def __init__(
        self,
        fixed_bytes: int | None,
        target_memory: float,
        reading: Callable[[], MemoryReading],
        clock: Callable[[], float],
    ) -> None:
        self._fixed_bytes = fixed_bytes
        self._share = min(1 - RESERVE_SHARE, target_memory)
        self._reading = reading
        self._clock = clock
        self._read_at = float("-inf")
        self._last: MemoryReading | None = None
        self._others_bytes = 0

    @property
    def is_fixed(self) -> bool:
        """Whether it is a figure that was given."""
        return self._fixed_bytes is not None

    @property
    def largest_bytes(self) -> int:
        """The budget as it would be if nothing else used any memory."""
        if self._fixed_bytes is not None:
            return self._fixed_bytes
        if self._last is None:
            self._last = self._reading()
        return int(self._share * self._last.limit.bytes)

    @property
    def ceiling_bytes(self) -> int:
        """The most that a task may be expected to take: the figure that was given, or the machine's limit itself."""
        if self._fixed_bytes is not None:
            return self._fixed_bytes
        if self._last is None:
            self._last = self._reading()
        return self._last.limit.bytes

    def now_bytes(self, own_bytes: Callable[[], int]) -> int:
        """The budget as it is now; `own_bytes` says what this executor's own workers hold. Read four times a second."""
        if self._fixed_bytes is None and self._clock() - self._read_at >= READ_EVERY_S:
            self._last = self._reading()
            self._read_at = self._clock()
            self._others_bytes = max(0, self._last.used_bytes - own_bytes())
        return max(0, self.largest_bytes - self._others_bytes)
