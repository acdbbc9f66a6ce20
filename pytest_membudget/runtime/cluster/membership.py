"""Who of a Dask cluster may work for us: each worker is introduced once, and taken in or told why not.

Runs in the loop of the level, `why_nobody` apart.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from pytest_membudget.records.run import HostUse
from pytest_membudget.runtime.cluster import worker_side as cluster_side
from pytest_membudget.runtime.cluster.connection import CONNECT_S, DaskLink, Offer
from pytest_membudget.runtime.cluster.remote_worker import LentWorker
from pytest_membudget.runtime.workers.serialization import packed_for_elsewhere

JOIN_S = 30.0
"""How long a cluster may be without any worker that can be used."""

START_WITH = "membudget dask-worker"


class Roster:
    """Changed by the link's loop, read by everybody."""

    def __init__(self) -> None:
        self._free: deque[LentWorker] = deque()
        self._uses: dict[str, HostUse] = {}
        self._tasks_before: Counter[str] = Counter()  # of workers that have left, by host
        self._lock = threading.Lock()
        self.present: dict[str, LentWorker] = {}

    def add(self, worker: LentWorker) -> None:
        """One has joined."""
        with self._lock:
            self.present = {**self.present, worker.address: worker}
            self._note(worker.host)
        self._free.append(worker)

    def remove(self, address: str) -> LentWorker | None:
        """One has left; `None` where it was not known."""
        with self._lock:
            worker = self.present.get(address)
            if worker is not None:
                self._note(worker.host)
                self._tasks_before[worker.host] += worker.tasks
                self.present = {each: known for each, known in self.present.items() if known is not worker}
        return worker

    def take(self) -> LentWorker | None:
        """One that nobody has taken yet."""
        while self._free:
            worker = self._free.popleft()
            if not worker.is_gone:
                return worker
        return None

    def workers_on(self, host: str) -> int:
        """How many are there, 1 at least."""
        return max(1, sum(1 for worker in self.present.values() if worker.host == host))

    def hosts(self) -> tuple[HostUse, ...]:
        """What was used of each host; a worker that took the place of another one is not counted twice."""
        with self._lock:
            for host in {worker.host for worker in self.present.values()}:
                self._note(host)
            return tuple(use for _, use in sorted(self._uses.items()) if use.tasks)

    def _note(self, host: str) -> None:
        """Keeps the most that there was at a time: workers, what they offer, and the sum of their own peaks."""
        there = [worker for worker in self.present.values() if worker.host == host]
        before = self._uses.get(host)
        self._uses[host] = HostUse(
            host=host,
            workers=max(len(there), before.workers if before else 0),
            tasks=self._tasks_before[host] + sum(worker.tasks for worker in there),
            budget_bytes=max(
                sum(worker.offered_bytes for worker in there), before.budget_bytes if before else 0
            ),
            peak_upper_bytes=max(
                sum(worker.peak_bytes for worker in there), before.peak_upper_bytes if before else 0
            ),
        )


class Reception:
    """Keeps the roster up to date with what the scheduler says. `lend` makes a worker of ours of one that can be used."""

    def __init__(
        self,
        link: DaskLink,
        roster: Roster,
        *,
        lend: Callable[[str, cluster_side.Introduction, Offer], LentWorker],
        tell: Callable[[str, str], None],
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        start_timeout_s: float | None = None,
    ) -> None:
        self._link = link
        self._roster = roster
        self._lend = lend
        self._tell = tell
        self._packed_initializer = packed_for_elsewhere((initializer, initargs))
        self._start_timeout_s = start_timeout_s
        self._refused: dict[str, str] = {}
        self._meetings: dict[str, asyncio.Task[None]] = {}
        self._without_since_s = time.monotonic()

    def why_nobody(self) -> str:
        """Why no worker can be used, where that will not change by itself; empty where it may."""
        if self._roster.present or self._meetings:
            return ""
        if self._refused:
            return "; ".join(sorted(set(self._refused.values())))
        if time.monotonic() - self._without_since_s <= JOIN_S:
            return ""
        return (
            f"no worker joined the cluster at {self._link} within {JOIN_S:g} s; "
            f"start some with: {START_WITH} SCHEDULER"
        )

    async def open(self) -> None:
        """Meets everybody who is there: the largest worker is known before the first task is judged by it."""
        await self.look_around()
        if self._meetings:
            await asyncio.wait(list(self._meetings.values()), timeout=CONNECT_S)
        self._without_since_s = time.monotonic()

    def close(self) -> None:
        """Meets nobody any more."""
        for meeting in self._meetings.values():
            meeting.cancel()

    async def look_around(self) -> None:
        """Meets workers that are new and parts with those that are gone."""
        present = await self._link.workers()
        if present is None:
            return
        for address in set(self._roster.present) - set(present):
            self.part_with(address)
        for address in set(self._refused) - set(present):
            del self._refused[address]
        known = {*self._roster.present, *self._refused, *self._meetings}
        for address, offer in present.items():
            if address not in known:
                self._meetings[address] = asyncio.create_task(self._meet(address, offer))

    def part_with(self, address: str) -> None:
        """The scheduler has lost a worker."""
        worker = self._roster.remove(address)
        if worker is None:
            return
        self._note_whether_alone()
        worker.gone(f"{worker} was killed or lost")

    def part_with_all(self, cause: str) -> None:
        """The scheduler is gone, and with it every worker: what they ran was not its own fault."""
        for address, worker in list(self._roster.present.items()):
            self._roster.remove(address)
            worker.gone(cause, blameless=True)

    async def _meet(self, address: str, offer: Offer) -> None:
        """Takes a worker in, or says why it cannot be used."""
        try:
            if not offer.memory_bytes:
                start = f"{START_WITH} {self._link}"
                self._refuse(address, f"worker {address} offers no MEMORY; start it with: {start}")
                return
            introduced = self._link.hand(
                address, 1, cluster_side.introduce, self._link.token, self._packed_initializer
            )
            said = await asyncio.wait_for(introduced, self._start_timeout_s)
            who = cluster_side.Introduction(*said)
            if different := _differences(who):
                self._refuse(
                    address, f"worker {address} on host {who.host} differs from this client: {different}"
                )
                return
            self._roster.add(self._lend(address, who, offer))
        except concurrent.futures.CancelledError:
            pass  # it left meanwhile, or the scheduler did
        except TimeoutError:
            self._refuse(
                address,
                f"worker {address} was not ready within {self._start_timeout_s:g} s: our package or your initializer "
                "did not come to an end there; allow more time with ExecutorPolicy(start_timeout_s=…)",
            )
        except Exception as error:  # whatever keeps our own code from running there
            self._refuse(
                address,
                f"worker {address} cannot run this package: {type(error).__name__}: {error}; "
                "install the same pytest-membudget there, with its extra dask",
            )
        finally:
            self._note_whether_alone()
            del self._meetings[address]

    def _refuse(self, address: str, why: str) -> None:
        self._refused[address] = why
        self._tell(why, "it is not used")

    def _note_whether_alone(self) -> None:
        if not self._roster.present:
            self._without_since_s = time.monotonic()


def _differences(who: cluster_side.Introduction) -> str:
    """What would keep calls from travelling between this client and that worker."""
    there = dict(who.versions)
    return ", ".join(
        f"{name} is {there.get(name, 'missing')} there and {version} here"
        for name, version in cluster_side.versions()
        if there.get(name) != version
    )
