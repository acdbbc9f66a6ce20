"""What an executor holds of the budget that programs of this host share.

It is one lease, which grows before tasks start and shrinks as they end: a lease for each task would cost a transaction on a file at
its start and at its end, a millisecond in all. What is free is added to it while no other program waits, and what its tasks do not
need is given back as soon as one does. What it then needs again it requests at the end of the host's queue, like any other.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable

from pytest_membudget.errors import UnreadableFileError
from pytest_membudget.runtime.admission.budgets import Budget
from pytest_membudget.runtime.admission.host_ledger import HostClaim, HostLedger
from pytest_membudget.runtime.admission.host_scope import HostScope

SHARE_POLL_S = 0.05
"""Seconds between two transactions without a change of our own: the dead are removed, a measured budget is read."""

OTHERS_HOLD_S = 30.0
"""In a control group: so long nothing runs where other programs that were not agreed with hold what the next task needs."""

SURPLUS_S = 0.25
"""Seconds that a lease may be larger than what its tasks and the next ones need, while no other program waits."""

_logger = logging.getLogger("pytest_membudget")


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
        super().__init__(scope, clock, patience_s=OTHERS_HOLD_S)
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
