"""Calls that wait in their worker for the one before them, so that a worker with short ones is never idle between two.

They run one after the other under the lease that the worker holds, so it must be enough for each of them; and they
are taken in the order of the line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_membudget.runtime.executor.post import Post
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.ledger import Ticket

if TYPE_CHECKING:
    from pytest_membudget.runtime.executor.floor import Floor


class Prefetch:
    """The floor's part for short calls."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    def fill(self) -> None:
        """Hands each busy worker as many calls as it may have."""
        floor, depth = self._floor, self._floor.pace.depth
        for post in floor.crew.posts:
            # Several at a time: the pool's thread, woken once, takes all of them.
            if not 1 <= len(post.in_flight) <= depth // 2 or not _may_have_more(post):
                continue
            while len(post.in_flight) < depth and not post.is_last and not floor.is_full():
                task = self._next_behind(post.ticket)
                if task is None:
                    return
                if task.begin():
                    floor.hand(post, task)

    def _next_behind(self, ticket: Ticket | None) -> Task | None:
        """Who is next, where the worker's lease is enough for it. One that nobody waits before needs no line."""
        floor = self._floor
        if floor.admission.waiting == 0:
            if floor.pending and floor.admission.fits_within(floor.pending[0], ticket):
                return floor.pending.popleft()
            floor.line_up()
        return floor.admission.head_within(ticket)


def _may_have_more(post: Post) -> bool:
    return post.launcher.own_memory and post.ticket is not None and not post.ticket.exclusive
