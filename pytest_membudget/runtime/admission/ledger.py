"""Who may start now: bytes granted against a budget, and the queue of requests that wait.

Think of the cash book of a careful bank: it writes down what was promised, not what was drawn, and promises nothing
that it could not pay out in full at once. It is only the book: it has no clock, no lock and no threads, measures
nothing and wakes no thread. `MemorySemaphore` puts a lock around it, the host ledger a file, the executor its own
bookkeeping.

Bytes are whole numbers throughout: counted in floats, small errors add up until nothing fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from pytest_membudget.errors import OversizeError
from pytest_membudget.records.run import SemaphoreStatistics
from pytest_membudget.units import format_size


class _Waiter(Protocol):
    bytes: int
    place: int


W = TypeVar("W", bound=_Waiter)

_SMALLEST_CAPACITY = 16
_EMPTY = 2**64  # more than any machine has: an empty place fits nowhere


class FitQueue(Generic[W]):
    """Requests in order of arrival over a tree of minima, so that each question takes O(log n) steps.

    The places are the leaves of a complete binary tree in one list: node i has the children 2i and 2i+1, and each
    node holds the smallest request below it. Places are never used twice; when the last one is taken, the queue
    moves up into a new tree.
    """

    def __init__(self) -> None:
        self._occupants: list[W | None] = []
        self._length = 0
        self._build([])

    def __len__(self) -> int:
        return self._length

    def append(self, waiter: W) -> None:
        """Puts `waiter` at the end and writes its place on it."""
        if self._next == self._capacity:
            self._build(self.in_order())
        waiter.place = self._next
        self._occupants[waiter.place] = waiter
        self._next += 1
        self._length += 1
        self._update(waiter.place, waiter.bytes)

    def remove(self, waiter: W) -> None:
        """Takes `waiter` out of the queue; the others keep their order."""
        self._occupants[waiter.place] = None
        self._length -= 1
        self._update(waiter.place, _EMPTY)

    def first(self, at_most_bytes: int, *, behind: W | None = None) -> W | None:
        """The first, or the first behind one of them, that asks for at most so many bytes."""
        node = self._capacity + (behind.place + 1 if behind else 0)
        while node < 2 * self._capacity:
            while node & 1 == 0 and node > 1:  # a left child: the same first place as its parent
                node >>= 1
            if self._smallest[node] <= at_most_bytes:
                return self._leftmost_below(node, at_most_bytes)
            node += 1
            if node & (node - 1) == 0:  # past the last node of its level
                return None
        return None

    def in_order(self) -> list[W]:
        """All that wait, in order of arrival."""
        return [occupant for occupant in self._occupants if occupant is not None]

    def _leftmost_below(self, node: int, at_most_bytes: int) -> W | None:
        while node < self._capacity:
            node *= 2
            if self._smallest[node] > at_most_bytes:
                node += 1
        return self._occupants[node - self._capacity]

    def _build(self, occupants: list[W]) -> None:
        """A new tree with at least as many empty places as taken ones."""
        self._capacity = _SMALLEST_CAPACITY
        while self._capacity < 2 * len(occupants):
            self._capacity *= 2
        self._next = len(occupants)
        empty = self._capacity - self._next
        self._occupants = [*occupants, *[None] * empty]
        self._smallest = [_EMPTY] * self._capacity + [waiter.bytes for waiter in occupants] + [_EMPTY] * empty
        for place, waiter in enumerate(occupants):
            waiter.place = place
        for node in range(self._capacity - 1, 0, -1):
            self._smallest[node] = min(self._smallest[2 * node], self._smallest[2 * node + 1])

    def _update(self, place: int, size_bytes: int) -> None:
        smallest, node = self._smallest, self._capacity + place
        smallest[node] = size_bytes
        while node > 1:
            node >>= 1
            least = min(smallest[2 * node], smallest[2 * node + 1])
            if smallest[node] == least:
                return
            smallest[node] = least


@dataclass(slots=True, eq=False, repr=False)
class Ticket:
    """One request: waiting, granted, or done (released or cancelled)."""

    #: what was asked for
    bytes: int
    exclusive: bool = False
    #: the caller's own, which is not read
    token: Any = None
    #: its number in the order of arrival
    sequence: int = 0
    #: what is charged once it is granted: what was asked for, or what is really resident where that is more
    charge_bytes: int = 0
    #: how often it was overtaken while it was the head
    overtaken: int = 0
    #: where it waits in the queue; -1 where it does not
    place: int = -1
    state: Literal["waiting", "granted", "done"] = "waiting"

    def __repr__(self) -> str:
        alone = " alone" if self.exclusive else ""
        return f"<Ticket {self.sequence}: {format_size(self.bytes)}{alone}, {self.state}>"


class Ledger:
    """Grants requests in order of arrival, letting a stated number go by a head that does not fit yet.

    - What is charged never exceeds the budget at the moment of a grant, unless it is one exclusive lease alone.
    - The *head* is the first waiter that the budget could hold. While it does not fit, later ones that do may go
      first, at most `max_overtakes` times; then nothing passes it until it has started.
    - A waiter that the budget could not hold even when all leases were back (the budget shrank) keeps its place and
      holds no other up; draining would not help it.
    - An exclusive request starts when no lease is out, and nothing starts beside it.

    `ceiling_bytes` is the largest request that may wait, where the budget moves; by default the budget itself.
    """

    def __init__(self, budget_bytes: int, *, max_overtakes: int, ceiling_bytes: int | None = None) -> None:
        if max_overtakes < 0:
            raise ValueError(f"max_overtakes is {max_overtakes}; give 0 (strictly in order) or more")
        self.max_overtakes = max_overtakes
        #: what may be granted together; changed by `set_budget`
        self.budget_bytes = _whole(budget_bytes, "budget_bytes")
        #: what is charged to all leases together
        self.reserved_bytes = 0
        self._ceiling_bytes = ceiling_bytes
        self._queue: FitQueue[Ticket] = FitQueue()
        self._waiting_alone: dict[int, Ticket] = {}
        self._granted: set[Ticket] = set()
        self._alone: Ticket | None = None
        self._submitted = 0

    @property
    def ceiling_bytes(self) -> int:
        """The largest single request that is taken without being exclusive."""
        return self.budget_bytes if self._ceiling_bytes is None else self._ceiling_bytes

    @property
    def free_bytes(self) -> int:
        """What is left to grant; negative after an overrun, or when the budget shrank below what is out."""
        return self.budget_bytes - self.reserved_bytes

    def submit(self, size_bytes: int, *, exclusive: bool = False, token: Any = None) -> Ticket:
        """Puts a request at the end of the queue; `grant` says when it may start.

        Raises:
            OversizeError: larger than could ever be granted, and not `exclusive`.
        """
        if _whole(size_bytes, "size_bytes") > self.ceiling_bytes and not exclusive:
            raise oversize(size_bytes, self.ceiling_bytes)
        ticket = Ticket(size_bytes, exclusive=exclusive, token=token, sequence=self._submitted)
        self._submitted += 1
        if exclusive:
            self._waiting_alone[ticket.sequence] = ticket
        else:
            self._queue.append(ticket)
        return ticket

    @property
    def head(self) -> Ticket | None:
        """Who is next: the first waiter that the whole budget could hold, or that runs alone."""
        waiting_first = self._queue.first(self.budget_bytes)
        alone = next(iter(self._waiting_alone.values()), None)
        if waiting_first is None or alone is None:
            return waiting_first or alone
        return min(waiting_first, alone, key=_by_arrival)

    def grant(self, at_most: int | None = None) -> list[Ticket]:
        """Starts everything that may start now (`at_most` so many), in that order; empty where nothing may."""
        started: list[Ticket] = []
        while (at_most is None or len(started) < at_most) and (ticket := self._next()) is not None:
            self._start(ticket)
            started.append(ticket)
        return started

    def adopt(self, size_bytes: int, *, exclusive: bool = False, token: Any = None) -> Ticket:
        """Books a lease that is out already, whether it fits or not: it holds its memory anyhow."""
        ticket = Ticket(
            _whole(size_bytes, "size_bytes"), exclusive=exclusive, token=token, sequence=self._submitted
        )
        self._submitted += 1
        self._hold(ticket)
        return ticket

    def would_grant(self, size_bytes: int) -> bool:
        """Whether a request that came now would start at once (after `grant` has let in whom it could)."""
        if self._alone is not None or size_bytes > self.free_bytes:
            return False
        head = self.head
        return head is None or head.overtaken < self.max_overtakes

    def release(self, ticket: Ticket) -> None:
        """Takes back what was granted. Again: nothing happens.

        Raises:
            ValueError: the ticket still waits; cancel it instead.
        """
        if ticket.state == "waiting":
            raise ValueError(f"{ticket!r} has not been granted; cancel it instead")
        if ticket in self._granted:
            self._granted.remove(ticket)
            self.reserved_bytes -= ticket.charge_bytes
            ticket.charge_bytes = 0
            ticket.state = "done"
            if self._alone is ticket:
                self._alone = None

    def cancel(self, ticket: Ticket) -> None:
        """Gives a waiting ticket up, or releases it where it has been granted meanwhile."""
        if ticket.state != "waiting":
            self.release(ticket)
            return
        self._dequeue(ticket)
        ticket.state = "done"

    def charge(self, ticket: Ticket, resident_bytes: int) -> None:
        """Charges what a granted ticket really holds, never less than what it was granted.

        Where that exceeds the budget nothing starts until it fits again. Nothing is revoked. Without effect on a
        ticket that is done: its last report may come late.

        Raises:
            ValueError: the ticket still waits, or the size is negative.
        """
        _whole(resident_bytes, "resident_bytes")
        if ticket.state == "waiting":
            raise ValueError(f"{ticket!r} has not been granted; it holds nothing to charge")
        if ticket in self._granted:
            charge_bytes = max(ticket.bytes, resident_bytes)
            self.reserved_bytes += charge_bytes - ticket.charge_bytes
            ticket.charge_bytes = charge_bytes

    def set_budget(self, budget_bytes: int) -> None:
        """From now on so much may be granted together; what is out stays out."""
        self.budget_bytes = _whole(budget_bytes, "budget_bytes")

    def statistics(self) -> SemaphoreStatistics:
        """The book at this instant, as a frozen record."""
        head = self.head
        return SemaphoreStatistics(
            budget_bytes=self.budget_bytes,
            reserved_bytes=self.reserved_bytes,
            leases=len(self._granted),
            waiting=len(self._queue) + len(self._waiting_alone),
            overtaken=0 if head is None else head.overtaken,
            exclusive=self._alone is not None,
            paused=self._alone is None and self.free_bytes < 0,
        )

    def _next(self) -> Ticket | None:
        """Who may start now: the head where it fits, else the first behind it that does while the head allows it."""
        head = self.head
        if head is None or self._alone is not None:
            return None
        if (not self._granted) if head.exclusive else (head.bytes <= self.free_bytes):
            return head
        if head.overtaken >= self.max_overtakes:
            return None
        # No request in the queue before an exclusive head fits the budget, so its first that fits stands behind the head.
        follower = self._queue.first(self.free_bytes, behind=None if head.exclusive else head)
        if follower is not None:
            head.overtaken += 1
        return follower

    def _start(self, ticket: Ticket) -> None:
        self._dequeue(ticket)
        self._hold(ticket)

    def _hold(self, ticket: Ticket) -> None:
        ticket.state = "granted"
        ticket.charge_bytes = ticket.bytes
        self.reserved_bytes += ticket.bytes
        self._granted.add(ticket)
        if ticket.exclusive:
            self._alone = ticket

    def _dequeue(self, ticket: Ticket) -> None:
        if ticket.exclusive:
            del self._waiting_alone[ticket.sequence]
        else:
            self._queue.remove(ticket)


def oversize(size_bytes: int, budget_bytes: int) -> OversizeError:
    """The error for a request that is larger than its whole budget."""
    return OversizeError(
        f"{format_size(size_bytes)} can never be granted from a budget of {format_size(budget_bytes)}; "
        "raise the budget, ask for less, or let it run alone (exclusive=True)"
    )


def _by_arrival(ticket: Ticket) -> int:
    return ticket.sequence


def _whole(size_bytes: int, name: str) -> int:
    if isinstance(size_bytes, bool) or not isinstance(size_bytes, int) or size_bytes < 0:
        raise ValueError(f"{name} is {size_bytes!r}; give whole bytes, 0 or more")
    return size_bytes
