"""A semaphore's book where the budget belongs to the whole host: the state is a file, and waiting is looking again."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import secrets
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from pytest_membudget.errors import UsageError
from pytest_membudget.records.run import SemaphoreStatistics
from pytest_membudget.runtime.admission.available_budget import ReadMemory, reserved_share_bytes
from pytest_membudget.runtime.admission.host_ledger import HostClaim, HostClient, HostLedger, Owner
from pytest_membudget.runtime.admission.host_state_file import HostStateFile, is_alive, this_process
from pytest_membudget.runtime.admission.process_scope import Clock, Wait

POLL_S = 0.004
"""Seconds, on average, between two looks at whether the file was replaced: whoever releases grants for all."""

REAP_S = 0.1
"""Seconds, on average, between two looks for dead owners and memory that came free: nobody announces those."""

_forgotten: collections.deque[tuple[Path, int, str]] = collections.deque()
"""Clients to take out at the next transaction: file, process and id. A semaphore that is merely dropped ends up here
by the collector, which may run in the middle of a transaction and so must not begin one."""


class HostScope:
    """Takes part in the budget of one name. After a fork the child takes part on its own account."""

    def __init__(
        self,
        budget_bytes: int | None,
        *,
        name: str,
        reserve: float,
        max_overtakes: int,
        reading: ReadMemory,
        clock: Clock = time.monotonic,
        wait: Wait = threading.Event.wait,
        directory: Path | None = None,
    ) -> None:
        self._file = HostStateFile(name, directory)
        self._budget_bytes = budget_bytes
        self._reserve = reserve
        self._max_overtakes = max_overtakes
        self._reading = reading
        self._clock = clock
        self._wait = wait
        self._never = threading.Event()
        self._closed = False
        self._register()
        with self._ledger():
            pass

    def ceiling_bytes(self) -> int:
        """The smallest limit among the programs that take part."""
        with self._ledger() as ledger:
            return ledger.ceiling_bytes()

    def submit(self, size_bytes: int, *, exclusive: bool) -> HostClaim:
        """A request at the end of the host's line, or granted already."""
        if self._closed:
            raise UsageError("this semaphore was closed and takes no more requests; make a new one")
        claim = HostClaim(
            id=secrets.token_hex(8),
            owner=self._this_process(),
            client=self._client.id,
            bytes=size_bytes,
            exclusive=exclusive,
        )
        try:
            with self._ledger() as ledger:
                ledger.submit(claim)
                self._mine[claim.id] = claim
        except BaseException:
            if claim.id in self._mine:
                self.release(claim)
            raise
        return claim

    def wait(self, claim: HostClaim, timeout_s: float | None) -> bool:
        """Looks again and again until somebody's release, or our own reaping, has granted the request."""
        deadline_s = None if timeout_s is None else self._clock() + timeout_s
        try:
            self._poll_until_granted(claim, deadline_s)
            if not claim.granted:
                self._withdraw(claim)
        except BaseException:
            self.release(claim)
            raise
        return claim.granted

    def release(self, claim: HostClaim) -> None:
        """Gives the bytes or the place in the line back; in a forked child they are the parent's."""
        if claim.owner.pid != os.getpid() or self._mine.pop(claim.id, None) is None:
            return
        with self._ledger() as ledger:
            ledger.remove(claim.id)

    def charge(self, claim: HostClaim, resident_bytes: int) -> None:
        """Charges a granted request what it really holds."""
        claim.resident_bytes = resident_bytes
        with self._ledger() as ledger:
            ledger.charge(claim.id, resident_bytes)

    def would_grant(self, size_bytes: int) -> bool:
        """Whether a request that came now would start at once."""
        with self._ledger() as ledger:
            ledger.grant()
            return ledger.would_grant(size_bytes)

    def statistics(self) -> SemaphoreStatistics:
        """The host's book at this instant."""
        with self._ledger() as ledger:
            ledger.grant()
            return ledger.statistics()

    def close(self) -> None:
        """Our limit counts no longer. Leases stay out until they are released or this process ends."""
        if not self._closed:
            self._closed = True
            self._forget()
            with self._ledger():
                pass

    @contextlib.contextmanager
    def _ledger(self) -> Iterator[HostLedger]:
        """The host's ledger, ours alone while the block runs, settled at its end."""
        self._this_process()
        with self._file.transaction() as state:
            ledger = HostLedger(state, alive=is_alive, reading=self._reading)
            ledger.remove_clients(_take_forgotten(self._file.path))
            if not self._closed:
                ledger.add_client(self._client)
            ledger.reconcile(self._client.id, list(self._mine.values()))
            yield ledger
            ledger.grant()
            for claim in ledger.state.claims:
                mine = self._mine.get(claim.id)
                if mine is not None:
                    mine.granted = claim.granted

    def _this_process(self) -> Owner:
        """The calling process, which takes part anew if it was forked from the one that did."""
        if os.getpid() != self._owner.pid:
            self._register()
        return self._owner

    def _register(self) -> None:
        self._owner = this_process()
        self._mine: dict[str, HostClaim] = {}
        most_bytes = self._budget_bytes
        if most_bytes is None:
            limit_bytes = self._reading().limit.bytes
            most_bytes = limit_bytes - reserved_share_bytes(limit_bytes, self._reserve)
        self._client = HostClient(
            id=secrets.token_hex(8),
            owner=self._owner,
            budget_bytes=most_bytes,
            max_overtakes=self._max_overtakes,
            reserve=self._reserve if self._budget_bytes is None else None,
        )
        self._forget = weakref.finalize(
            self, _forgotten.append, (self._file.path, self._owner.pid, self._client.id)
        )
        self._forget.atexit = False  # whoever reads the file next sees that the process has ended

    def _poll_until_granted(self, claim: HostClaim, deadline_s: float | None) -> None:
        seen = (0, 0, 0)
        reap_at_s = self._clock() + REAP_S
        while not claim.granted:
            now_s = self._clock()
            left_s = REAP_S if deadline_s is None else deadline_s - now_s
            if left_s <= 0:
                return
            self._wait(self._never, min(left_s, POLL_S * random.uniform(0.5, 1.5)))
            if now_s >= reap_at_s:
                reap_at_s = now_s + REAP_S * random.uniform(0.5, 1.5)
                with self._ledger():
                    pass
            elif (signature := self._file.signature()) != seen:
                seen = signature
                claim.granted = any(
                    other.granted for other in self._file.peek().claims if other.id == claim.id
                )

    def _withdraw(self, claim: HostClaim) -> None:
        """Leaves the line, unless the request is granted in this very moment."""
        with self._ledger() as ledger:
            ledger.grant()
            found = ledger.find(claim.id)
            if found is None or not found.granted:
                ledger.remove(claim.id)
                self._mine.pop(claim.id, None)


def _take_forgotten(path: Path) -> set[str]:
    """Takes out of the list, and returns, the clients of this process in that file."""
    here: set[str] = set()
    elsewhere = []
    with contextlib.suppress(IndexError):
        while True:
            entry = _forgotten.popleft()
            if entry[0] != path:
                elsewhere.append(entry)
            elif entry[1] == os.getpid():
                here.add(entry[2])
    _forgotten.extend(elsewhere)
    return here
