"""How much may be granted: a figure that was given, or what is really available now.

`Budget` is an executor's, `AvailableBudget` a semaphore's, for which no figure was given. An executor knows what its own workers
hold, so all else that is used is what others use. A semaphore does not. Let L be the limit, A what is available under it now, r the
share of L in reserve, and R the part of the granted bytes that is resident already. The budget is

    A + R - r·L

since R has lowered A, and would be counted twice otherwise. R cannot be told apart from other memory. It is at most what
was granted, at most what the processes that hold the leases grew by since they held none, and at most what A fell by
since no lease was out. The least of the three is used, so that a wrong guess makes the budget smaller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_membudget.measurement.process.children import tree_resident_bytes
from pytest_membudget.measurement.system.machine import (
    STALLED_SHARE,
    WINDOW_S,
    MemoryPressure,
    memory_pressure,
    memory_reading,
)
from pytest_membudget.records.measurement import MemoryReading
from pytest_membudget.units import format_share

if TYPE_CHECKING:
    from pytest_membudget.runtime.admission.host_share import HostShare

ReadMemory = Callable[[], MemoryReading]

RESERVE_SHARE = 0.20
"""Share of the limit that is never granted: for the system, and for growth outside the leases."""

REREAD_S = 0.05
"""Seconds between two readings while a request waits: memory that others give back is not announced."""

READ_EVERY_S = 0.25
"""Seconds between two readings for a budget of an executor."""

_logger = logging.getLogger("pytest_membudget")


def reserved_share_bytes(limit_bytes: int, reserve: float) -> int:
    """What is kept back of a limit."""
    return round(limit_bytes * reserve)


def unreserved_bytes(reading: MemoryReading, reserve: float, resident_bytes: int) -> int:
    """A + R - r·L, at least 0; `resident_bytes` is R."""
    kept_back_bytes = reserved_share_bytes(reading.limit.bytes, reserve)
    return max(0, reading.available_bytes + resident_bytes - kept_back_bytes)


def resident_part_bytes(granted_bytes: int, holders_grew_bytes: int, use_grew_bytes: int) -> int:
    """R: the least of the three figures that bound it; growth below 0 counts as none."""
    return max(0, min(granted_bytes, holders_grew_bytes, use_grew_bytes))


class AvailableBudget:
    """The limit less a reserve, less what others use, as it changes; for the leases of one process.

    Args:
        reading: the limit and what is available.
        reserve: share of the limit that is kept back.
        own_bytes: what this process and all below it hold.
    """

    def __init__(
        self,
        reading: ReadMemory = memory_reading,
        *,
        reserve: float = RESERVE_SHARE,
        own_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._reading = reading
        self._reserve = reserve
        self._own_bytes = own_bytes or tree_resident_bytes
        self._available_when_empty_bytes = 0
        self._own_when_empty_bytes = 0
        self.limit_bytes = 0

    @property
    def reserve_bytes(self) -> int:
        """What is kept back of the limit, as last read."""
        return reserved_share_bytes(self.limit_bytes, self._reserve)

    def read(self, granted_bytes: int) -> int:
        """The budget now, in bytes, of which `granted_bytes` are out. The first reading must be of an empty ledger."""
        reading = self._reading()
        own_bytes = self._own_bytes()
        self.limit_bytes = reading.limit.bytes
        if granted_bytes == 0:
            self._available_when_empty_bytes = reading.available_bytes
            self._own_when_empty_bytes = own_bytes
        resident_bytes = resident_part_bytes(
            granted_bytes,
            own_bytes - self._own_when_empty_bytes,
            self._available_when_empty_bytes - reading.available_bytes,
        )
        return unreserved_bytes(reading, self._reserve, resident_bytes)


class PressureGate:
    """Closes admission while tasks of this machine, or of this control group, stall for want of memory.

    Each closing is logged once.
    """

    def __init__(self, pressure: MemoryPressure | None = None) -> None:
        self._pressure = pressure or memory_pressure()
        self._was_closed = False

    @property
    def source(self) -> str:
        """The pressure file; empty where the kernel has none."""
        return self._pressure.source

    def is_closed(self) -> bool:
        """Whether nothing is to start now beside what runs."""
        is_closed = self._pressure.is_stalled()
        if is_closed and not self._was_closed:
            _logger.warning(
                "memory pressure: tasks stalled for want of memory for %s or more of the last %g s (%s); nothing new "
                "starts beside what runs until that has passed",
                format_share(STALLED_SHARE),
                WINDOW_S,
                self._pressure.source,
            )
        self._was_closed = is_closed
        return is_closed


def budget_while_closed(budget_bytes: int, granted_bytes: int) -> int:
    """The budget while the gate is closed: what is out already; all of it where nothing is, so that something runs.

    The caller grants one request at a time then, and asks again before the next.
    """
    return min(budget_bytes, granted_bytes) if granted_bytes else budget_bytes


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

    #: what is held of the host's budget; none of it
    share: HostShare | None = None

    def __init__(
        self,
        fixed_bytes: int | None,
        target_memory: float,
        reading: Callable[[], MemoryReading],
        clock: Callable[[], float],
    ) -> None:
        self._fixed_bytes = fixed_bytes
        self.is_fixed = fixed_bytes is not None
        self._share = min(1 - RESERVE_SHARE, target_memory)
        self._reading = reading
        self._clock = clock
        self._read_at = float("-inf")
        self._last: MemoryReading | None = None
        self._others_bytes = 0

    @property
    def largest_bytes(self) -> int:
        """The budget as it would be if nothing else used any memory."""
        return int(self._share * self._limit_bytes()) if self._fixed_bytes is None else self._fixed_bytes

    @property
    def ceiling_bytes(self) -> int:
        """The most that a task may be expected to take: the figure that was given, or the machine's limit itself."""
        return self._limit_bytes() if self._fixed_bytes is None else self._fixed_bytes

    def _limit_bytes(self) -> int:
        """The machine's limit as last read."""
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
