"""A semaphore of the whole host: the budget is a file that all programs of a user share, and waiting is polling it."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import os
import random
import secrets
import sys
import threading
import time
import weakref
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from pytest_membudget.errors import UsageError
from pytest_membudget.measurement.process.children import tree_resident_bytes
from pytest_membudget.measurement.system.machine import memory_reading
from pytest_membudget.records.run import HostRequest, HostStatus, SemaphoreStatistics
from pytest_membudget.runtime.admission.budgets import (
    RESERVE_SHARE,
    PressureGate,
    ReadMemory,
    reserved_share_bytes,
    unreserved_bytes,
)
from pytest_membudget.runtime.admission.host_ledger import HostClaim, HostClient, HostLedger, Owner
from pytest_membudget.runtime.admission.host_state_file import HostStateFile, is_alive, this_process
from pytest_membudget.runtime.admission.process_scope import Clock, Wait

DEFAULT_NAME = "default"
"""The budget of programs that name none."""

POLL_S = 0.004
"""Seconds, on average, between two checks whether the file was replaced: the program that releases grants for all."""

REAP_S = 0.1
"""Seconds, on average, between two searches for dead owners and memory that came free: neither is announced."""

RETRY_S = 0.25
"""Seconds between two attempts to write a release down that could not be written, as on a full disk."""

LEASES_VARIABLE = "MEMBUDGET_HOST_LEASES"
"""Environment variable with the leases that a program was started in: lines of "claim id, bytes, state file"."""

LONGEST_LABEL = 120

_forgotten: collections.deque[tuple[Path, int, str]] = collections.deque()
"""Clients to take out at the next transaction: file, process and id. A semaphore that is merely dropped ends up here
by the collector, which may run in the middle of a transaction and so must not begin one."""


class HostScope:
    """Takes part in the budget of one name. After a fork the child takes part on its own account.

    A program that was started inside a lease of that budget (`environment`) shares the lease's bytes with the other
    programs in it, and not the whole budget: it would wait for its own ancestor otherwise.
    """

    def __init__(
        self,
        budget_bytes: int | None,
        *,
        name: str,
        reserve: float,
        max_overtakes: int,
        reading: ReadMemory,
        label: str | None = None,
        gate: PressureGate | None = None,
        clock: Clock = time.monotonic,
        wait: Wait = threading.Event.wait,
        directory: Path | None = None,
    ) -> None:
        self._file, leased_bytes = _innermost(HostStateFile(name, directory))
        if leased_bytes is not None:
            budget_bytes = leased_bytes if budget_bytes is None else min(budget_bytes, leased_bytes)
        self._budget_bytes = budget_bytes
        self._reserve = reserve
        self._max_overtakes = max_overtakes
        self._reading = reading
        self._label = (_command_line() if label is None else label)[:LONGEST_LABEL]
        self._gate = gate or PressureGate()
        self._clock = clock
        self._wait = wait
        self._never = threading.Event()
        self._closed = False
        self._client: HostClient
        self._register()
        with self.ledger():
            pass

    def ceiling_bytes(self) -> int:
        """The smallest limit among the programs that take part."""
        with self.ledger() as ledger:
            return ledger.ceiling_bytes()

    def is_within(self, pids: Collection[int]) -> bool:
        """Whether one of these processes takes part: what it waits for may be this one's end."""
        return any(client.owner.pid in pids for client in self._file.peek().clients)

    def submit(self, size_bytes: int, *, exclusive: bool) -> HostClaim:
        """A request at the end of the host's queue, or granted already."""
        claim = self.new_claim(size_bytes, exclusive=exclusive)
        try:
            with self.ledger() as ledger:
                ledger.submit(claim)
                self.claims[claim.id] = claim
        except BaseException:
            if claim.id in self.claims:
                self.release(claim)
            raise
        return claim

    def grow(self, claim: HostClaim, unit_bytes: int, most: int) -> int:
        """Adds as many units, at most `most`, to a granted claim as are free; none while a request waits for them."""
        with self.ledger() as ledger:
            units = ledger.grow(claim.id, unit_bytes, most)
            claim.bytes += units * unit_bytes
        return units

    def wait(self, claim: HostClaim, timeout_s: float | None) -> bool:
        """Polls until another program's release, or our own removal of a dead one, has granted the request."""
        try:
            for pause_s in self._poll(claim, timeout_s):
                self._wait(self._never, pause_s)
            return self._end_wait(claim)
        except BaseException:
            self.release(claim)
            raise

    async def wait_async(self, claim: HostClaim, timeout_s: float | None) -> bool:
        """Likewise without blocking the event loop; a cancelled wait gives its place in the queue back."""
        try:
            for pause_s in self._poll(claim, timeout_s):
                await asyncio.sleep(pause_s)
            return self._end_wait(claim)
        except BaseException:
            self.release(claim)
            raise

    def release(self, claim: HostClaim) -> None:
        """Gives the bytes or the place in the queue back; in a forked child they are the parent's.

        Where that cannot be written down now, as on a full disk, it is tried again until it is, or this process ends.
        """
        if claim.owner.pid != os.getpid() or self.claims.pop(claim.id, None) is None:
            return
        try:
            with self.ledger() as ledger:
                ledger.remove(claim.id)
        except OSError:
            self._retry_in_background()
            return
        self._file.remove_lease_files(claim.id)

    def charge(self, claim: HostClaim, resident_bytes: int) -> None:
        """Charges a granted request what it really holds."""
        claim.resident_bytes = resident_bytes
        with self.ledger() as ledger:
            ledger.charge(claim.id, resident_bytes)

    def would_grant(self, size_bytes: int) -> bool:
        """Whether a request that came now would start at once."""
        with self.ledger() as ledger:
            ledger.grant()
            return ledger.would_grant(size_bytes)

    def statistics(self) -> SemaphoreStatistics:
        """The host's budget, leases and waiting requests at this instant."""
        with self.ledger() as ledger:
            ledger.grant()
            return ledger.statistics()

    def environment(self, claim: HostClaim) -> Mapping[str, str]:
        """The variable by which a program that is started inside the lease draws on it."""
        outer = os.environ.get(LEASES_VARIABLE, "")
        line = f"{claim.id} {claim.bytes} {self._file.path}"
        return {LEASES_VARIABLE: f"{outer}\n{line}" if outer else line}

    def close(self) -> None:
        """Our limit counts no longer. Leases stay out until they are released or this process ends."""
        if not self._closed:
            self._closed = True
            self._forget()
            with contextlib.suppress(OSError), self.ledger():  # or in any later transaction of this process
                pass

    @contextlib.contextmanager
    def ledger(self) -> Iterator[HostLedger]:
        """The host's ledger, ours alone while the block runs; every request that fits is granted at its end."""
        self._this_process()
        with self._file.transaction() as state:
            before = {claim.id for claim in state.claims}
            ledger = HostLedger(
                state,
                alive=is_alive,
                reading=self._reading,
                tree_bytes=tree_resident_bytes,
                is_closed=self._gate.is_closed(),
            )
            for dead in before.difference(claim.id for claim in state.claims):
                self._file.remove_lease_files(dead)
            ledger.remove_clients(_take_forgotten(self._file.path))
            if not self._closed:
                ledger.add_client(self._client)
            ledger.reconcile(self._client.id, list(self.claims.values()))
            yield ledger
            ledger.grant()
            for claim in ledger.state.claims:
                mine = self.claims.get(claim.id)
                if mine is not None:
                    mine.granted = claim.granted

    def new_claim(self, size_bytes: int, *, exclusive: bool) -> HostClaim:
        """A claim of this process that is in no queue yet."""
        if self._closed:
            raise UsageError("this semaphore was closed and takes no more requests; make a new one")
        owner = self._this_process()
        if self._client.reserve is not None and not self.claims:
            self._client = msgspec.structs.replace(self._client, idle_bytes=tree_resident_bytes())
        return HostClaim(
            id=secrets.token_hex(8),
            owner=owner,
            client=self._client.id,
            bytes=size_bytes,
            exclusive=exclusive,
            asked_at_s=time.monotonic(),
        )

    def _this_process(self) -> Owner:
        """The calling process, which takes part by itself if it was forked from the one that did."""
        if os.getpid() != self._owner.pid:
            self._register()
        return self._owner

    def _register(self) -> None:
        self._owner = this_process()
        #: what this process has asked for and not given back
        self.claims: dict[str, HostClaim] = {}
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
            label=self._label,
        )
        self._forget = weakref.finalize(
            self, _forgotten.append, (self._file.path, self._owner.pid, self._client.id)
        )
        self._forget.atexit = False  # the next program that reads the file sees that the process has ended

    def _poll(self, claim: HostClaim, timeout_s: float | None) -> Iterator[float]:
        """Seconds to pause before the next poll, until the request is granted or its time is over."""
        deadline_s = None if timeout_s is None else self._clock() + timeout_s
        seen = (0, 0, 0)
        reap_at_s = self._clock() + REAP_S
        while not claim.granted:
            now_s = self._clock()
            left_s = REAP_S if deadline_s is None else deadline_s - now_s
            if left_s <= 0:
                return
            yield min(left_s, POLL_S * random.uniform(0.5, 1.5))
            if now_s >= reap_at_s:
                reap_at_s = now_s + REAP_S * random.uniform(0.5, 1.5)
                with _full_disk_ignored(), self.ledger():
                    pass
            elif (signature := self._file.signature()) != seen:
                seen = signature
                claim.granted = any(
                    other.granted for other in self._file.peek().claims if other.id == claim.id
                )

    def _end_wait(self, claim: HostClaim) -> bool:
        """Leaves the queue, unless the request was granted in time or is granted in this very moment."""
        if not claim.granted:
            with self.ledger() as ledger:
                ledger.grant()
                found = ledger.find(claim.id)
                if found is None or not found.granted:
                    ledger.remove(claim.id)
                    self.claims.pop(claim.id, None)
        return claim.granted

    def _retry_in_background(self) -> None:
        """Any later transaction of this process takes the claim out; this one comes if no other does."""

        def retry() -> None:
            while True:
                time.sleep(RETRY_S)
                with contextlib.suppress(OSError), self.ledger():
                    return

        threading.Thread(target=retry, name="membudget-release", daemon=True).start()


@contextlib.contextmanager
def _full_disk_ignored() -> Iterator[None]:
    """A request that waits already goes on waiting while the state cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise


def _innermost(file: HostStateFile) -> tuple[HostStateFile, int | None]:
    """The budget that this program draws on: that of the innermost lease that it was started in, and its bytes."""
    leased_bytes = None
    for line in os.environ.get(LEASES_VARIABLE, "").splitlines():
        lease_id, _, rest = line.partition(" ")
        size, _, path = rest.partition(" ")
        if path != str(file.path) or not size.isdigit():
            continue
        # A program that outlives the lease it was started in takes part like any other.
        if any(claim.id == lease_id and claim.granted for claim in file.peek().claims):
            file, leased_bytes = file.within(lease_id), int(size)
    return file, leased_bytes


def _command_line() -> str:
    """As it was typed, but for the folder of the interpreter."""
    program, *words = sys.orig_argv or ["python"]
    return " ".join([Path(program).name, *words])


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


def host_status(
    name: str = DEFAULT_NAME,
    *,
    reading: ReadMemory = memory_reading,
    gate: PressureGate | None = None,
    directory: Path | None = None,
) -> HostStatus:
    """Who holds and who waits; where no program takes part, the budget that the first one would find.

    Raises:
        UnreadableFileError: the state is not of the expected shape.
        TimeoutError: its lock is held by a program that is stopped.
    """
    gate = gate or PressureGate()
    is_stalled = gate.is_closed()
    with HostStateFile(name, directory).transaction() as state:
        ledger = HostLedger(
            state, alive=is_alive, reading=reading, tree_bytes=tree_resident_bytes, is_closed=is_stalled
        )
        ledger.grant()
        clients = {client.id: client.label for client in state.clients}
        budget_bytes, ceiling_bytes = ledger.budget_bytes(), ledger.ceiling_bytes()
        if not clients:
            now = reading()
            ceiling_bytes = now.limit.bytes - reserved_share_bytes(now.limit.bytes, RESERVE_SHARE)
            budget_bytes = min(ceiling_bytes, unreserved_bytes(now, RESERVE_SHARE, 0))
        return HostStatus(
            name=name,
            budget_bytes=budget_bytes,
            ceiling_bytes=ceiling_bytes,
            reserved_bytes=ledger.granted_bytes(),
            programs=len({client.owner for client in state.clients}),
            is_stalled=is_stalled,
            pressure_source=gate.source,
            requests=tuple(_shown(claim, clients.get(claim.client, "")) for claim in state.claims),
        )


def _shown(claim: HostClaim, label: str) -> HostRequest:
    return HostRequest(
        pid=claim.owner.pid,
        label=label,
        bytes=claim.bytes,
        resident_bytes=claim.resident_bytes,
        granted=claim.granted,
        exclusive=claim.exclusive,
        age_s=max(0.0, time.monotonic() - claim.asked_at_s),
    )
