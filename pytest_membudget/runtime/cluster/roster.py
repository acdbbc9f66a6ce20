"""The workers that a cluster lends: who is there, who is free, and what was used of each host."""

from __future__ import annotations

import threading
from collections import Counter, deque

from pytest_membudget.records.run import HostUse
from pytest_membudget.runtime.cluster.remote_worker import LentWorker


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
