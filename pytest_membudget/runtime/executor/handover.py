"""Calls on their way to workers: each with its number, and no more of them in flight than may be."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pytest_membudget.runtime.executor.pace import Pace
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.workers.pool import Crew
from pytest_membudget.runtime.workers.protocol import Call, Done, Reply
from pytest_membudget.runtime.workers.slot import Post, Replied


class Handover:
    """Hands tasks to workers; what becomes of each call is told to `report`."""

    def __init__(self, crew: Crew, max_in_flight: int | None, report: Callable[[Replied], None]) -> None:
        self.crew = crew
        self.pace = Pace()
        self._max_in_flight = max_in_flight
        self._report = report
        self._sequence = 0

    def call(self, post: Post, task: Task) -> tuple[Call, Done]:
        """Notes that `post` gets the task, and makes one attempt of it."""
        self._sequence += 1
        task.sequence = self._sequence
        task.level = post.level
        self.crew.take_on(post, task, self.pace.weight)
        call = Call(
            task.sequence, task.fn, task.args, task.kwargs, task.charged_bytes or 0, task.is_file, task.exact
        )
        return call, partial(self._put, post, task, task.sequence)

    def hand(self, post: Post, task: Task) -> None:
        """Gives `post` one more call, and sees to its successor in time."""
        post.worker.send(*self.call(post, task))
        if self.crew.nears_its_end(post):
            self.crew.spare()

    def is_full(self) -> bool:
        """Whether as many calls are in flight as may be."""
        room = self.room_in_flight()
        return room is not None and room <= 0

    def room_in_flight(self) -> int | None:
        """How many more calls may be in flight; `None` where nobody set a limit."""
        if self._max_in_flight is None:
            return None
        return self._max_in_flight - sum(len(post.in_flight) for post in self.crew.posts)

    def _put(self, post: Post, task: Task, sequence: int, reply: Reply) -> None:
        self._report(Replied(post, task, sequence, reply))
