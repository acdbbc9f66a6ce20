"""A worker as the floor sees it: what it has to do, under which lease, and whether it will be there much longer."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from pytest_membudget.records.run import Level
from pytest_membudget.runtime.admission.ledger import Ticket
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.workers.protocol import ClusterWorker, Launcher, Reply, Stage, Worker
from pytest_membudget.runtime.workers.retained_memory import Kept


class Post:
    """A worker and what it has to do. `ticket` is the lease that its calls run under, one after the other.

    `lent` is the same worker where it belongs to a cluster; its calls need no lease, as its budget is its own.
    """

    __slots__ = (
        "answered",
        "busy_s",
        "done",
        "first_s",
        "handed",
        "in_flight",
        "is_gone",
        "is_last",
        "kept",
        "launcher",
        "lent",
        "stuck_at",
        "ticket",
        "worker",
    )

    def __init__(self, worker: Worker, launcher: Launcher, lent: ClusterWorker | None = None) -> None:
        self.worker = worker
        self.launcher = launcher
        self.lent = lent
        self.in_flight: deque[Task] = deque()
        self.ticket: Ticket | None = None
        self.handed = 0.0
        self.answered = 0  # replies that came and have not been looked at
        self.kept = Kept()
        self.first_s = 0.0  # how long its first task took,
        self.busy_s = 0.0  # and all of them together
        self.done = 0
        self.is_last = False  # ends after the calls that it has
        self.is_gone = False
        self.stuck_at: Stage | None = None  # what it was at when it was ended for not coming to its call

    @property
    def kept_bytes(self) -> int:
        """What it keeps of its tasks."""
        return self.kept.bytes

    @property
    def has_begun(self) -> bool:
        """Whether it has been given a task yet."""
        return self.handed > 0

    def note_duration(self, duration_s: float) -> None:
        """It has done one more task."""
        self.first_s = self.first_s if self.done else duration_s
        self.busy_s += duration_s
        self.done += 1

    @property
    def loading_s(self) -> float:
        """How much longer its first task took than the others: what it had to load for them, mostly."""
        others_s = (self.busy_s - self.first_s) / max(1, self.done - 1)
        return max(0.0, self.first_s - others_s)

    @property
    def level(self) -> Level:
        """The level that it belongs to."""
        return self.launcher.level

    @property
    def host(self) -> str:
        """The machine it is on; empty for this one."""
        return "" if self.lent is None else self.lent.host


class Replied(NamedTuple):
    """A worker's answer to one call."""

    post: Post
    task: Task
    sequence: int
    reply: Reply
