"""The book of one process: a ledger behind a lock, and an event for each thread that waits."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from pytest_membudget.errors import UsageError
from pytest_membudget.records.run import SemaphoreStatistics
from pytest_membudget.runtime.admission.available_budget import REREAD_S, AvailableBudget
from pytest_membudget.runtime.admission.ledger import Ledger, Ticket

Clock = Callable[[], float]
Wait = Callable[[threading.Event, float | None], bool]


class ProcessScope:
    """Serves the threads of the process that made it, and no other: a forked child would have a second budget.

    `available` measures the budget where none was given. `clock` and `wait` are replaced by tests.
    """

    def __init__(
        self,
        budget_bytes: int | None,
        *,
        max_overtakes: int,
        available: AvailableBudget,
        clock: Clock = time.monotonic,
        wait: Wait = threading.Event.wait,
    ) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._clock = clock
        self._wait = wait
        self._available = available if budget_bytes is None else None
        if budget_bytes is None:
            measured_bytes = available.read(0)
            ceiling_bytes = available.limit_bytes - available.reserve_bytes
            self._ledger = Ledger(measured_bytes, max_overtakes=max_overtakes, ceiling_bytes=ceiling_bytes)
        else:
            self._ledger = Ledger(budget_bytes, max_overtakes=max_overtakes)

    def ceiling_bytes(self) -> int:
        """The budget, or where it is measured the limit less the reserve."""
        return self._ledger.ceiling_bytes

    def submit(self, size_bytes: int, *, exclusive: bool) -> Ticket:
        """A request at the end of the line, or granted already."""
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
        deadline_s = None if timeout_s is None else self._clock() + timeout_s
        try:
            while claim.state == "waiting":
                patience_s = self._patience_s(deadline_s)
                if patience_s is not None and patience_s <= 0:
                    break
                self._wait(claim.token, patience_s)
                self._reread_budget()
            with self._lock:
                if claim.state == "waiting":
                    self._ledger.cancel(claim)
                    self._grant()  # it may have held others up
        except BaseException:
            self.release(claim)
            raise
        return claim.state == "granted"

    def release(self, claim: Ticket) -> None:
        """Gives the bytes or the place in the line back; a forked child has neither."""
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

    def close(self) -> None:
        """Nothing is kept outside this process."""

    def _reread_budget(self) -> None:
        """Where the budget is measured, memory may have come free without anybody telling us."""
        if self._available is not None:
            with self._lock:
                self._read_budget()
                self._grant()

    def _read_budget(self) -> None:
        if self._available is not None:
            self._ledger.set_budget(self._available.read(self._ledger.reserved_bytes))

    def _grant(self) -> None:
        for ticket in self._ledger.grant():
            if ticket.token is not None:
                ticket.token.set()

    def _patience_s(self, deadline_s: float | None) -> float | None:
        """Seconds to sleep before the next look; `None` where only a release can change anything."""
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
