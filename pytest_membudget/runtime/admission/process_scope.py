"""A semaphore within one process: a ledger behind a lock, and an event for each thread or coroutine that waits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from pytest_membudget.errors import UsageError
from pytest_membudget.records.run import SemaphoreStatistics
from pytest_membudget.runtime.admission.budgets import (
    REREAD_S,
    AvailableBudget,
    PressureGate,
    budget_while_closed,
)
from pytest_membudget.runtime.admission.ledger import Ledger, Ticket

Clock = Callable[[], float]
Wait = Callable[[threading.Event, float | None], bool]


class ProcessScope:
    """Serves the threads of the process that made it, and no other: a forked child would have a second budget.

    Where no budget was given, `available` measures it, and `gate` closes it under memory pressure. `clock` and `wait` are
    replaced by tests.
    """

    def __init__(
        self,
        budget_bytes: int | None,
        *,
        max_overtakes: int,
        available: AvailableBudget,
        gate: PressureGate | None = None,
        clock: Clock = time.monotonic,
        wait: Wait = threading.Event.wait,
    ) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._clock = clock
        self._wait = wait
        self._available: AvailableBudget | None = None
        self._gate: PressureGate | None = None
        self._is_closed = False
        if budget_bytes is None:
            self._available, self._gate = available, gate or PressureGate()
            measured_bytes = available.read(0)
            ceiling_bytes = available.limit_bytes - available.reserve_bytes
            self._ledger = Ledger(measured_bytes, max_overtakes=max_overtakes, ceiling_bytes=ceiling_bytes)
        else:
            self._ledger = Ledger(budget_bytes, max_overtakes=max_overtakes)

    def ceiling_bytes(self) -> int:
        """The budget, or where it is measured the limit less the reserve."""
        return self._ledger.ceiling_bytes

    def submit(self, size_bytes: int, *, exclusive: bool) -> Ticket:
        """A request at the end of the queue, or granted already."""
        self._refuse_children()
        with self._lock:
            self._read_budget()
            ticket = self._ledger.submit(size_bytes, exclusive=exclusive)
            self._grant()
            if ticket.state == "waiting":
                ticket.token = threading.Event()
        return ticket

    def wait(self, claim: Ticket, timeout_s: float | None) -> bool:
        """Sleeps until the request is granted or its time is over."""
        try:
            for patience_s in self._waits(claim, timeout_s):
                self._wait(claim.token, patience_s)
            return self._end_wait(claim)
        except BaseException:
            self.release(claim)
            raise

    async def wait_async(self, claim: Ticket, timeout_s: float | None) -> bool:
        """Likewise without blocking the event loop; a cancelled wait gives its place in the queue back."""
        try:
            for patience_s in self._waits(claim, timeout_s):
                wake_up = _WakeUp()
                if not self._wake_when_granted(claim, wake_up):
                    break
                await asyncio.wait([wake_up.future], timeout=patience_s)
            return self._end_wait(claim)
        except BaseException:
            self.release(claim)
            raise

    def release(self, claim: Ticket) -> None:
        """Gives the bytes or the place in the queue back; a forked child has neither."""
        if os.getpid() != self._pid:
            return  # it unwinds its copy of the parent's block; the bytes stay the parent's
        with self._lock:
            self._ledger.cancel(claim)
            self._read_budget()
            self._grant()

    def charge(self, claim: Ticket, resident_bytes: int) -> None:
        """Charges a granted request what it really holds."""
        self._refuse_children()
        with self._lock:
            self._ledger.charge(claim, resident_bytes)
            self._grant()

    def would_grant(self, size_bytes: int) -> bool:
        """Whether a request that came now would start at once."""
        self._refuse_children()
        with self._lock:
            self._read_budget()
            self._grant()
            return self._ledger.would_grant(size_bytes)

    def statistics(self) -> SemaphoreStatistics:
        """The ledger at this instant."""
        self._refuse_children()
        with self._lock:
            self._read_budget()
            self._grant()
            return self._ledger.statistics()

    def environment(self, claim: Ticket) -> Mapping[str, str]:
        """Nothing: a lease of one process is not handed to the programs that it starts."""
        return {}

    def close(self) -> None:
        """Nothing is kept outside this process."""

    def _waits(self, claim: Ticket, timeout_s: float | None) -> Iterator[float | None]:
        """Seconds to sleep next, until the request is granted or its time is over; `None` for as long as it takes."""
        deadline_s = None if timeout_s is None else self._clock() + timeout_s
        while claim.state == "waiting":
            patience_s = self._patience_s(deadline_s)
            if patience_s is not None and patience_s <= 0:
                return
            yield patience_s
            self._reread_budget()

    def _wake_when_granted(self, claim: Ticket, wake_up: _WakeUp) -> bool:
        """False where the request was granted meanwhile."""
        with self._lock:
            claim.token = wake_up
            return claim.state == "waiting"

    def _end_wait(self, claim: Ticket) -> bool:
        with self._lock:
            if claim.state == "waiting":
                self._ledger.cancel(claim)
                self._grant()  # it may have held others up
        return claim.state == "granted"

    def _reread_budget(self) -> None:
        """Where the budget is measured, memory may have come free without a release of ours."""
        if self._available is not None:
            with self._lock:
                self._read_budget()
                self._grant()

    def _read_budget(self) -> None:
        if self._available is not None and self._gate is not None:
            granted_bytes = self._ledger.reserved_bytes
            budget_bytes = self._available.read(granted_bytes)
            self._is_closed = self._gate.is_closed()
            if self._is_closed:
                budget_bytes = budget_while_closed(budget_bytes, granted_bytes)
            self._ledger.set_budget(budget_bytes)

    def _grant(self) -> None:
        for ticket in self._ledger.grant(1 if self._is_closed else None):
            if ticket.token is not None:
                ticket.token.set()

    def _patience_s(self, deadline_s: float | None) -> float | None:
        """Seconds to sleep before the budget is read again; `None` where only a release can change anything."""
        left_s = None if deadline_s is None else min(deadline_s - self._clock(), threading.TIMEOUT_MAX)
        if self._available is None:
            return left_s
        return REREAD_S if left_s is None else min(REREAD_S, left_s)

    def _refuse_children(self) -> None:
        if os.getpid() != self._pid:
            raise UsageError(
                f"this semaphore belongs to process {self._pid} and would be a second budget in its child {os.getpid()}; "
                'make it with scope="host" to share one, or reserve before the work is handed to the child'
            )


class _WakeUp:
    """Ends a coroutine's wait from any thread; like `threading.Event`, as far as a grant uses it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self._loop.create_future()

    def set(self) -> None:
        """Wakes the coroutine; without effect where its event loop is closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)
