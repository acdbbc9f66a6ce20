"""How much may be granted: a figure that was given, what is really available now, or a share of the host's budget.

`Budget` is an executor's, `AvailableBudget` a semaphore's, for which no figure was given. An executor knows what its own workers
hold, so all else that is used is what others use. A semaphore does not. Let L be the limit, A what is available under it now, r the
share of L in reserve, and R the part of the granted bytes that is resident already. The budget is

    A + R - r·L

since R has lowered A, and would be counted twice otherwise. R cannot be told apart from other memory. It is at most what
was granted, at most what the processes that hold the leases grew by since they held none, and at most what A fell by
since no lease was out. The least of the three is used, so that a wrong guess makes the budget smaller.

`HostShare` is what an executor holds of the host's budget: one lease that grows before tasks start and shrinks as they end. A lease
for each task would cost a transaction on a file at its start and at its end, a millisecond in all. So it holds one for all that it
runs, adds to it what is free while no other program waits, and gives back what its tasks do not need as soon as one does. What it
then needs again it requests at the end of the host's queue, like any other.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_membudget.errors import UnreadableFileError
from pytest_membudget.measurement.process.children import tree_resident_bytes
from pytest_membudget.measurement.system.machine import memory_reading
from pytest_membudget.measurement.system.pressure import (
    STALLED_SHARE,
    WINDOW_S,
    MemoryPressure,
    memory_pressure,
)
from pytest_membudget.records.measurement import MemoryReading
from pytest_membudget.units import format_share

if TYPE_CHECKING:
    from pytest_membudget.runtime.admission.host_ledger import HostClaim, HostLedger
    from pytest_membudget.runtime.admission.host_scope import HostScope

ReadMemory = Callable[[], MemoryReading]

RESERVE_SHARE = 0.20
"""Share of the limit that is never granted: for the system, and for growth outside the leases."""

REREAD_S = 0.05
"""Seconds between two readings while a request waits: memory that others give back is not announced."""

READ_EVERY_S = 0.25
"""Seconds between two readings for a budget of an executor."""

SHARE_POLL_S = 0.05
"""Seconds between two transactions without a change of our own: the dead are removed, a measured budget is read."""

PATIENCE_S = 30.0
"""In a control group: so long nothing runs where other programs that were not agreed with hold what the next task needs."""

SURPLUS_S = 0.25
"""Seconds that a lease may be larger than what its tasks and the next ones need, while no other program waits."""

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


class HostShare:
    """Not thread-safe: it belongs to the thread that starts tasks.

    Args:
        scope: the budget of the host.
        clock: seconds that only go up.
        patience_s: where nothing runs the next task starts after so long, whatever others hold; at once where they hold nothing.
            `None` waits for them.
    """

    def __init__(
        self,
        scope: HostScope,
        clock: Callable[[], float] = time.monotonic,
        *,
        patience_s: float | None = None,
    ) -> None:
        self._scope = scope
        self._clock = clock
        self._patience_s = patience_s
        self._requested_at_s = 0.0
        self._lease: HostClaim | None = None
        self._request: HostClaim | None = None
        self._ceiling_bytes = scope.ceiling_bytes()
        #: whether another program waited for memory when it was last seen
        self.is_contended = False
        self._asked = (0, 0, 0)
        self._next_at_s = self._surplus_since_s = float("-inf")

    @property
    def held_bytes(self) -> int:
        """What is granted now."""
        return 0 if self._lease is None else self._lease.bytes

    @property
    def ceiling_bytes(self) -> int:
        """The smallest budget among the programs that take part, as last seen."""
        return self._ceiling_bytes

    def adjust(
        self, needed_bytes: int, next_bytes: int, wanted_bytes: int, *, nothing_runs: bool = False
    ) -> int:
        """Grows or shrinks the lease, and returns what is held then. Never waits for other programs.

        Args:
            needed_bytes: what runs now, and what its workers keep; never given back.
            next_bytes: what the next task needs beside that; 0 where none waits.
            wanted_bytes: what all tasks that could start now need with what runs.
            nothing_runs: whether no task runs; `needed_bytes` is then what idle workers keep.
        """
        asked = (needed_bytes, next_bytes, wanted_bytes)
        now_s = self._clock()
        if asked == self._asked and now_s < self._next_at_s:
            return self.held_bytes
        if asked == (0, 0, 0) and self._lease is None and self._request is None:
            return 0
        self._asked, self._next_at_s = asked, now_s + SHARE_POLL_S
        with self._scope.ledger() as ledger:
            self._ceiling_bytes = ledger.ceiling_bytes()
            ledger.grant()
            self._take_granted(ledger)
            self.is_contended = any(
                not claim.granted and claim.id not in self._scope.claims for claim in ledger.state.claims
            )
            if self.is_contended:
                self._shrink(ledger, needed_bytes)
            elif self._is_surplus(now_s, needed_bytes + next_bytes, wanted_bytes):
                self._shrink(ledger, max(needed_bytes, wanted_bytes))
            self._request_missing(ledger, needed_bytes, next_bytes, wanted_bytes)
            if nothing_runs:
                self._end_patience(ledger, now_s)
            if self._lease is not None:
                # What runs above its lease is an overrun: other programs wait until it fits again.
                overrun_bytes = needed_bytes if needed_bytes > self._lease.bytes else 0
                ledger.charge(self._lease.id, overrun_bytes)
                self._lease.resident_bytes = overrun_bytes
        return self.held_bytes

    def give_back(self) -> None:
        """Gives everything back at once: nothing runs, and the next task may be long in coming."""
        if self._request is not None:
            self._scope.release(self._request)
            self._request = None
        if self._lease is not None:
            with self._scope.ledger() as ledger:
                self._shrink(ledger, 0)

    def close(self) -> None:
        """Gives everything back, and takes part no more."""
        for claim in (self._request, self._lease):
            if claim is not None:
                self._scope.release(claim)
        self._request = self._lease = None
        self._scope.close()

    def _take_granted(self, ledger: HostLedger) -> None:
        """Makes a request that was granted a part of the lease."""
        request = self._request
        if request is None:
            return
        found = ledger.find(request.id)
        if found is None or not found.granted:
            return
        request.granted = True
        if self._lease is None:
            self._lease = request
        else:
            ledger.merge(self._lease.id, request.id)
            self._lease.bytes += request.bytes
            del self._scope.claims[request.id]
        self._request = None

    def _request_missing(
        self, ledger: HostLedger, needed_bytes: int, next_bytes: int, wanted_bytes: int
    ) -> None:
        least_bytes = min(needed_bytes + next_bytes, self._ceiling_bytes)
        most_bytes = min(max(wanted_bytes, least_bytes), self._ceiling_bytes)
        if self._request is None and self.held_bytes < least_bytes:
            self._request = self._scope.new_claim(least_bytes - self.held_bytes, exclusive=False)
            self._requested_at_s = self._clock()
            ledger.submit(self._request)
            self._scope.claims[self._request.id] = self._request
            ledger.grant()
            self._take_granted(ledger)
        if self._lease is not None and self.held_bytes < most_bytes:
            self._lease.bytes += ledger.grow(self._lease.id, 1, most_bytes - self.held_bytes)

    def _end_patience(self, ledger: HostLedger, now_s: float) -> None:
        if self._request is None or self._patience_s is None:
            return
        found = ledger.find(self._request.id)
        others_hold = any(
            claim.granted and claim.id not in self._scope.claims for claim in ledger.state.claims
        )
        if found is not None and not (others_hold and now_s - self._requested_at_s < self._patience_s):
            found.granted = True
            self._take_granted(ledger)

    def _shrink(self, ledger: HostLedger, size_bytes: int) -> None:
        if self._lease is None or self._lease.bytes <= size_bytes:
            return
        if size_bytes == 0:
            ledger.remove(self._lease.id)
            del self._scope.claims[self._lease.id]
            self._lease = None
        else:
            ledger.shrink(self._lease.id, size_bytes)
            self._lease.bytes = size_bytes
        ledger.grant()

    def _is_surplus(self, now_s: float, least_bytes: int, wanted_bytes: int) -> bool:
        if self.held_bytes <= max(least_bytes, wanted_bytes):
            self._surplus_since_s = now_s
            return False
        return now_s - self._surplus_since_s >= SURPLUS_S


class GroupShare(HostShare):
    """The same among programs of one control group that named no budget: each would else count on all that is free in it.

    They did not ask for it. So where the state cannot be read or written each goes on by itself.
    """

    def __init__(self, scope: HostScope, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(scope, clock, patience_s=PATIENCE_S)
        self._alone_bytes: int | None = None

    @property
    def held_bytes(self) -> int:
        """What is granted now, or what is needed where that cannot be asked for."""
        return super().held_bytes if self._alone_bytes is None else self._alone_bytes

    def adjust(
        self, needed_bytes: int, next_bytes: int, wanted_bytes: int, *, nothing_runs: bool = False
    ) -> int:
        """As of the host's budget."""
        if self._alone_bytes is None:
            try:
                return super().adjust(needed_bytes, next_bytes, wanted_bytes, nothing_runs=nothing_runs)
            except (OSError, UnreadableFileError) as error:
                _logger.warning(
                    "what other programs in this control group take cannot be read (%s); this one goes by what is "
                    "free now",
                    error,
                )
        self._alone_bytes = max(needed_bytes + next_bytes, min(wanted_bytes, self.ceiling_bytes))
        return self._alone_bytes

    def give_back(self) -> None:
        """Likewise."""
        with contextlib.suppress(OSError, UnreadableFileError):
            super().give_back()

    def close(self) -> None:
        """Likewise."""
        with contextlib.suppress(OSError, UnreadableFileError):
            super().close()


class SharedBudget:
    """What this executor holds of the budget that programs of this host share.

    Args:
        share: grows and shrinks with what the tasks need.
        limit_bytes: the most that a task may be expected to take, where that is more than the budget.
    """

    is_fixed = False

    def __init__(self, share: HostShare, limit_bytes: int = 0) -> None:
        self.share: HostShare = share
        self._limit_bytes = limit_bytes

    @property
    def largest_bytes(self) -> int:
        """The smallest budget among the programs that take part."""
        return self.share.ceiling_bytes

    @property
    def ceiling_bytes(self) -> int:
        """The same, or the machine's limit where the programs did not agree on a budget."""
        return max(self.largest_bytes, self._limit_bytes)

    def now_bytes(self, own_bytes: Callable[[], int]) -> int:
        """What is granted now."""
        return self.share.held_bytes


AnyBudget = Budget | SharedBudget
"""What an executor goes by. `is_fixed`: it is a figure that was given, and never moves."""
