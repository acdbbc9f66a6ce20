"""Which workers of a Dask cluster can be used: each is asked once who it is, and accepted or refused with the reason.

All but `why_no_worker` runs in the loop of the level.
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
from pytest_membudget.runtime.cluster import worker_side
from pytest_membudget.runtime.cluster.connection import CONNECT_S, DaskConnection, Offer
from pytest_membudget.runtime.cluster.remote_worker import RemoteWorker
from pytest_membudget.runtime.workers.serialization import packed_for_elsewhere

JOIN_S = 30.0
"""How long a cluster may be without any worker that can be used."""

START_WITH = "membudget dask-worker"


class WorkerRegistry:
    """The workers that can be used. Changed in the connection's loop, read from any thread."""

    def __init__(self) -> None:
        self._free: deque[RemoteWorker] = deque()
        self._uses: dict[str, HostUse] = {}
        self._tasks_before: Counter[str] = Counter()  # of workers that have left, by host
        self._lock = threading.Lock()
        self.present: dict[str, RemoteWorker] = {}

    def add(self, worker: RemoteWorker) -> None:
        """Adds a worker that has joined."""
        with self._lock:
            self.present = {**self.present, worker.address: worker}
            self._update_use(worker.host)
        self._free.append(worker)

    def remove(self, address: str) -> RemoteWorker | None:
        """Removes a worker that has left; `None` where it was not known."""
        with self._lock:
            worker = self.present.get(address)
            if worker is not None:
                self._update_use(worker.host)
                self._tasks_before[worker.host] += worker.tasks
                self.present = {each: known for each, known in self.present.items() if known is not worker}
        return worker

    def take(self) -> RemoteWorker | None:
        """A worker that is not in use yet."""
        while self._free:
            worker = self._free.popleft()
            if not worker.is_gone:
                return worker
        return None

    def workers_on(self, host: str) -> int:
        """The number of workers there, at least 1."""
        return max(1, sum(1 for worker in self.present.values() if worker.host == host))

    def hosts(self) -> tuple[HostUse, ...]:
        """What was used of each host; a worker that replaced another one is not counted twice."""
        with self._lock:
            for host in {worker.host for worker in self.present.values()}:
                self._update_use(host)
            return tuple(use for _, use in sorted(self._uses.items()) if use.tasks)

    def _update_use(self, host: str) -> None:
        """Keeps the maxima of a host: its workers, what they offer, and the sum of their own peaks."""
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


class Membership:
    """Keeps the registry up to date with the scheduler. `make_worker` makes a worker of ours of one that can be used."""

    def __init__(
        self,
        link: DaskConnection,
        registry: WorkerRegistry,
        *,
        make_worker: Callable[[str, worker_side.Hello, Offer], RemoteWorker],
        report: Callable[[str, str], None],
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        start_timeout_s: float | None = None,
    ) -> None:
        self._connection = link
        self._registry = registry
        self._remote_worker = make_worker
        self._report = report
        self._packed_initializer = packed_for_elsewhere((initializer, initargs))
        self._start_timeout_s = start_timeout_s
        self._refused: dict[str, str] = {}
        self._greetings: dict[str, asyncio.Task[None]] = {}
        self._without_since_s = time.monotonic()

    def why_no_worker(self) -> str:
        """Why no worker can be used, where that will not change by itself; empty where it may."""
        if self._registry.present or self._greetings:
            return ""
        if self._refused:
            return "; ".join(sorted(set(self._refused.values())))
        if time.monotonic() - self._without_since_s <= JOIN_S:
            return ""
        return (
            f"no worker joined the cluster at {self._connection} within {JOIN_S:g} s; "
            f"start some with: {START_WITH} SCHEDULER"
        )

    async def open(self) -> None:
        """Asks all present workers who they are: the largest must be known before the first task is admitted by it."""
        await self.refresh()
        if self._greetings:
            await asyncio.wait(list(self._greetings.values()), timeout=CONNECT_S)
        self._without_since_s = time.monotonic()

    def close(self) -> None:
        """Stops asking new workers."""
        for meeting in self._greetings.values():
            meeting.cancel()

    async def refresh(self) -> None:
        """Asks new workers who they are, and removes those that are gone."""
        present = await self._connection.workers()
        if present is None:
            return
        for address in set(self._registry.present) - set(present):
            self.remove(address)
        for address in set(self._refused) - set(present):
            del self._refused[address]
        known = {*self._registry.present, *self._refused, *self._greetings}
        for address, offer in present.items():
            if address not in known:
                self._greetings[address] = asyncio.create_task(self._greet(address, offer))

    def remove(self, address: str) -> None:
        """Removes a worker that the scheduler has lost."""
        worker = self._registry.remove(address)
        if worker is None:
            return
        self._note_if_empty()
        worker.gone(f"{worker} was killed or lost")

    def remove_all(self, cause: str) -> None:
        """Removes all workers because the scheduler is gone; their calls are not to blame."""
        for address, worker in list(self._registry.present.items()):
            self._registry.remove(address)
            worker.gone(cause, blameless=True)

    async def _greet(self, address: str, offer: Offer) -> None:
        """Accepts a worker, or reports why it cannot be used."""
        try:
            if not offer.memory_bytes:
                start = f"{START_WITH} {self._connection}"
                self._refuse(address, f"worker {address} offers no MEMORY; start it with: {start}")
                return
            greeted = self._connection.run_on(
                address, 1, worker_side.say_hello, self._connection.token, self._packed_initializer
            )
            said = await asyncio.wait_for(greeted, self._start_timeout_s)
            who = worker_side.Hello(*said)
            if different := _differences(who):
                self._refuse(
                    address, f"worker {address} on host {who.host} differs from this client: {different}"
                )
                return
            self._registry.add(self._remote_worker(address, who, offer))
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
            self._note_if_empty()
            del self._greetings[address]

    def _refuse(self, address: str, why: str) -> None:
        self._refused[address] = why
        self._report(why, "it is not used")

    def _note_if_empty(self) -> None:
        if not self._registry.present:
            self._without_since_s = time.monotonic()


def _differences(who: worker_side.Hello) -> str:
    """Differences in versions that keep calls from being sent between this client and that worker."""
    there = dict(who.versions)
    return ", ".join(
        f"{name} is {there.get(name, 'missing')} there and {version} here"
        for name, version in worker_side.versions()
        if there.get(name) != version
    )
