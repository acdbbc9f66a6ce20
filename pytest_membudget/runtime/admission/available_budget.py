"""How much may be granted where nobody named a budget: what is really available now, read again and again."""

from __future__ import annotations

import os
from collections.abc import Callable

from pytest_membudget.measurement.process.descendants import descendants
from pytest_membudget.measurement.process.high_water import tree_resident_bytes
from pytest_membudget.measurement.system.limit import memory_reading
from pytest_membudget.records.measurement import MemoryReading

ReadMemory = Callable[[], MemoryReading]

RESERVE_SHARE = 0.20
"""Share of the limit that is never granted: for the system, and for growth outside the leases."""

REREAD_S = 0.05
"""Seconds between two looks at the memory while somebody waits for it: nobody tells us when others give some back."""


def read_memory() -> MemoryReading:
    """The real limit and what is free under it."""
    return memory_reading()


def reserved_share_bytes(limit_bytes: int, reserve: float) -> int:
    """What is kept back of a limit."""
    return round(limit_bytes * reserve)


def unreserved_bytes(reading: MemoryReading, reserve: float, resident_bytes: int) -> int:
    """The budget under a reading: what is available, and what of it our own leases fill already, less the reserve."""
    kept_back_bytes = reserved_share_bytes(reading.limit.bytes, reserve)
    return max(0, reading.available_bytes + resident_bytes - kept_back_bytes)


class AvailableBudget:
    """The limit less a reserve, less what others use, as it changes.

    A lease's memory is promised first and becomes resident later; from then on it lowers what is available as well.
    So that it is not counted twice, the resident part of the leases is added back. Nobody can tell it apart from
    other memory, but it cannot be more than was granted, nor than this process and its children grew since no lease
    was out, nor than use grew altogether since then. The least of the three is added.
    """

    def __init__(
        self,
        reading: ReadMemory = read_memory,
        *,
        reserve: float = RESERVE_SHARE,
        own_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._reading = reading
        self._reserve = reserve
        self._own_bytes = own_bytes or own_tree_bytes
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
        resident_bytes = min(
            granted_bytes,
            max(0, own_bytes - self._own_when_empty_bytes),
            max(0, self._available_when_empty_bytes - reading.available_bytes),
        )
        return unreserved_bytes(reading, self._reserve, resident_bytes)


def own_tree_bytes() -> int:
    """Resident memory of this process and of all below it, in bytes."""
    return sum(tree_resident_bytes([os.getpid(), *descendants()]).values())
