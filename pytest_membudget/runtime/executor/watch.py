"""What happens to a task while it runs: it is ended when its time is over, and charged what it really holds."""

from __future__ import annotations

from pytest_membudget.records.run import LevelEvent
from pytest_membudget.runtime.executor.causes import never_began, not_begun, task_name, timed_out
from pytest_membudget.runtime.executor.floor import Floor
from pytest_membudget.runtime.executor.replies import Rules, broken_by, conclude
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.workers.slot import Post
from pytest_membudget.runtime.workers.task_memory import RESOLUTION_BYTES
from pytest_membudget.units import format_duration, format_size

_NOT_YET_S = 0.05
"""When to ask again for a task that its worker has not begun."""


class Watch:
    """Looks at running workers."""

    def __init__(self, floor: Floor, rules: Rules) -> None:
        self._floor = floor
        self._rules = rules

    def look(self, now_s: float) -> float | None:
        """Looks at every busy worker. Returns when the next time limit is reached, on `now_s`'s clock; `None` for never."""
        due = []
        for post in list(self._floor.crew.posts):
            if post.in_flight:
                self._charge(post)
                due.append(self._due_s(post, post.in_flight[0], now_s))
        return min((each for each in due if each is not None), default=None)

    def _due_s(self, post: Post, task: Task, now_s: float) -> float | None:
        started_s = post.worker.started_at(task.sequence)
        if started_s is None:
            self._look_at_delay(post, task, now_s)
        if task.timeout_s is None or task.timed_out:
            return None
        if started_s is None:
            return now_s + min(task.timeout_s, _NOT_YET_S)
        if now_s - started_s < task.timeout_s:
            return started_s + task.timeout_s
        self._end(post, task)
        return None

    def _look_at_delay(self, post: Post, task: Task, now_s: float) -> None:
        """Ends a worker that does not come to its call. What follows is decided when it is gone (see `aftermath`)."""
        limit_s = self._rules.start_timeout_s
        delay = None if limit_s is None or post.stuck_at is not None else post.worker.delay(task.sequence)
        if limit_s is None or delay is None or now_s - delay.since_s < limit_s:
            return
        post.stuck_at = delay.stage
        self._rules.note(
            LevelEvent(
                kind="timeout",
                level=post.level,
                cause=not_begun(task, delay.stage, limit_s),
                next_step="no call can run" if delay.stage == "initializer" else "that worker is ended",
                at_s=self._rules.clock(),
            )
        )
        if delay.stage == "initializer":  # as one that raises: there is no worker without it, on any level
            self._floor.end_with(broken_by(never_began(task, delay.stage, limit_s).error))
        else:
            post.worker.kill()

    def _end(self, post: Post, task: Task) -> None:
        task.timed_out = True
        ended = post.worker.kill()
        self._rules.note(
            LevelEvent(
                kind="timeout",
                level=post.level,
                cause=f"{task_name(task)} ran longer than {format_duration(task.timeout_s or 0)}",
                next_step="its worker is replaced" if ended else "its thread is left to itself",
                at_s=self._rules.clock(),
            )
        )
        if ended:
            return  # the worker's death is the reply
        # The thread goes on. Its memory stays charged until it returns, and another thread takes its place.
        task.attempts += 1
        task.sequence = -1
        self._floor.crew.drop(post)
        conclude(task, timed_out(task, ended=False))

    def _charge(self, post: Post) -> None:
        """Charges what the task really holds where that is more than was granted."""
        ticket = post.ticket
        if ticket is None:
            return
        held_bytes = post.worker.added_bytes() - self._floor.crew.own_bytes(post)
        if held_bytes <= ticket.charge_bytes:
            return
        if ticket.charge_bytes == ticket.bytes and held_bytes > ticket.bytes + RESOLUTION_BYTES:
            self._rules.note(
                LevelEvent(
                    kind="overrun",
                    level=post.level,
                    cause=f"{task_name(post.in_flight[0])} holds {format_size(held_bytes)}, "
                    f"{format_size(ticket.bytes)} were granted",
                    next_step="that is charged, and nothing starts until it fits",
                    at_s=self._rules.clock(),
                )
            )
        self._floor.line.admission.ledger.charge(ticket, held_bytes)
