"""Where tasks meet workers: who starts next, in which worker, and what each reply sets in motion.

Owned by one thread (see `dispatcher`), so nothing here is locked.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from pytest_membudget.errors import OversizeError
from pytest_membudget.records.run import LevelEvent
from pytest_membudget.runtime.executor.admission import Admission
from pytest_membudget.runtime.executor.causes import Again, given_up, task_name, timed_out
from pytest_membudget.runtime.executor.concurrency import Concurrency
from pytest_membudget.runtime.executor.crew import Crew, Post
from pytest_membudget.runtime.executor.launcher import (
    Call,
    CannotStartError,
    Died,
    InitializerFailed,
    RanOut,
    Reply,
)
from pytest_membudget.runtime.executor.learning import RESOLUTION_BYTES
from pytest_membudget.runtime.executor.replies import (
    LOST_TOO_OFTEN,
    Rules,
    broken_by,
    conclude,
    failed,
    is_loss,
    learn,
    verdict,
)
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.units import format_size

SHORT_S = 0.02
"""Tasks below this are queued one ahead in their worker, so that it need not wait for the next."""

TINY_S = 0.005
"""Tasks below this are queued three ahead."""

_DEPTH_OF_SHORT = 2
_DEPTH_OF_TINY = 4


class Replied(NamedTuple):
    """A worker's answer to one call."""

    post: Post
    task: Task
    sequence: int
    reply: Reply


class Floor:
    """The line, the ledger and the workers."""

    def __init__(
        self,
        admission: Admission,
        crew: Crew,
        concurrency: Concurrency,
        rules: Rules,
        *,
        max_in_flight: int | None,
        degraded_threads: int,
        report: Callable[[Replied], None],
    ) -> None:
        self.admission = admission
        self.crew = crew
        self.concurrency = concurrency
        self._rules = rules
        self._max_in_flight = max_in_flight
        self._degraded_threads = degraded_threads
        self._report = report
        self._pending: deque[Task] = deque()
        self._sequence = 0
        self._mean_s = 1.0
        self.broken: BaseException | None = None

    @property
    def has_waiting(self) -> bool:
        """Whether any task waits to start."""
        return bool(self._pending) or self.admission.waiting > 0

    @property
    def tasks_are_short(self) -> bool:
        """Whether tasks end faster than a worker gets its next one."""
        return self._mean_s <= SHORT_S

    def accept(self, task: Task) -> None:
        """Puts a task at the end of the line."""
        if self.broken is not None:
            self._settle_unstarted(task, self.broken)
        else:
            self._pending.append(task)

    def withdraw(self, task: Task) -> None:
        """Forgets a task whose future was cancelled."""
        if not task.begin():
            self.admission.withdraw(task)

    def cancel_waiting(self) -> None:
        """Cancels every task that has not started."""
        for task in [*self.admission.tasks(), *self._pending]:
            if not task.is_running and task.future.cancel():
                self.withdraw(task)

    def kill_running(self) -> None:
        """Ends all workers; what they ran is reported, not repeated."""
        for post in list(self.crew.posts):
            for task in post.in_flight:
                task.attempts = self._rules.retries + 1
            post.worker.kill()

    def fail_everything(self, error: BaseException) -> None:
        """Gives `error` to every task; nothing runs here any more."""
        self.broken = error
        waiting = [*self.admission.tasks(), *self._pending]
        running = [task for post in self.crew.posts for task in post.in_flight]
        self._pending.clear()
        for task in waiting:
            self.admission.withdraw(task)
            self._settle_unstarted(task, error)
        for post in self.crew.posts:
            post.in_flight.clear()
        for task in running:
            conclude(task, failed(error))

    def dispatch(self) -> None:
        """Starts everything that may start now."""
        while True:
            self._line_up()
            if self.crew.busy() >= self.concurrency.now or self._is_full():
                break
            task = self.admission.next(self.crew.aside_bytes(), self.own_bytes)
            if task is not None:
                self._begin(task)
            elif not self._make_room():
                break
        if self.tasks_are_short:
            self._queue_ahead()

    def own_bytes(self) -> int:
        """What the workers hold above what they held when they were ready."""
        return sum(post.worker.added_bytes() for post in self.crew.posts)

    def replied(self, post: Post, task: Task, sequence: int, reply: Reply) -> None:
        """A worker's answer: settles the task and frees its place."""
        if task.sequence != sequence or task not in post.in_flight:
            self._came_late(post)
            return
        post.in_flight.remove(task)
        learn(task, post.level, reply.figures)
        if isinstance(reply, Died):
            self.crew.died(post, reply.detail, was_ready=reply.was_ready)
            if not reply.attempted and not self._has_lost_too_often(task):
                self._leave(post)
                self._again(task)
                return
        else:
            self.crew.proved_itself()
            post.kept_bytes = reply.figures.kept_bytes
        task.attempts += not isinstance(reply, Died) or reply.attempted
        self._mean_s += (reply.figures.duration_s - self._mean_s) / 8
        self._leave(post)
        if isinstance(reply, InitializerFailed):
            conclude(task, failed(broken_by(reply.error)))
            self.fail_everything(broken_by(reply.error))
            return
        self._count(reply)
        what = verdict(task, reply, self._rules, in_own_memory=self.crew.launcher.own_memory)
        if isinstance(what, Again):
            task.charged_bytes, task.alone, task.in_thread = what.bytes, what.alone, False
            self._again(task)
        else:
            conclude(task, what)

    def look_after_running(self, now_s: float) -> float | None:
        """Ends what ran too long and charges what is really resident; when to look again, on `now_s`'s clock."""
        next_s = None
        for post in list(self.crew.posts):
            if not post.in_flight:
                continue
            self._charge(post)
            due_s = self._due_s(post, now_s)
            if due_s is not None:
                next_s = due_s if next_s is None else min(next_s, due_s)
        return next_s

    def _due_s(self, post: Post, now_s: float) -> float | None:
        task = post.in_flight[0]
        if task.timeout_s is None or task.timed_out:
            return None
        started_s = post.worker.started_at(task.sequence)
        if started_s is None:
            return now_s + min(task.timeout_s, 0.05)
        if now_s - started_s < task.timeout_s:
            return started_s + task.timeout_s
        self._time_out(post, task)
        return None

    def _time_out(self, post: Post, task: Task) -> None:
        task.timed_out = True
        ended = post.worker.kill()
        self._note("timeout", post, f"{task_name(task)} ran longer than it may", "its worker is replaced")
        if ended:
            return  # the worker's death is the reply
        # The thread goes on. Its memory stays charged until it returns, and another takes its place.
        task.attempts += 1
        task.sequence = -1
        self.crew.drop(post)
        conclude(task, timed_out(task, ended=False))

    def _came_late(self, post: Post) -> None:
        """A thread that was left to itself has returned."""
        post.in_flight.clear()
        self._leave(post)

    def _line_up(self) -> None:
        while self._pending and not self.admission.is_full:
            task = self._pending.popleft()
            if task.is_cancelled:
                continue
            try:
                self.admission.line_up(task)
            except OversizeError as error:
                self._settle_unstarted(task, error)

    def _settle_unstarted(self, task: Task, error: BaseException) -> None:
        if task.begin():
            conclude(task, failed(error, "oversize" if isinstance(error, OversizeError) else "error"))

    def _begin(self, task: Task) -> None:
        if not task.begin():
            self.admission.release(task.ticket)
            return
        try:
            post = self.crew.post_for(task)
        except CannotStartError as error:
            self.admission.release(task.ticket)
            conclude(task, failed(RuntimeError(str(error))))
            return
        if post is None:
            self.admission.release(task.ticket)
            self.concurrency.lower_to(self.crew.busy())
            self._again(task)
            return
        if task.ran_out and not post.launcher.own_memory:
            self.admission.release(task.ticket)
            conclude(task, given_up(task, RanOut(MemoryError()), in_own_memory=False))
            return
        self._limit_to(post)
        post.ticket = task.ticket
        self._hand(post, task)

    def _limit_to(self, post: Post) -> None:
        if post.level == "sequential":
            self.concurrency.lower_to(1)
        elif post.level == "thread" and self.crew.has_fallen:
            self.concurrency.lower_to(self._degraded_threads)

    def _hand(self, post: Post, task: Task) -> None:
        self._sequence += 1
        task.sequence = self._sequence
        task.level = post.level
        self.crew.take_on(post, task)
        call = Call(task.sequence, task.fn, task.args, task.kwargs, task.settle)
        post.worker.send(call, partial(self._put, post, task, task.sequence))
        if self.crew.nears_its_end(post):
            self.crew.spare()

    def _put(self, post: Post, task: Task, sequence: int, reply: Reply) -> None:
        self._report(Replied(post, task, sequence, reply))

    def _queue_ahead(self) -> None:
        """A few tasks ahead in each worker, in the order of the line, under the lease that the worker has."""
        depth = _DEPTH_OF_TINY if self._mean_s <= TINY_S else _DEPTH_OF_SHORT
        for post in self.crew.posts:
            # Two at a time: the pool's thread, woken once, takes both.
            if not 1 <= len(post.in_flight) <= depth // 2 or not self._may_queue_behind(post):
                continue
            while len(post.in_flight) < depth and not post.is_last and not self._is_full():
                self._line_up()
                task = self.admission.head_within(post.ticket)
                if task is None:
                    return
                if task.begin():
                    self._hand(post, task)

    @staticmethod
    def _may_queue_behind(post: Post) -> bool:
        return post.launcher.own_memory and post.ticket is not None and not post.ticket.exclusive

    def _leave(self, post: Post) -> None:
        """The lease goes back, or on to the next call of the same worker."""
        if not post.in_flight:
            self.admission.release(post.ticket)
            post.ticket = None
            if post.is_last and not post.is_gone:
                self.crew.retire([post])

    def _again(self, task: Task) -> None:
        task.ticket = None
        self._pending.appendleft(task)

    def _has_lost_too_often(self, task: Task) -> bool:
        task.lost += 1
        return task.lost > LOST_TOO_OFTEN

    def _count(self, reply: Reply) -> None:
        if is_loss(reply):
            self.concurrency.lost()
            self.crew.spare()
        elif self.concurrency.clean():
            self._note(
                "recovery",
                None,
                "a run of clean tasks",
                f"{self.concurrency.most} tasks may run at once again",
            )

    def _charge(self, post: Post) -> None:
        """Charges what the task really holds where that is more than was granted."""
        ticket = post.ticket
        if ticket is None:
            return
        held_bytes = post.worker.added_bytes() - post.kept_bytes
        if held_bytes <= ticket.charge_bytes:
            return
        if ticket.charge_bytes == ticket.bytes and held_bytes > ticket.bytes + RESOLUTION_BYTES:
            self._note(
                "overrun",
                post,
                f"{task_name(post.in_flight[0])} holds {format_size(held_bytes)}, "
                f"{format_size(ticket.bytes)} were granted",
                "that is charged, and nothing starts until it fits",
            )
        self.admission.ledger.charge(ticket, held_bytes)

    def _is_full(self) -> bool:
        if self._max_in_flight is None:
            return False
        return sum(len(post.in_flight) for post in self.crew.posts) >= self._max_in_flight

    def _make_room(self) -> bool:
        """Ends idle workers that keep memory which the line waits for; whether there were any."""
        if not self.admission.waiting:
            return False
        keepers = [post for post in self.crew.idle() if self.crew.excess_bytes(post)]
        self.crew.retire(keepers)
        return bool(keepers)

    def _note(self, kind: str, post: Post | None, cause: str, next_step: str) -> None:
        level = self.crew.level if post is None else post.level
        self._rules.note(
            LevelEvent(kind=kind, level=level, cause=cause, next_step=next_step, at_s=self._rules.clock())  # type: ignore[arg-type]
        )


def now() -> float:
    """The clock that workers use as well."""
    return time.monotonic()
