"""The workers: started at the present level when a task needs one, replaced in time, and ended."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_membudget.records.run import HostUse, Level
from pytest_membudget.runtime.executor.levels import Levels
from pytest_membudget.runtime.executor.policy import USUAL_TASKS_PER_CHILD
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.workers.protocol import (
    CannotStartError,
    ClusterLauncher,
    Launcher,
    NoWorkerYetError,
)
from pytest_membudget.runtime.workers.retained_memory import WARM_BYTES, Warmth
from pytest_membudget.runtime.workers.slot import Post

_LOADING_SHARE = 0.1
"""A worker that is replaced as usual has spent at most so much of its time on loading what its tasks need."""


class Crew:
    """Starts, keeps and ends workers."""

    def __init__(
        self,
        levels: Levels,
        max_tasks: int | None,
        base_bytes: int = 0,
        cluster: ClusterLauncher | None = None,
    ) -> None:
        self.levels = levels
        self._cluster = cluster
        self._max_tasks = max_tasks
        self._is_usual = max_tasks == USUAL_TASKS_PER_CHILD
        self.warmth = Warmth(base_bytes)
        self.posts: list[Post] = []
        self._leaving: list[Post] = []

    @property
    def launcher(self) -> Launcher:
        """Where workers come from now."""
        return self.levels.launcher

    @property
    def level(self) -> Level:
        """The level that tasks run at now."""
        return self.launcher.level

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
                self.levels.fall(self._cluster, str(error))
            else:
                self.posts.append(Post(worker, self._cluster, worker))

    def own_bytes(self, post: Post) -> int:
        """What a worker holds beside its tasks: what it keeps, or what one that has begun is expected to keep."""
        if not post.launcher.own_memory:
            return 0
        expected_bytes = self.warmth.expected_bytes if post.has_begun else self.warmth.base_bytes
        return max(post.kept_bytes, expected_bytes)

    def aside_bytes(self) -> int:
        """What all workers are charged beside their tasks."""
        return sum(
            self.warmth.charged_bytes(self.own_bytes(post))
            for post in self.posts
            if post.launcher.own_memory and post.lent is None
        )

    def start_bytes(self) -> int:
        """What the worker of the next task will be charged beyond that, as it begins; 0 where a warm one is idle."""
        new_bytes = self.warmth.charged_bytes(self.warmth.expected_bytes)
        if not new_bytes or not self.launcher.own_memory:
            return 0
        idle = self.idle(self.launcher)
        if idle and idle[0].has_begun:
            return 0
        return new_bytes - (self.warmth.charged_bytes(self.own_bytes(idle[0])) if idle else 0)

    def surplus(self, *, leave_one: bool = False) -> list[Post]:
        """Idle workers that might be ended for their memory, the one that keeps most first.

        One stays for the task that waits: of the warm ones the smallest, unless a new one would be smaller and
        `leave_one` does not say otherwise.
        """
        idle = [post for post in self.idle() if post.launcher.own_memory and post.lent is None]
        warm = [post for post in idle if post.has_begun]
        cold = [post for post in idle if not post.has_begun]
        if warm and (leave_one or not self.warmth.shrinks(warm[-1].kept_bytes)):
            warm.pop()
        elif cold:
            cold.pop()
        return [post for post in (*warm, *cold) if self.warmth.charged_bytes(self.own_bytes(post))]

    def idle(self, launcher: Launcher | None = None) -> list[Post]:
        """Workers with nothing to do: warm ones first, and of these the one that kept most memory."""
        found = [
            post
            for post in self.posts
            if not post.in_flight and not post.is_last and launcher in {None, post.launcher}
        ]
        return sorted(found, key=lambda post: (not post.has_begun, -post.kept_bytes))

    def busy(self) -> int:
        """How many workers have something to do."""
        return sum(1 for post in self.posts if post.in_flight)

    def post_for(self, task: Task) -> Post | None:
        """A worker for `task`: an idle one, a new one, or one of a lower level; `None` where it has to wait.

        Raises:
            CannotStartError: there is no lower level left.
        """
        while True:
            launcher = self.levels.launcher_for(task)
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
                self.levels.fall(launcher, str(error))

    def spare(self) -> None:
        """Starts one worker ahead of its first task, where none is idle and that is possible."""
        if self.launcher.own_memory and not self.in_cluster and not self.idle(self.launcher):
            try:
                self._start(self.launcher)
            except CannotStartError:
                return  # it was a courtesy; the next real start will tell

    def take_on(self, post: Post, task: Task, weight: float) -> None:
        """Notes that `post` got one more call; `weight` says how much of one a short one counts towards its end.

        Inputs of `run` count by it only where the caller chose no number of them.
        """
        post.in_flight.append(task)
        post.handed += 1.0 if task.exact and not self._is_usual else weight
        if post.lent is not None:
            return  # it is the cluster's to replace, and runs one call at a time anyway
        if task.fresh_worker or (post.launcher.own_memory and self._is_through(post, post.handed)):
            post.is_last = True

    def nears_its_end(self, post: Post) -> bool:
        """Whether a worker that can take its place should be on its way."""
        return self._is_through(post, post.handed * 4 / 3)

    def _is_through(self, post: Post, handed: float) -> bool:
        """Whether `handed` calls are enough for a worker.

        Fifty files of some milliseconds are not, where the next worker would import pandas for two seconds first.
        """
        if self._max_tasks is None or handed < self._max_tasks:
            return False
        has_loaded = post.done > 0 and (post.kept.first_bytes or 0) > WARM_BYTES
        if not self._is_usual or not has_loaded:
            return True
        return post.loading_s <= _LOADING_SHARE * post.busy_s

    def died(self, post: Post, detail: str, *, failed_to_start: bool) -> None:
        """A worker is gone. Several in a row that never came up mean that the level cannot start.

        Raises:
            CannotStartError: that is so, and there is no lower level.
        """
        if post.is_gone:
            return
        self.drop(post)
        if failed_to_start:
            self.levels.failed_to_start(post.launcher, detail)

    def stuck(self, post: Post, detail: str) -> None:
        """A worker was ended since it did not come to its call.

        Raises:
            CannotStartError: the level cannot start workers, and there is no lower one.
        """
        self.drop(post)
        self.levels.stuck(post.launcher, detail)

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
