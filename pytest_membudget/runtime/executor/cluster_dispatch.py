"""Gives the workers of a cluster what they may do, as long as there is a cluster."""

from __future__ import annotations

from pytest_membudget.runtime.executor.handover import Handover
from pytest_membudget.runtime.executor.line import Line, refuse
from pytest_membudget.runtime.executor.placement import TOGETHER
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.workers.retained_memory import WARM_BYTES
from pytest_membudget.runtime.workers.slot import Post

TOGETHER_S = 0.1
"""Calls that travel in one message take about so long together: the way there and back takes a few milliseconds."""

SCHEDULER_S = 0.003
"""What a message costs the cluster's scheduler, which has one thread for all workers (measured, see docs/cluster.md).

With many workers messages last longer, so that the scheduler keeps up with them.
"""

AHEAD_S = 0.5
"""Tasks below this are queued ahead in their worker."""


class ClusterDispatch:
    """Hands out calls. `most` tasks run at once; as many as there are workers where it is `None`."""

    def __init__(self, line: Line, handover: Handover, most: int | None) -> None:
        self._line = line
        self._placement = line.placement
        self._handover = handover
        self._crew = handover.crew
        self._most = most

    def dispatch(self) -> bool:
        """Starts everything that may start now; False where the cluster is gone, and its tasks are in the local line.

        Raises:
            CannotStartError: it is gone, and there is no other level to go on.
        """
        self._crew.claim()
        if not self._crew.in_cluster:
            self._give_back()
            return False
        self._placement.look_around()
        if self._placement.largest_bytes:  # nobody can be told too large before there was a worker
            self._line.line_up()
        for task, oversize in self._placement.stranded():
            refuse(task, oversize)
        self._hand_out(ahead=False)
        if self._handover.pace.mean_s <= AHEAD_S:
            self._hand_out(ahead=True)
        return True

    def _give_back(self) -> None:
        for task in reversed(self._placement.tasks()):
            self._placement.withdraw(task)
            self._line.again(task)

    def _hand_out(self, *, ahead: bool) -> None:
        for post in sorted(self._crew.posts, key=_capacity_bytes):
            if self._may_have_more(post, ahead=ahead):
                self._give(post, self._placement.take_for(post, self._together()))
                self._line.line_up()

    def _may_have_more(self, post: Post, *, ahead: bool) -> bool:
        if self._handover.is_full():
            return False
        if ahead:
            few = max(1, self._together() // 2)
            return 1 <= len(post.in_flight) <= few and not post.in_flight[0].alone
        return not post.in_flight and (self._most is None or self._crew.busy() < self._most)

    def _together(self) -> int:
        """How many calls travel in one message."""
        message_s = max(TOGETHER_S, SCHEDULER_S * len(self._crew.posts))
        most = max(1, min(TOGETHER, int(message_s / max(self._handover.pace.mean_s, 1e-6))))
        room = self._handover.room_in_flight()
        return most if room is None else max(1, min(most, room))

    def _give(self, post: Post, tasks: list[Task]) -> None:
        if post.lent is None or not tasks:
            return
        if not post.in_flight and self._keeps_too_much(post, tasks) and post.lent.renew():
            self._crew.drop(post)  # the one that comes in its place begins empty
            for task in reversed(tasks):
                self._line.again(task)
            return
        begun = [task for task in tasks if task.begin()]
        if begun:
            post.lent.send_together([self._handover.call(post, task) for task in begun])

    def _keeps_too_much(self, post: Post, tasks: list[Task]) -> bool:
        """Whether the tasks fit the worker, but not beside what earlier ones left there."""
        needed_bytes = max(task.charged_bytes or 0 for task in tasks)
        capacity_bytes = _capacity_bytes(post)
        excess_bytes = max(0, post.kept_bytes - (self._crew.warmth.base_bytes or WARM_BYTES))
        return capacity_bytes - excess_bytes < needed_bytes <= capacity_bytes


def _capacity_bytes(post: Post) -> int:
    return 0 if post.lent is None else post.lent.capacity_bytes
