"""The line of those who wait: in order of arrival, with a quick answer to "who is the first that fits?"."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar


class _Waiter(Protocol):
    bytes: int
    place: int


W = TypeVar("W", bound=_Waiter)

_SMALLEST_CAPACITY = 16
_NOBODY = 2**64  # more than any machine has: an empty place fits nowhere


class WaitingLine(Generic[W]):
    """Waiters in order of arrival over a tree of minima, so that each question takes O(log n) steps.

    The places are the leaves of a complete binary tree in one list: node i has the children 2i and 2i+1, and each
    node holds the smallest request below it. Places are never used twice; when the last one is taken, the line
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
        self._note(waiter.place, waiter.bytes)

    def remove(self, waiter: W) -> None:
        """Takes `waiter` out of the line; everybody else keeps their order."""
        self._occupants[waiter.place] = None
        self._length -= 1
        self._note(waiter.place, _NOBODY)

    def first(self, at_most_bytes: int, *, behind: W | None = None) -> W | None:
        """The first, or the first behind one of them, who asks for at most so many bytes."""
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
        """Everybody who waits, first come first."""
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
        self._smallest = (
            [_NOBODY] * self._capacity + [waiter.bytes for waiter in occupants] + [_NOBODY] * empty
        )
        for place, waiter in enumerate(occupants):
            waiter.place = place
        for node in range(self._capacity - 1, 0, -1):
            self._smallest[node] = min(self._smallest[2 * node], self._smallest[2 * node + 1])

    def _note(self, place: int, size_bytes: int) -> None:
        smallest, node = self._smallest, self._capacity + place
        smallest[node] = size_bytes
        while node > 1:
            node >>= 1
            least = min(smallest[2 * node], smallest[2 * node + 1])
            if smallest[node] == least:
                return
            smallest[node] = least
