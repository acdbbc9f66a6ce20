"""Calls that wait in their worker for the one before them, so that a worker with short ones is never idle between two.

They run one after the other under the lease that the worker holds, so it must be enough for each of them; and they
are taken in the order of the line.
"""

from __future__ import annotations

from pytest_membudget.runtime.admission.ledger import Ticket
from pytest_membudget.runtime.executor.handover import Handover
from pytest_membudget.runtime.executor.line import Line
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.workers.slot import Post


class Prefetch:
    """Keeps busy workers supplied."""

    def __init__(self, line: Line, handover: Handover) -> None:
        self._line = line
        self._handover = handover

    def fill(self) -> None:
        """Hands each busy worker as many calls as it may have."""
        handover, depth = self._handover, self._handover.pace.depth
        for post in handover.crew.posts:
            # Several at a time: the pool's thread, woken once, takes all of them.
            if not 1 <= len(post.in_flight) <= depth // 2 or not _may_have_more(post):
                continue
            while len(post.in_flight) < depth and not post.is_last and not handover.is_full():
                task = self._next_behind(post.ticket)
                if task is None:
                    return
                if task.begin():
                    handover.hand(post, task)

    def _next_behind(self, ticket: Ticket | None) -> Task | None:
        """Who is next, where the worker's lease is enough for it. One that nobody waits before needs no line."""
        line = self._line
        if line.admission.waiting == 0:
            if line.pending and line.admission.fits_within(line.pending[0], ticket):
                return line.pending.popleft()
            line.line_up()
        return line.admission.head_within(ticket)


def _may_have_more(post: Post) -> bool:
    return post.launcher.own_memory and post.ticket is not None and not post.ticket.exclusive
