"""Which task goes to which worker of a cluster, where each worker has a budget of its own.

Every task has a *home*: the workers with the smallest capacity that is enough for it. A free worker takes the first
task in line of those that need a capacity as large as its own, and only where there is none one that could live in a
smaller worker. So:

- no worker is given more than its capacity, as it runs one call at a time;
- nobody starves: when a worker of a task's home is free, only those before it in line with the same home come first;
- no large worker idles while anything waits, and none is busy with small tasks while a large one waits.

A task that must be alone, or is larger than every worker and may be alone, waits until all workers of the machine with
the largest one are free, and nothing starts there before it has ended.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Callable

from pytest_membudget.errors import OversizeError
from pytest_membudget.runtime.executor.policy import ExecutorPolicy
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.workers.pool import Crew
from pytest_membudget.runtime.workers.slot import Post
from pytest_membudget.units import format_duration, format_size

TOGETHER = 32
"""The most calls that travel to a worker in one message."""

PATIENCE_S = 30.0
"""How long a task waits for a worker that was large enough for it, and is gone, to come back."""

_WINDOW = 128


class Placement:
    """The tasks that wait for a worker of the cluster, by home, in order."""

    def __init__(self, crew: Crew, policy: ExecutorPolicy, clock: Callable[[], float]) -> None:
        self._crew = crew
        self._policy = policy
        self._clock = clock
        self._order: dict[Task, int] = {}
        self._next_order = 0
        self._capacities: list[int] = []
        self._homes: list[OrderedDict[Task, None]] = [OrderedDict()]  # the last one: larger than every worker
        self._alone: OrderedDict[Task, None] = OrderedDict()
        self._largest_seen_bytes = 0
        self._stranded_since_s: float | None = None
        self._alone_at: Post | None = None

    @property
    def is_full(self) -> bool:
        """Whether enough tasks wait here already."""
        return len(self._order) >= _WINDOW + 2 * TOGETHER * len(self._crew.posts)

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return len(self._order)

    @property
    def largest_bytes(self) -> int:
        """What the largest worker offers that was seen so far."""
        return self._largest_seen_bytes

    def tasks(self) -> list[Task]:
        """The tasks that wait, in order."""
        return sorted(self._order, key=self._order.__getitem__)

    def line_up(self, task: Task) -> None:
        """Puts `task` at the end of its line, or at the front where it was tried before; `look_around` comes first.

        Raises:
            OversizeError: larger than every worker, and the policy is to refuse such tasks.
        """
        if task.charged_bytes is None:
            task.charged_bytes = task.charge.first_bytes()
        if task.estimate_bytes is None:
            task.estimate_bytes = task.charged_bytes
        if task.charged_bytes > self._largest_seen_bytes and not task.alone:
            # What was taken in as fitting is not refused because its neighbours have taught caution: it runs alone.
            if task.estimate_bytes > self._largest_seen_bytes and self._policy.oversize == "refuse":
                raise self._oversize(task)
            task.alone = True
        self._next_order += 1
        first = bool(task.attempts or task.lost)
        self._order[task] = -self._next_order if first else self._next_order
        line = self._line_of(task)
        line[task] = None
        if first:
            line.move_to_end(task, last=False)

    def withdraw(self, task: Task) -> None:
        """Forgets a task that waits."""
        if self._order.pop(task, None) is not None:
            self._line_of(task).pop(task, None)

    def look_around(self) -> None:
        """Sorts the tasks anew where workers joined or left."""
        capacities = sorted({post.lent.capacity_bytes for post in self._crew.posts if post.lent is not None})
        if capacities == self._capacities:
            return
        tasks = self.tasks()
        self._capacities = capacities
        self._homes = [OrderedDict() for _ in range(len(capacities) + 1)]
        self._alone.clear()
        if capacities:
            self._largest_seen_bytes = max(self._largest_seen_bytes, capacities[-1])
        for task in tasks:
            self._line_of(task)[task] = None

    def stranded(self) -> list[tuple[Task, OversizeError]]:
        """Takes out the tasks whose only workers left, and did not come back for a while."""
        left = self._homes[-1] if self._capacities else ()
        if not left:
            self._stranded_since_s = None
            return []
        now_s = self._clock()
        if self._stranded_since_s is None:
            self._stranded_since_s = now_s
        if now_s - self._stranded_since_s < PATIENCE_S:
            return []
        self._largest_seen_bytes = self._capacities[-1]
        waited = f" (larger ones left, and did not come back within {format_duration(PATIENCE_S)})"
        found = [(task, self._oversize(task, waited)) for task in left]
        for task, _ in found:
            self.withdraw(task)
        return found

    def take_for(self, post: Post, at_most: int) -> list[Task]:
        """Takes out what `post` is to do next, in order: several only where all of them were never lost before."""
        if self._must_wait(post) or post.lent is None:
            return []
        if self._alone and not post.in_flight and post is self._largest():
            self._alone_at = post
            return [self._take(next(iter(self._alone)))]
        taken: list[Task] = []
        for line in reversed(self._homes[: bisect.bisect_right(self._capacities, post.lent.capacity_bytes)]):
            while line and len(taken) < at_most:
                task = next(iter(line))
                if task.lost or task.attempts:  # who ended its worker must be told from those beside it
                    return taken or ([] if post.in_flight else [self._take(task)])
                taken.append(self._take(task))
        return taken

    def _must_wait(self, post: Post) -> bool:
        """Whether the machine of `post` is kept for a task that must be alone there, or has one."""
        at = self._alone_at
        if at is not None and at.in_flight and not at.is_gone:
            return at.host == post.host
        largest = self._largest() if self._alone else None
        if largest is None or largest.host != post.host:
            return False
        return post is not largest or any(
            other.in_flight for other in self._crew.posts if other.host == post.host
        )

    def _largest(self) -> Post | None:
        lent = [post for post in self._crew.posts if post.lent is not None]
        return max(lent, key=lambda post: post.lent.capacity_bytes if post.lent else 0, default=None)

    def _line_of(self, task: Task) -> OrderedDict[Task, None]:
        if task.alone:
            return self._alone
        return self._homes[bisect.bisect_left(self._capacities, task.charged_bytes or 0)]

    def _take(self, task: Task) -> Task:
        self.withdraw(task)
        return task

    def _oversize(self, task: Task, waited: str = "") -> OversizeError:
        return OversizeError(
            f"this task is expected to take {format_size(task.charged_bytes or 0)}, more than the "
            f"{format_size(self._largest_seen_bytes)} that the largest worker of the cluster offers{waited}; start a "
            'larger worker, split the input, or run such tasks alone with ExecutorPolicy(oversize="alone")'
        )
