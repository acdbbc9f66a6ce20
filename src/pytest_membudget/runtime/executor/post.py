"""A worker as the floor sees it: what it has to do, under which lease, and whether it will be there much longer."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from pytest_membudget.records.run import Level
from pytest_membudget.runtime.executor.launcher import ClusterWorker, Launcher, Reply, Stage, Worker
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.ledger import Ticket


class Post:
    """A worker and what it has to do. `ticket` is the lease that its calls run under, one after the other.

    `lent` is the same worker where it belongs to a cluster; its calls need no lease, as its budget is its own.
    """

    __slots__ = (
        "answered",
        "handed",
        "in_flight",
        "is_gone",
        "is_last",
        "kept_bytes",
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
        self.kept_bytes = 0
        self.is_last = False  # ends after the calls that it has
        self.is_gone = False
        self.stuck_at: Stage | None = None  # what it was at when it was ended for not coming to its call

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
