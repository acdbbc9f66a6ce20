"""The rules of the host's budget, applied to the shared state: pure, so that tests can kill anybody at any step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from typing import Literal

import msgspec

from pytest_membudget.records.measurement import MemoryReading
from pytest_membudget.records.run import SemaphoreStatistics
from pytest_membudget.runtime.admission.available_budget import unreserved_bytes
from pytest_membudget.runtime.admission.ledger import Ledger, Ticket, oversize
from pytest_membudget.units import LARGEST_BYTES


class Owner(msgspec.Struct, frozen=True, array_like=True):
    """One process of this boot: its id and when it started (clock ticks since boot on Linux, else seconds)."""

    pid: int
    started: float


class HostClient(msgspec.Struct, frozen=True, kw_only=True):
    """One semaphore of one program: the budget it was given, or the most that its measured budget can be.

    `reserve` is the share of the limit to keep back where the budget is measured, else `None`.
    """

    id: str
    owner: Owner
    budget_bytes: int
    max_overtakes: int
    reserve: float | None = None


class HostClaim(msgspec.Struct, kw_only=True):
    """One request: waiting until `granted`, then charged its `bytes` or what is resident, whichever is more."""

    id: str
    owner: Owner
    bytes: int
    client: str = ""
    exclusive: bool = False
    granted: bool = False
    resident_bytes: int = 0
    overtaken: int = 0


class HostState(msgspec.Struct, kw_only=True):
    """The shared file. `available_when_empty_bytes` is what was available when no lease was out last."""

    format: Literal["membudget-host-ledger"] = "membudget-host-ledger"
    version: Literal[1] = 1
    boot_id: str = ""
    available_when_empty_bytes: int = 0
    clients: list[HostClient] = []
    claims: list[HostClaim] = []


class HostLedger:
    """A state without its dead, and what may be done to it. Every change grants whatever it makes room for.

    `reading` is called where a client's budget is measured.
    """

    def __init__(
        self, state: HostState, *, alive: Callable[[Owner], bool], reading: Callable[[], MemoryReading]
    ) -> None:
        self.state = state
        self._reading = reading
        self.remove_dead(alive)

    def remove_dead(self, alive: Callable[[Owner], bool]) -> None:
        """Takes out whatever belongs to a process that is no more: its leases, its place in the line, its limit."""
        owners = {client.owner for client in self.state.clients} | {
            claim.owner for claim in self.state.claims
        }
        dead = {owner for owner in owners if not alive(owner)}
        if dead:
            self.state.clients = [client for client in self.state.clients if client.owner not in dead]
            self.state.claims = [claim for claim in self.state.claims if claim.owner not in dead]

    def add_client(self, client: HostClient) -> None:
        """Lets a client's limit count; again: nothing happens."""
        if client not in self.state.clients:
            self.state.clients.append(client)

    def remove_clients(self, clients: Container[str]) -> None:
        """Lets the limits of those clients count no longer."""
        self.state.clients = [client for client in self.state.clients if client.id not in clients]

    def submit(self, claim: HostClaim) -> None:
        """Puts a claim at the end of the line; one that is there already keeps its place.

        Raises:
            OversizeError: larger than the smallest limit, and not exclusive.
        """
        if self.find(claim.id) is None:
            if claim.bytes > self.ceiling_bytes() and not claim.exclusive:
                raise oversize(claim.bytes, self.ceiling_bytes())
            self.state.claims.append(msgspec.structs.replace(claim))

    def reconcile(self, client_id: str, claims: Collection[HostClaim]) -> None:
        """Makes the file say of a client what it knows itself.

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

    def charge(self, claim_id: str, resident_bytes: int) -> None:
        """Notes what a granted claim really holds."""
        claim = self.find(claim_id)
        if claim is not None and claim.granted:
            claim.resident_bytes = resident_bytes

    def find(self, claim_id: str) -> HostClaim | None:
        """The claim, where it is known."""
        return next((claim for claim in self.state.claims if claim.id == claim_id), None)

    def grant(self) -> None:
        """Grants whatever may start now."""
        ledger, tickets = self._ledger()
        for ticket in ledger.grant():
            ticket.token.granted = True
        for ticket in tickets:
            ticket.token.overtaken = ticket.overtaken

    def would_grant(self, size_bytes: int) -> bool:
        """Whether a request that came now would start at once."""
        return self._ledger()[0].would_grant(size_bytes)

    def statistics(self) -> SemaphoreStatistics:
        """The host's book at this instant."""
        return msgspec.structs.replace(self._ledger()[0].statistics(), scope="host")

    def ceiling_bytes(self) -> int:
        """The smallest limit among the clients."""
        return min((client.budget_bytes for client in self.state.clients), default=0)

    def budget_bytes(self) -> int:
        """The smallest limit among the clients and, where one measures its budget, what is available now."""
        reserves = [client.reserve for client in self.state.clients if client.reserve is not None]
        if not reserves:
            return self.ceiling_bytes()
        reading = self._reading()
        granted_bytes = sum(
            max(claim.bytes, claim.resident_bytes) for claim in self.state.claims if claim.granted
        )
        if granted_bytes == 0:
            self.state.available_when_empty_bytes = reading.available_bytes
        grown_bytes = max(0, self.state.available_when_empty_bytes - reading.available_bytes)
        resident_bytes = min(granted_bytes, grown_bytes)
        return min(self.ceiling_bytes(), unreserved_bytes(reading, max(reserves), resident_bytes))

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
