"""What tasks take, against what they may: by readings of their workers while they run, and by the figures of their replies.

A task may hold its limit, or else what was granted; its function may run for so long, and its worker may take so long to come to
it. Whatever exceeds that is ended here. What its charge learns of it is what later tasks are charged.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Literal, NamedTuple

from pytest_membudget.runtime.admission.ledger import Ticket
from pytest_membudget.runtime.executor import attempts
from pytest_membudget.runtime.executor.flow_control import Reestimation
from pytest_membudget.runtime.executor.policy import ExecutorPolicy
from pytest_membudget.runtime.executor.state import Effect, Slot, Task, task_name
from pytest_membudget.runtime.executor.worker_pool import WorkerPool
from pytest_membudget.runtime.prediction.profiles import FollowedCall
from pytest_membudget.runtime.workers.protocol import Died, Figures, Reading, Reply, Returned
from pytest_membudget.runtime.workers.task_memory import RESOLUTION_BYTES

_logger = logging.getLogger("pytest_membudget.runtime")

NEWS_FACTOR = 1.1
"""What a call that takes more than its charge holds is learned when it was seen, and again each time it has grown so much."""

NOT_BEGUN_POLL_S = 0.05
"""When to ask again for a task with a time limit that its worker has not begun."""


class TaskWatch:
    """The only writer of what a `Task` says of its latest attempt: its limits, what was seen of it, and what it took.

    Args:
        policy: the executor's rules.
        pool: its workers.
        effects: gets what a driver is to do, in order with what the scheduler decides.
    """

    def __init__(self, policy: ExecutorPolicy, pool: WorkerPool, effects: list[Effect]) -> None:
        self._policy = policy
        self._ends_overruns = policy.overrun == "end"
        self._pool = pool
        self._effects = effects
        self._reestimation = Reestimation()
        self._has_said_no_limits = False

    @property
    def has_limits(self) -> bool:
        """Whether a task runs whose memory has a limit or a profile, so that a driver should read it often."""
        if self._policy.profiles:
            return self._pool.busy > 0
        return any(
            slot.running and (self._ends_overruns or slot.running[0].limit_bytes is not None)
            for slot in self._pool.slots
        )

    # Before it runs --------------------------------------------------------------------------------------------------

    def begin(self, slot: Slot, task: Task) -> None:
        """`slot` is sent the call: its limits from now on. What was seen of an earlier attempt says nothing of this one."""
        task.sent_s, task.began_s, task.grew_s = self._pool.now_s, None, float("-inf")
        task.held_bytes = task.seen_above_charge_bytes = task.learned_running_bytes = 0
        task.timed_out, task.over_limit_bytes, task.overran_bytes = False, 0, 0
        if task.profile is not None:
            task.followed = FollowedCall(task.profile, task.charged_bytes)
        task.limit_bytes = self._limit_bytes(slot, task)
        task.kernel_limit_bytes = self._kernel_limit_bytes(slot, task)

    def _limit_bytes(self, slot: Slot, task: Task) -> int | None:
        """The limit of this attempt, a size or a factor of its charge; None, said once, where no task can be ended."""
        if task.limit is None:
            return None
        size_bytes = int(task.limit * task.charged_bytes) if isinstance(task.limit, float) else task.limit
        if slot.backend.own_memory:
            return size_bytes
        if not self._has_said_no_limits:
            self._has_said_no_limits = True
            self._effects.append(attempts.unkept_limit_event(task, size_bytes))
        return None

    def _kernel_limit_bytes(self, slot: Slot, task: Task) -> int | None:
        """Where the kernel may end it, as the next reading would. Counts from what the worker holds when it is sent the call."""
        memory = slot.backend.memory
        if memory is None or slot.lease is None or not slot.backend.own_memory:
            return None
        if task.limit_bytes is None and not self._ends_overruns:
            return None
        most_bytes = _allowed_bytes(task, slot.lease) if task.limit_bytes is None else task.limit_bytes
        return most_bytes + memory.retained.to_come_bytes(slot)

    # While it runs ---------------------------------------------------------------------------------------------------

    def check_memory(self, slot: Slot, reading: Reading) -> bool:
        """Charges what the first task of `slot` holds beyond what was granted, and ends it above its limit.

        True where its charge has learned something.
        """
        lease, memory, task = slot.lease, slot.backend.memory, slot.running[0]
        if lease is None or memory is None or task.is_being_ended:
            return False
        taken_bytes = memory.charge(slot, reading.held_bytes)
        if taken_bytes > task.held_bytes + RESOLUTION_BYTES:
            task.held_bytes, task.grew_s = taken_bytes, self._pool.now_s
        if task.followed is not None and task.began_s is not None:
            task.followed.read(self._pool.now_s - task.began_s, taken_bytes)
        if reading.reached_limit:
            self.end_at_kernel_limit(slot, task, taken_bytes)
            return False
        found = excess(task, lease, taken_bytes)
        if found is None:
            return False
        has_learned = found.bound == "charge" and self._learn_of_overrun(task, taken_bytes)
        if found.bound == "limit" or (self._ends_overruns and slot.backend.own_memory):
            self._end_for(found, slot, task)
        return has_learned

    def _learn_of_overrun(self, task: Task, taken_bytes: int) -> bool:
        task.seen_above_charge_bytes = max(task.seen_above_charge_bytes, taken_bytes)
        if taken_bytes <= task.learned_running_bytes * NEWS_FACTOR:
            return False
        task.learned_running_bytes = taken_bytes
        with contextlib.suppress(Exception):  # the caller's own estimator; it learns at the end
            task.charge.observe_running(taken_bytes)
        return True

    def end_at_kernel_limit(self, slot: Slot, task: Task, taken_bytes: int) -> None:
        """The kernel has ended something of the task."""
        if (found := excess_at_kernel_limit(task, taken_bytes)) is not None:
            self._end_for(found, slot, task)

    def _end_for(self, found: Excess, slot: Slot, task: Task) -> None:
        self._record_seen(task, found.bytes)
        if found.bound == "limit":
            task.over_limit_bytes = found.bytes
            self._effects.append(attempts.over_limit_event(task, found.bytes))
        else:
            task.overran_bytes = found.bytes
        self._pool.kill(slot)

    def check_start(self, slot: Slot, reading: Reading) -> BaseException | None:
        """Ends a worker that takes too long to come to its first task; the error of every task where none ever will."""
        task, delay, limit_s = slot.running[0], reading.delay, self._policy.start_timeout_s
        task.began_s = reading.started_s
        if task.began_s is not None or delay is None or limit_s is None or slot.stuck_at is not None:
            return None
        if self._pool.now_s - delay.since_s < limit_s:
            return None
        self._pool.stuck(slot, delay.stage)
        self._effects.append(attempts.start_timeout_event(task, slot.backend.level, delay.stage, limit_s))
        if delay.stage == "initializer":  # as one that raises: there is no worker without it, on any level
            return attempts.broken_by(attempts.never_began(task, delay.stage, limit_s).error)
        self._pool.kill(slot)
        return None

    def time_out(self, slot: Slot, task: Task) -> None:
        """Ends a task that is out of time, where it can be ended."""
        task.timed_out = True
        self._effects.append(attempts.timeout_event(task, can_be_ended=slot.backend.own_memory))
        self._pool.kill(slot)

    # After it --------------------------------------------------------------------------------------------------------

    def answered(self, task: Task, reply: Reply, left_bytes: int) -> bool:
        """Records what an attempt took whose worker lives, `left_bytes` of it for good.

        True where tasks that wait should be charged again by what was learned.
        """
        self._record_overrun(task, reply.figures.peak_bytes)
        taken_bytes = self._learn(task, reply.figures, left_bytes)
        if taken_bytes is None:
            return False
        if task.followed is not None and isinstance(reply, Returned):
            task.followed.ended(reply.figures.duration_s, taken_bytes)
        return self._reestimation.is_due(exceeded=taken_bytes > task.charged_bytes)

    def lost(self, slot: Slot, task: Task, reply: Died) -> None:
        """Records what is known of an attempt whose worker is gone."""
        self._learn(task, reply.figures, 0)
        if not reply.attempted:
            return
        if reply.figures.reached_limit and not task.is_being_ended:
            self.end_at_kernel_limit(slot, task, 0)
        self._record_seen(task, task.held_bytes)
        if not task.over_limit_bytes:
            self._record_overrun(task, None)

    def _record_overrun(self, task: Task, peak_bytes: int | None) -> None:
        """Says what an overrun became, when the task has ended."""
        if task.seen_above_charge_bytes and not task.overran_bytes:
            self._effects.append(attempts.overrun_event(task, peak_bytes))

    def _record_seen(self, task: Task, seen_bytes: int) -> None:
        """What an attempt was seen to hold that does not come to its end is proven; it may have held more before that."""
        if seen_bytes > (task.peak_bytes or 0):
            task.peak_bytes, task.peak_upper_bytes = seen_bytes, None

    def _learn(self, task: Task, figures: Figures, left_bytes: int) -> int | None:
        """Records what an attempt took, and teaches the estimate; the bytes that this learned, where they are known.

        What it has left in its worker (modules that it imported, say) is the worker's from now on, and no other task's.
        """
        task.duration_s = figures.duration_s
        task.result_bytes = figures.result_bytes
        task.coordinator_peak_bytes = figures.coordinator_peak_bytes
        if figures.peak_bytes is None:
            return None
        upper_bytes = figures.peak_upper_bytes
        task.peak_bytes = figures.peak_bytes
        task.peak_upper_bytes = figures.peak_bytes if upper_bytes is None else upper_bytes
        taken_bytes = max(0, figures.peak_bytes - left_bytes)
        if upper_bytes is not None:
            upper_bytes = max(taken_bytes, upper_bytes - left_bytes)
        try:
            task.charge.observe(taken_bytes, figures.duration_s, upper_bytes)
        except Exception:  # the caller's own estimator; the result is good all the same
            _logger.exception("the estimator cannot learn from %s", task_name(task))
        return taken_bytes


class Excess(NamedTuple):
    """A task has held so many bytes, which is more than its limit, or than its charge, allows."""

    bound: Literal["limit", "charge"]
    bytes: int


def excess(task: Task, lease: Ticket, taken_bytes: int) -> Excess | None:
    """Whether `taken_bytes`, which the task holds now, are more than it may hold."""
    if task.limit_bytes is not None and taken_bytes > task.limit_bytes:
        return Excess("limit", taken_bytes)
    return Excess("charge", taken_bytes) if taken_bytes > _allowed_bytes(task, lease) else None


def excess_at_kernel_limit(task: Task, taken_bytes: int) -> Excess | None:
    """The kernel has ended something of the task at a limit; what it held there may be gone when it is read."""
    if task.limit_bytes is not None:
        return Excess("limit", max(taken_bytes, task.limit_bytes + 1))
    if task.kernel_limit_bytes is not None:
        return Excess("charge", max(taken_bytes, task.kernel_limit_bytes + 1))
    return None


def _allowed_bytes(task: Task, lease: Ticket) -> int:
    """What is granted, or what the task is charged where that is more."""
    return max(lease.bytes, task.charged_bytes) + RESOLUTION_BYTES


def deadline_of(task: Task, now_s: float) -> float | None:
    """When a task that runs is out of time, or is to be asked for again where it has not begun; None for never."""
    if task.timeout_s is None or task.timed_out:
        return None
    if task.began_s is None:
        return now_s + min(task.timeout_s, NOT_BEGUN_POLL_S)
    return task.began_s + task.timeout_s
