"""What a semaphore's bookkeeping can do, whether it serves this process or the whole host."""

from __future__ import annotations

from typing import Protocol, TypeVar

from pytest_membudget.records.run import SemaphoreStatistics


class Claim(Protocol):
    """One request in a book, waiting or granted."""

    @property
    def bytes(self) -> int:
        """What was asked for."""

    @property
    def exclusive(self) -> bool:
        """Whether it runs alone."""


C = TypeVar("C", bound=Claim)


class Book(Protocol[C]):
    """Takes requests in, says when they may start, and takes back what was granted. Safe to use from any thread."""

    def ceiling_bytes(self) -> int:
        """The largest request that can be granted without running alone."""

    def enter(self, size_bytes: int, *, exclusive: bool) -> C:
        """Puts a request at the end of the line; it may be granted before this returns.

        Raises:
            OversizeError: it could never be granted.
        """

    def wait(self, claim: C, timeout_s: float | None) -> bool:
        """Whether `claim` was granted in time. One that was not has left the line when this returns or raises."""

    def leave(self, claim: C) -> None:
        """Gives back what was granted, or the place in the line; nothing where that has happened."""

    def charge(self, claim: C, resident_bytes: int) -> None:
        """Charges what is really resident for a granted claim, never less than was granted."""

    def would_grant(self, size_bytes: int) -> bool:
        """Whether a request of that size would start at once."""

    def statistics(self) -> SemaphoreStatistics:
        """The book at this instant."""

    def close(self) -> None:
        """Takes no more part; what is out stays out until it is released."""
