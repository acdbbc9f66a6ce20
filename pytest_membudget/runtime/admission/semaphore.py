"""Semaphores over memory: `MemorySemaphore` is weighted by bytes, `DynamicSemaphore` counts permits that follow its use."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Literal, Protocol, Self, TypeVar

from pytest_membudget.errors import OversizeError, UsageError, count_of, share_of, size_of, timeout_of
from pytest_membudget.measurement.system.machine import memory_reading
from pytest_membudget.records.run import SemaphoreStatistics
from pytest_membudget.runtime.admission.budgets import (
    REREAD_S,
    RESERVE_SHARE,
    AvailableBudget,
    PressureGate,
    ReadMemory,
)
from pytest_membudget.runtime.admission.process_scope import ProcessScope, Wait
from pytest_membudget.units import Size, format_duration, format_size

WaitForChange = Callable[[threading.Condition, float], bool]

MAX_OVERTAKES = 32
"""How often a request that does not fit yet lets later, smaller ones go first."""


class Claim(Protocol):
    """One request, waiting or granted."""

    @property
    def bytes(self) -> int:
        """What was asked for."""

    @property
    def exclusive(self) -> bool:
        """Whether it runs alone."""


C = TypeVar("C", bound=Claim)


class Scope(Protocol[C]):
    """Takes requests in, says when they may start, and takes back what was granted. Safe to use from any thread."""

    def ceiling_bytes(self) -> int:
        """The largest request that can be granted without running alone."""

    def submit(self, size_bytes: int, *, exclusive: bool) -> C:
        """Puts a request at the end of the queue; it may be granted before this returns.

        Raises:
            OversizeError: it could never be granted.
        """

    def wait(self, claim: C, timeout_s: float | None) -> bool:
        """Whether `claim` was granted in time. One that was not has left the queue when this returns or raises."""

    async def wait_async(self, claim: C, timeout_s: float | None) -> bool:
        """Likewise without blocking the event loop; one whose wait is cancelled has left the queue too."""

    def release(self, claim: C) -> None:
        """Gives back what was granted, or the place in the queue; nothing where that has happened."""

    def charge(self, claim: C, resident_bytes: int) -> None:
        """Charges what is really resident for a granted claim, never less than was granted."""

    def would_grant(self, size_bytes: int) -> bool:
        """Whether a request of that size would start at once."""

    def statistics(self) -> SemaphoreStatistics:
        """Budget, leases and waiting requests at this instant."""

    def environment(self, claim: C) -> Mapping[str, str]:
        """Environment variables by which programs that are started inside the lease draw on it."""

    def close(self) -> None:
        """Takes no more part; what is out stays out until it is released."""


class Lease:
    """Bytes that were granted; given back by `release` or at the end of its `with` block, once."""

    __slots__ = ("_claim", "_released", "_scope")

    def __init__(self, scope: Scope[Any], claim: Claim) -> None:
        self._scope = scope
        self._claim = claim
        self._released = False

    @property
    def bytes(self) -> int:
        """What was granted."""
        return self._claim.bytes

    @property
    def exclusive(self) -> bool:
        """Whether nothing else runs beside it."""
        return self._claim.exclusive

    def release(self) -> None:
        """Gives the bytes back; again, and in a forked child, without effect."""
        self._released = True
        self._scope.release(self._claim)

    def charge(self, resident_bytes: Size) -> None:
        """Charges what is really resident, where that is more than was granted.

        An overrun pauses admission until everything fits the budget again. No lease is revoked.
        """
        self._scope.charge(self._claim, size_of("resident_bytes", resident_bytes))

    def environment(self) -> Mapping[str, str]:
        """Variables for a program that is started inside this lease.

        What that program reserves from the same budget of the host comes out of the lease, which it would wait for
        otherwise. Empty for a lease of one process.
        """
        return self._scope.environment(self._claim)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Lease of {format_size(self.bytes)}, {'released' if self._released else 'held'}>"


class MemorySemaphore:
    """Think of a car park with a counter at its gate: each car says how long it is, and waits until that much is free.

    It is no guard: nothing stops a task that takes more than it reserved; `Lease.charge` makes the others wait for it.
    A request that does not fit yet lets at most `max_overtakes` smaller ones go first, then all others wait for it.

    Args:
        budget: what may be reserved together, used whole. Without one it is what is really available: the limit less
            `reserve`, less what others use, read again at every step, and closed while the machine stalls for memory.
        scope: "process" for the threads of this process; "host" for all programs of this user that give the same
            `name`. Of different budgets the smallest counts.
        name: which budget of the host is shared.
        oversize: what becomes of a request larger than the whole budget: "refuse" raises `OversizeError`, "alone"
            lets it run when nothing else does.
        max_overtakes: how often the first in the queue may be overtaken.
        reserve: share of the limit that is kept back where the budget is measured.
        label: how `membudget host` shows this program; its command line where none is given.
        reading, own_bytes, gate, clock, wait: replaced by tests.
    """

    def __init__(
        self,
        budget: Size | None = None,
        *,
        scope: Literal["process", "host"] = "process",
        name: str | None = None,
        label: str | None = None,
        oversize: Literal["refuse", "alone"] = "refuse",
        max_overtakes: int = MAX_OVERTAKES,
        reserve: float | str = RESERVE_SHARE,
        reading: ReadMemory = memory_reading,
        own_bytes: Callable[[], int] | None = None,
        gate: PressureGate | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Wait = threading.Event.wait,
    ) -> None:
        if scope not in {"process", "host"}:
            raise UsageError(f'scope is {scope!r}; choose "process" or "host"')
        if oversize not in {"refuse", "alone"}:
            raise UsageError(f'oversize is {oversize!r}; choose "refuse" or "alone"')
        if scope == "process" and name is not None:
            raise UsageError(
                f'name is {name!r}, but a semaphore of one process is not shared; add scope="host"'
            )
        budget_bytes = None if budget is None else size_of("budget", budget)
        share = 0.0 if reserve == 0 else share_of("reserve", reserve)
        count_of("max_overtakes", max_overtakes, least=0)
        self.scope: Literal["process", "host"] = scope
        self.oversize: Literal["refuse", "alone"] = oversize
        self._made_again = functools.partial(
            MemorySemaphore,
            budget,
            scope=scope,
            name=name,
            label=label,
            oversize=oversize,
            max_overtakes=max_overtakes,
            reserve=reserve,
        )
        self._scope: Scope[Any]
        if scope == "host":
            from pytest_membudget.runtime.admission.host_scope import DEFAULT_NAME, HostScope

            self._scope = HostScope(
                budget_bytes,
                name=DEFAULT_NAME if name is None else _checked_name(name),
                label=label,
                reserve=share,
                max_overtakes=max_overtakes,
                reading=reading,
                gate=gate,
                clock=clock,
                wait=wait,
            )
        else:
            self._scope = ProcessScope(
                budget_bytes,
                max_overtakes=max_overtakes,
                available=AvailableBudget(reading, reserve=share, own_bytes=own_bytes),
                gate=gate,
                clock=clock,
                wait=wait,
            )

    def reserve(self, size: Size, timeout_s: float | None = None, *, exclusive: bool = False) -> Lease:
        """Waits until `size` is free and takes it; `exclusive` until nothing else runs.

        Raises:
            TimeoutError: it did not come free within `timeout_s` seconds.
            OversizeError: it is larger than the whole budget, and may not run alone.
        """
        size_bytes, limit_s = size_of("size", size), timeout_of("timeout_s", timeout_s)
        claim = self._submit(size_bytes, exclusive=exclusive)
        if not self._scope.wait(claim, limit_s):
            raise TimeoutError(self._too_late(size_bytes, limit_s or 0.0))
        return Lease(self._scope, claim)

    @contextlib.asynccontextmanager
    async def reserve_async(
        self, size: Size, timeout_s: float | None = None, *, exclusive: bool = False
    ) -> AsyncIterator[Lease]:
        """`async with semaphore.reserve_async("300 MB") as lease:` waits without blocking the event loop.

        A task that is cancelled while it waits, or inside the block, holds nothing afterwards. For asyncio.

        Raises:
            TimeoutError: it did not come free within `timeout_s` seconds.
            OversizeError: it is larger than the whole budget, and may not run alone.
        """
        size_bytes, limit_s = size_of("size", size), timeout_of("timeout_s", timeout_s)
        claim = self._submit(size_bytes, exclusive=exclusive)
        if not await self._scope.wait_async(claim, limit_s):
            raise TimeoutError(self._too_late(size_bytes, limit_s or 0.0))
        with Lease(self._scope, claim) as lease:
            yield lease

    def acquire_nowait(self, size: Size, *, exclusive: bool = False) -> Lease | None:
        """A lease where one can be had at once, else `None`.

        Raises:
            OversizeError: it is larger than the whole budget, and may not run alone: trying again would never help.
        """
        claim = self._submit(size_of("size", size), exclusive=exclusive)
        return Lease(self._scope, claim) if self._scope.wait(claim, 0.0) else None

    def can_allocate(self, size: Size) -> bool:
        """Whether `size` could be reserved at once. Another thread may be quicker; `acquire_nowait` takes it for sure."""
        return self._scope.would_grant(size_of("size", size))

    def wait_for_memory(self, size: Size, timeout_s: float | None = None) -> bool:
        """Whether `size` came free in time. It waits its turn like `reserve`, and keeps nothing.

        False at once where it is larger than the whole budget.
        """
        limit_s = timeout_of("timeout_s", timeout_s)
        try:
            claim = self._scope.submit(size_of("size", size), exclusive=False)
        except OversizeError:
            return False
        came_free = self._scope.wait(claim, limit_s)
        self._scope.release(claim)
        return came_free

    def statistics(self) -> SemaphoreStatistics:
        """Budget, what is reserved, and who waits, at this instant."""
        return self._scope.statistics()

    def close(self) -> None:
        """Leaves a shared budget: it no longer counts this program's limit. Leases stay out until released."""
        self._scope.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        with contextlib.suppress(UsageError):
            now = self.statistics()
            return (
                f"<MemorySemaphore of this {self.scope}: {format_size(now.reserved_bytes)} of "
                f"{format_size(now.budget_bytes)} reserved by {now.leases}, {now.waiting} waiting>"
            )
        return "<MemorySemaphore of another process>"

    def __reduce__(self) -> tuple[Callable[..., MemorySemaphore], tuple[Any, ...]]:
        """One of the whole host may be sent to another process, which then takes part itself."""
        if self.scope == "process":
            raise TypeError(
                'a MemorySemaphore of one process cannot be sent to another; make it with scope="host" and a name'
            )
        return self._made_again, ()

    def _submit(self, size_bytes: int, *, exclusive: bool) -> Claim:
        alone = exclusive or (self.oversize == "alone" and size_bytes > self._scope.ceiling_bytes())
        claim: Claim = self._scope.submit(size_bytes, exclusive=alone)
        return claim

    def _too_late(self, size_bytes: int, timeout_s: float) -> str:
        now = self.statistics()
        return (
            f"{format_size(size_bytes)} did not come free within {format_duration(timeout_s)}: "
            f"{format_size(now.reserved_bytes)} of {format_size(now.budget_bytes)} are reserved by {now.leases} leases, "
            f"{now.waiting} more wait; release leases sooner, wait longer, or raise the budget"
        )


class DynamicSemaphore:
    """Think of a club that lets fewer people in when the air gets thin, and never asks a guest to leave.

    All `initial_permits` can be had while at most `eta` of the limit is in use. From there to the limit they go down
    evenly, to one, and come back as memory does. It counts tasks, not bytes: where sizes are known, `MemorySemaphore`
    is the better choice.

    Args:
        initial_permits: how many may be held together while memory is plenty.
        eta: share of the limit in use from which permits are withheld.
        reading, clock, wait: replaced by tests.
    """

    def __init__(
        self,
        initial_permits: int = 4,
        eta: float = 0.75,
        *,
        reading: ReadMemory = memory_reading,
        clock: Callable[[], float] = time.monotonic,
        wait: WaitForChange = threading.Condition.wait,
    ) -> None:
        self.initial_permits = count_of("initial_permits", initial_permits)
        self.eta = share_of("eta", eta)
        self._reading = reading
        self._clock = clock
        self._wait = wait
        self._held = 0
        self._changed = threading.Condition(threading.Lock())

    @property
    def permits(self) -> int:
        """How many may be held now: at least 1. Permits that are held stay, even where they are more."""
        reading = self._reading()
        used_share = reading.used_bytes / max(1, reading.limit.bytes)
        if used_share <= self.eta:
            return self.initial_permits
        left = (1.0 - used_share) / (1.0 - self.eta)
        return max(1, int(self.initial_permits * left))

    @property
    def held(self) -> int:
        """How many are held."""
        return self._held

    def acquire(self, blocking: bool = True, timeout_s: float | None = None) -> bool:
        """Takes a permit; False where none came free in time, or at once where `blocking` is false."""
        limit_s = timeout_of("timeout_s", timeout_s) if blocking else 0.0
        deadline_s = None if limit_s is None else self._clock() + limit_s
        with self._changed:
            while self._held >= self.permits:
                patience_s = REREAD_S if deadline_s is None else min(REREAD_S, deadline_s - self._clock())
                if patience_s <= 0:
                    return False
                self._wait(self._changed, patience_s)
            self._held += 1
        return True

    def release(self) -> None:
        """Gives a permit back.

        Raises:
            ValueError: none is held.
        """
        with self._changed:
            if self._held == 0:
                raise ValueError(
                    "released more often than acquired; release once for each acquire that said True"
                )
            self._held -= 1
            self._changed.notify()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return (
            f"<DynamicSemaphore: {self._held} of {self.permits} permits held, at most {self.initial_permits}>"
        )


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not name:
        raise UsageError(
            f'name is {name!r}; give the word under which programs share a budget, such as "nightly"'
        )
    return name
