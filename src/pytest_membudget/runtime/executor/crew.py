"""The workers there are, and the level they are had from."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from pytest_membudget.records.run import HostUse, Level, LevelEvent
from pytest_membudget.runtime.executor.launcher import (
    CannotStartError,
    ClusterLauncher,
    ClusterWorker,
    Launcher,
    NoWorkerYetError,
    Worker,
)
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.ledger import Ticket

_logger = logging.getLogger("pytest_membudget.runtime")

STARTS_THAT_MAY_FAIL = 3
"""So many workers in a row may die on their way up before the level counts as one that cannot start."""

WARM_BYTES = 16 * 1024 * 1024
"""What a worker may keep of its tasks (imported modules, caches) before it is charged, where no base is known."""


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

    @property
    def level(self) -> Level:
        """The level that it belongs to."""
        return self.launcher.level

    @property
    def host(self) -> str:
        """The machine it is on; empty for this one."""
        return "" if self.lent is None else self.lent.host


class Crew:
    """Starts, keeps and ends workers, and goes down a level when none can be started."""

    def __init__(  # noqa: PLR0917 - built in one place, by the engine
        self,
        launchers: Sequence[Launcher],
        note: Callable[[LevelEvent], None],
        clock: Callable[[], float],
        max_tasks: int | None,
        base_bytes: int = 0,
        cluster: ClusterLauncher | None = None,
    ) -> None:
        self._cluster = cluster
        self._launchers = list(launchers)
        self._note = note
        self._clock = clock
        self._max_tasks = max_tasks
        self._base_bytes = base_bytes
        self._at = 0
        self._failed_starts = 0
        self.posts: list[Post] = []
        self._leaving: list[Post] = []

    @property
    def launcher(self) -> Launcher:
        """Where workers come from now."""
        return self._launchers[self._at]

    @property
    def level(self) -> Level:
        """The level that tasks run at now."""
        return self.launcher.level

    @property
    def has_fallen(self) -> bool:
        """Whether this is not the first level any more."""
        return self._at > 0

    @property
    def in_cluster(self) -> bool:
        """Whether workers are lent by a cluster now."""
        return self._cluster is not None and self.launcher is self._cluster

    def hosts(self) -> tuple[HostUse, ...]:
        """What was used of each machine of the cluster."""
        return () if self._cluster is None else self._cluster.hosts()

    def claim(self) -> None:
        """Takes every worker of the cluster that is free, or goes down a level where the cluster cannot be used.

        Raises:
            CannotStartError: there is no lower level.
        """
        while self._cluster is not None and self.in_cluster:
            try:
                worker = self._cluster.start()
            except NoWorkerYetError:
                return
            except CannotStartError as error:
                self.fall(self._cluster, str(error))
            else:
                self.posts.append(Post(worker, self._cluster, worker))

    def launcher_for(self, task: Task) -> Launcher:
        """The level for this task: that of everybody, or threads for one of a small batch."""
        if task.in_thread and not task.ran_out:
            for launcher in self._launchers[self._at :]:
                if launcher.level == "thread":
                    return launcher
        return self.launcher

    def excess_bytes(self, post: Post) -> int:
        """What a worker keeps beyond what is expected of a warm one."""
        return max(0, post.kept_bytes - (self._base_bytes or WARM_BYTES))

    def aside_bytes(self) -> int:
        """What workers hold beside their tasks: each one's base from its start, and what they keep beyond it."""
        return sum(
            self._base_bytes + self.excess_bytes(post)
            for post in self.posts
            if post.launcher.own_memory and post.lent is None
        )

    def idle(self, launcher: Launcher | None = None) -> list[Post]:
        """Workers with nothing to do, the one that kept most memory first."""
        found = [
            post
            for post in self.posts
            if not post.in_flight and not post.is_last and launcher in {None, post.launcher}
        ]
        return sorted(found, key=lambda post: -post.kept_bytes)

    def busy(self) -> int:
        """How many workers have something to do."""
        return sum(1 for post in self.posts if post.in_flight)

    def post_for(self, task: Task) -> Post | None:
        """A worker for `task`: an idle one, a new one, or one of a lower level; `None` where it has to wait.

        Raises:
            CannotStartError: there is no lower level left.
        """
        while True:
            launcher = self.launcher_for(task)
            idle = self.idle(launcher)
            if idle and not task.fresh_worker:
                return idle[0]
            try:
                return self._start(launcher)
            except CannotStartError as error:
                if idle:
                    return idle[0]
                if any(post.launcher is launcher for post in self.posts):
                    return None
                self.fall(launcher, str(error))

    def spare(self) -> None:
        """Has one more worker ready, where that is possible."""
        if self.launcher.own_memory and not self.in_cluster and not self.idle(self.launcher):
            try:
                self._start(self.launcher)
            except CannotStartError:
                return  # it was a courtesy; the next real start will tell

    def fall(self, launcher: Launcher, cause: str) -> None:
        """Goes down below `launcher`, with one line in the log.

        Raises:
            CannotStartError: there is no lower level.
        """
        at = self._launchers.index(launcher)
        if at + 1 == len(self._launchers):
            raise CannotStartError(f"no {launcher.level} worker can be started: {cause}")
        self._fall_to(max(self._at, at + 1), launcher, cause)

    def fall_to(self, launcher: Launcher, cause: str) -> None:
        """Goes down to that level at once."""
        self._fall_to(self._launchers.index(launcher), self.launcher, cause)

    def _fall_to(self, at: int, failed: Launcher, cause: str) -> None:
        self._at = at
        self._failed_starts = 0
        event = LevelEvent(
            kind="fallback",
            level=failed.level,
            cause=f"no {failed.level} worker can be started: {cause}",
            next_step=f"continues with level {self.level!r}",
            at_s=self._clock(),
        )
        _logger.warning("%s", event)
        self._note(event)

    def take_on(self, post: Post, task: Task, weight: float) -> None:
        """Notes that `post` got one more call; `weight` says how much of one it counts towards its end."""
        post.in_flight.append(task)
        post.handed += weight
        if post.lent is not None:
            return  # it is the cluster's to replace, and runs one call at a time anyway
        if task.fresh_worker or (
            post.launcher.own_memory and self._max_tasks is not None and post.handed >= self._max_tasks
        ):
            post.is_last = True

    def nears_its_end(self, post: Post) -> bool:
        """Whether a worker that can take its place should be on its way."""
        return self._max_tasks is not None and post.handed * 4 >= self._max_tasks * 3

    def proved_itself(self) -> None:
        """A worker came up and replied."""
        self._failed_starts = 0

    def died(self, post: Post, detail: str, *, failed_to_start: bool) -> None:
        """A worker is gone. Several in a row that never came up mean that the level cannot start.

        Raises:
            CannotStartError: that is so, and there is no lower level.
        """
        if post.is_gone:
            return
        self.drop(post)
        if not failed_to_start:
            return
        self._failed_starts += 1
        if self._failed_starts >= STARTS_THAT_MAY_FAIL and post.launcher is self.launcher:
            self._failed_starts = 0
            self.fall(
                post.launcher, f"{STARTS_THAT_MAY_FAIL} ended before they were ready, in a row ({detail})"
            )

    def drop(self, post: Post) -> None:
        """Takes a worker that is gone, or left to itself, off the list."""
        post.is_gone = True
        if post in self.posts:
            self.posts.remove(post)
            self._leaving = [each for each in self._leaving if not each.worker.has_ended()]
            self._leaving.append(post)

    def retire(self, posts: Iterable[Post]) -> None:
        """Lets idle workers end."""
        for post in list(posts):
            self.drop(post)
            post.worker.retire()

    def close(self, *, kill: bool) -> None:
        """Ends everybody and waits for that."""
        for post in self.posts:
            if kill:
                post.worker.kill()
            post.worker.retire()
        for post in (*self._leaving, *self.posts):
            post.worker.join()
        self._leaving.clear()
        self.posts.clear()
        if self._cluster is not None:
            self._cluster.close()

    def _start(self, launcher: Launcher) -> Post:
        post = Post(launcher.start(), launcher)
        self.posts.append(post)
        return post
