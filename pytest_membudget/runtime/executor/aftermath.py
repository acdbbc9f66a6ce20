"""What a worker's reply sets in motion: its place is free, its task is settled or goes back to the line."""

from __future__ import annotations

from pytest_membudget.runtime.executor.causes import Again, Failed, never_began, not_begun
from pytest_membudget.runtime.executor.floor import Floor
from pytest_membudget.runtime.executor.levels import STARTS_THAT_MAY_FAIL
from pytest_membudget.runtime.executor.replies import (
    LOST_TOO_OFTEN,
    Rules,
    broken_by,
    conclude,
    is_loss,
    learn,
    verdict,
)
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.workers.protocol import (
    CannotStartError,
    Died,
    Figures,
    InitializerFailed,
    Reply,
    Stage,
)
from pytest_membudget.runtime.workers.slot import Post


class Aftermath:
    """Takes in replies."""

    def __init__(self, floor: Floor, rules: Rules) -> None:
        self._floor = floor
        self._rules = rules

    def replied(self, post: Post, task: Task, sequence: int, reply: Reply) -> None:
        """A worker's answer to one call."""
        if task.sequence != sequence or task not in post.in_flight:
            # A thread that was left to itself has returned, or everything was ended meanwhile.
            post.in_flight.clear()
            self._floor.leave(post)
            return
        post.in_flight.remove(task)
        try:
            self._take_in(post, task, reply)
        except BaseException:  # a defect of ours: this task must be found by who tells everybody
            self._floor.line.again(task)
            raise

    def _take_in(self, post: Post, task: Task, reply: Reply) -> None:
        task.host = post.host
        if isinstance(reply, Died):
            learn(task, post.level, reply.figures)
            self._lost(post, task, reply)
            return
        self._learn(post, task, reply.figures)
        self._floor.crew.levels.proved_itself(post.launcher)
        if reply.figures.heap is not None and post.worker.pid is not None:
            self._floor.heap_log.note(post.worker.pid, reply.figures.heap)
        self._floor.handover.pace.note(reply.figures.duration_s)
        post.note_duration(reply.figures.duration_s)
        self._floor.leave(post)
        if isinstance(reply, InitializerFailed):
            broken = broken_by(reply.error)
            conclude(task, Failed(broken))
            self._floor.end_with(broken)
        else:
            self._settle(task, reply)

    def _learn(self, post: Post, task: Task, figures: Figures) -> None:
        left_bytes = max(0, figures.kept_bytes - post.kept_bytes)
        self._floor.crew.warmth.note(post.kept, figures.kept_bytes)
        taken_bytes = learn(task, post.level, figures, left_bytes)
        if taken_bytes is not None:
            self._floor.line.admission.note_learned(task, taken_bytes)

    def _lost(self, post: Post, task: Task, reply: Died) -> None:
        """The worker is gone. A task that it had not begun has not been attempted, and keeps its place."""
        if post.stuck_at is not None and not post.is_gone:
            self._never_began(post, task, post.stuck_at)
            return
        try:
            self._floor.crew.died(post, reply.detail, failed_to_start=reply.failed_to_start)
        except CannotStartError as error:
            self._floor.leave(post)
            conclude(task, Failed(RuntimeError(str(error))))
            return
        if reply.attempted and post.ticket is not None:  # it needs more than it was seen to hold
            task.charged_bytes = max(task.charged_bytes or 0, post.ticket.charge_bytes)
        self._floor.leave(post)
        task.lost += not reply.attempted
        if reply.attempted or task.lost > LOST_TOO_OFTEN:
            self._settle(task, reply)
        else:
            self._floor.line.again(task)

    def _never_began(self, post: Post, task: Task, stage: Stage) -> None:
        """The worker was ended since it did not come to the task, which another one may get."""
        limit_s = self._rules.start_timeout_s or 0.0
        what = never_began(task, stage, limit_s)
        try:
            self._floor.crew.stuck(post, not_begun(task, stage, limit_s))
        except CannotStartError:
            conclude(task, what)
            self._floor.end_with(what.error)
        self._floor.leave(post)
        if self._floor.line.broken is not None:
            return
        task.stuck += 1
        if task.stuck < STARTS_THAT_MAY_FAIL:
            self._floor.line.again(task)
        else:
            conclude(task, what)

    def _settle(self, task: Task, reply: Reply) -> None:
        task.attempts += 1
        if is_loss(reply):
            if not self._floor.crew.in_cluster:  # its workers share no budget
                self._floor.concurrency.lost()
            self._floor.crew.spare()
        elif self._floor.concurrency.clean():
            self._rules.note_recovery(self._floor.crew.level, self._floor.concurrency.most)
        what = verdict(task, reply, self._rules, in_own_memory=self._floor.crew.launcher.own_memory)
        if isinstance(what, Again):
            task.charged_bytes, task.alone, task.in_thread = what.bytes, what.alone, False
            self._floor.line.again(task)
        else:
            conclude(task, what)
