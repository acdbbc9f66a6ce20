"""The rules of the host's budget, applied to the shared state: pure, so that tests can kill any program at any step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from typing import Annotated, Literal

import msgspec

from pytest_membudget.records.measurement import MemoryReading
from pytest_membudget.records.run import SemaphoreStatistics
from pytest_membudget.runtime.admission.budgets import (
    budget_while_closed,
    resident_part_bytes,
    unreserved_bytes,
)
from pytest_membudget.runtime.admission.ledger import Ledger, Ticket, oversize
from pytest_membudget.units import LARGEST_BYTES

Whole = Annotated[int, msgspec.Meta(ge=0)]


class Owner(msgspec.Struct, frozen=True, array_like=True):
    """One process of this boot: its id and when it started (clock ticks since boot on Linux, else seconds)."""

    pid: Whole
    started: float


class HostClient(msgspec.Struct, frozen=True, kw_only=True):
    """One semaphore of one program."""

    id: str
    owner: Owner
    #: the budget it was given, or the most that its measured budget can be
    budget_bytes: Whole
    max_overtakes: Whole
    #: share of the limit to keep back where the budget is measured, else `None`
    reserve: float | None = None
    #: how `membudget host` shows it
    label: str = ""
    #: what the owner's process tree held when this client held no lease last; 0 where it is not known
    idle_bytes: Whole = 0


class HostClaim(msgspec.Struct, kw_only=True):
    """One request: waiting until `granted`, then charged its `bytes` or what is resident, whichever is more."""

    id: str
    owner: Owner
    bytes: Whole
    client: str = ""
    exclusive: bool = False
    granted: bool = False
    resident_bytes: Whole = 0
    overtaken: Whole = 0
    #: when it was asked for, on the monotonic clock of this boot
    asked_at_s: float = 0.0


class HostState(msgspec.Struct, kw_only=True):
    """The shared file: who takes part, and the claims in order of arrival."""

    format: Literal["membudget-host-ledger"] = "membudget-host-ledger"
    version: Literal[1] = 1
    boot_id: str = ""
    #: what was available when no lease was out last
    available_when_empty_bytes: Whole = 0
    clients: list[HostClient] = []
    claims: list[HostClaim] = []


class HostLedger:
    """The state without what belongs to dead processes, and what may be done to it.

    Args:
        state: changed in place.
        alive: whether a process still runs.
        reading: the machine's memory; called where a client's budget is measured.
        tree_bytes: what a process and all below it hold; called where a client's budget is measured.
        is_closed: whether memory pressure lets nothing start beside what runs.
    """

    def __init__(
        self,
        state: HostState,
        *,
        alive: Callable[[Owner], bool],
        reading: Callable[[], MemoryReading],
        tree_bytes: Callable[[int], int] = lambda _pid: LARGEST_BYTES,
        is_closed: bool = False,
    ) -> None:
        self.state = state
        self._reading = reading
        self._tree_bytes = tree_bytes
        self._is_closed = is_closed
        self.remove_dead(alive)

    def remove_dead(self, alive: Callable[[Owner], bool]) -> None:
        """Takes out what belongs to processes that have ended: leases, waiting requests, and limits."""
        owners = {client.owner for client in self.state.clients} | {
            claim.owner for claim in self.state.claims
        }
        dead = {owner for owner in owners if not alive(owner)}
        if dead:
            self.state.clients = [client for client in self.state.clients if client.owner not in dead]
            self.state.claims = [claim for claim in self.state.claims if claim.owner not in dead]

    def add_client(self, client: HostClient) -> None:
        """Lets a client's limit count, or replaces what was known of it."""
        if client not in self.state.clients:
            self.remove_clients({client.id})
            self.state.clients.append(client)

    def remove_clients(self, clients: Container[str]) -> None:
        """Lets the limits of those clients count no longer."""
        self.state.clients = [client for client in self.state.clients if client.id not in clients]

    def submit(self, claim: HostClaim) -> None:
        """Puts a claim at the end of the queue; one that waits already keeps its place.

        Raises:
            OversizeError: larger than the smallest limit, and not exclusive.
        """
        if self.find(claim.id) is None:
            if claim.bytes > self.ceiling_bytes() and not claim.exclusive:
                raise oversize(claim.bytes, self.ceiling_bytes())
            self.state.claims.append(msgspec.structs.replace(claim))

    def reconcile(self, client_id: str, claims: Collection[HostClaim]) -> None:
        """Makes the file agree with what a client knows itself.

        A claim that the file lost is put back as it is, granted or waiting. One that the client gave up is taken out,
        though the client was interrupted before it could say so.
        """
        known = {claim.id for claim in claims}
        self.state.claims = [
            claim for claim in self.state.claims if claim.client != client_id or claim.id in known
        ]
        found = {claim.id for claim in self.state.claims}
        self.state.claims += [msgspec.structs.replace(claim) for claim in claims if claim.id not in found]

    def remove(self, claim_id: str) -> None:
        """Takes a claim out, granted or waiting."""
        self.state.claims = [claim for claim in self.state.claims if claim.id != claim_id]

    def grow(self, claim_id: str, unit_bytes: int, most: int) -> int:
        """Adds as many units, at most `most`, to a granted claim as are free; none while a request waits for them."""
        claim, ledger = self.find(claim_id), self._ledger()[0]
        if claim is None or not claim.granted or ledger.head is not None or not ledger.would_grant(0):
            return 0
        units = min(most, max(0, ledger.free_bytes) // max(1, unit_bytes))
        claim.bytes += units * unit_bytes
        return units

    def merge(self, claim_id: str, other_id: str) -> None:
        """Makes two granted claims of one client one."""
        claim, other = self.find(claim_id), self.find(other_id)
        if claim is not None and other is not None and claim.granted and other.granted:
            claim.bytes += other.bytes
            self.remove(other_id)

    def shrink(self, claim_id: str, size_bytes: int) -> None:
        """Gives back what a granted claim has above `size_bytes`."""
        claim = self.find(claim_id)
        if claim is not None and claim.granted:
            claim.bytes = min(claim.bytes, size_bytes)

    def charge(self, claim_id: str, resident_bytes: int) -> None:
        """Charges a granted claim what it really holds."""
        claim = self.find(claim_id)
        if claim is not None and claim.granted:
            claim.resident_bytes = resident_bytes

    def find(self, claim_id: str) -> HostClaim | None:
        """The claim, where it is known."""
        return next((claim for claim in self.state.claims if claim.id == claim_id), None)

    def grant(self) -> None:
        """Grants every claim that may start now."""
        ledger, tickets = self._ledger()
        for ticket in ledger.grant(1 if self._is_closed else None):
            ticket.token.granted = True
        for ticket in tickets:
            ticket.token.overtaken = ticket.overtaken

    def would_grant(self, size_bytes: int) -> bool:
        """Whether a request that came now would start at once."""
        return self._ledger()[0].would_grant(size_bytes)

    def statistics(self) -> SemaphoreStatistics:
        """Budget, leases and waiting requests of the host at this instant."""
        return msgspec.structs.replace(self._ledger()[0].statistics(), scope="host")

    def ceiling_bytes(self) -> int:
        """The smallest limit among the clients."""
        return min((client.budget_bytes for client in self.state.clients), default=0)

    def granted_bytes(self) -> int:
        """What is charged to all leases together."""
        return sum(max(claim.bytes, claim.resident_bytes) for claim in self.state.claims if claim.granted)

    def budget_bytes(self) -> int:
        """The smallest limit among the clients and, where one measures its budget, what is available now."""
        granted_bytes = self.granted_bytes()
        budget_bytes = min(self.ceiling_bytes(), self._measured_bytes(granted_bytes))
        return budget_while_closed(budget_bytes, granted_bytes) if self._is_closed else budget_bytes

    def _measured_bytes(self, granted_bytes: int) -> int:
        reserves = [client.reserve for client in self.state.clients if client.reserve is not None]
        if not reserves:
            return LARGEST_BYTES
        reading = self._reading()
        if granted_bytes == 0:
            self.state.available_when_empty_bytes = reading.available_bytes
        use_grew_bytes = self.state.available_when_empty_bytes - reading.available_bytes
        # The trees of the holders are read only where that can change the result.
        holders_grew_bytes = self._holders_grew_bytes() if granted_bytes > 0 and use_grew_bytes > 0 else 0
        resident_bytes = resident_part_bytes(granted_bytes, holders_grew_bytes, use_grew_bytes)
        return unreserved_bytes(reading, max(reserves), resident_bytes)

    def _holders_grew_bytes(self) -> int:
        """What the process trees of all lease holders grew by since they held none."""
        idle_bytes: dict[Owner, int] = {}
        for client in self.state.clients:
            idle_bytes[client.owner] = min(client.idle_bytes, idle_bytes.get(client.owner, client.idle_bytes))
        holders = {claim.owner for claim in self.state.claims if claim.granted}
        return sum(max(0, self._tree_bytes(owner.pid) - idle_bytes.get(owner, 0)) for owner in holders)

    def _ledger(self) -> tuple[Ledger, list[Ticket]]:
        overtakes = min((client.max_overtakes for client in self.state.clients), default=0)
        ledger = Ledger(self.budget_bytes(), max_overtakes=overtakes, ceiling_bytes=LARGEST_BYTES)
        tickets = []
        for claim in self.state.claims:
            if claim.granted:
                ledger.charge(ledger.adopt(claim.bytes, exclusive=claim.exclusive), claim.resident_bytes)
            else:
                ticket = ledger.submit(claim.bytes, exclusive=claim.exclusive, token=claim)
                ticket.overtaken = claim.overtaken
                tickets.append(ticket)
        return ledger, tickets
