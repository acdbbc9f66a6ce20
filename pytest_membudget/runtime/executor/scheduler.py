"""What becomes of a task is decided here, and nowhere else. Events in, effects out.

                    ┌────── retry, or its worker was lost before it began ──────┐
                    ▼                                                           │
    submitted ─► queued ─► running ─► done (returned, raised, given up, timed out)
                    │
                    └─► done (cancelled, too large, no worker can be started)

No thread, lock, clock, process or /proc is known here: a driver (`driver`) brings the events, then asks for `decide`, and carries
out its effects in order. Four parts decide, and each field has one writer:

- `Scheduler` moves tasks from state to state, and writes what a `Task` says of that;
- `TaskQueue` keeps those that wait, and writes what a `Task` says of its place and its charge;
- `TaskWatch` compares what a task takes with what it may, and writes what a `Task` says of its latest attempt;
- `WorkerPool` starts and stops workers, and writes their `Slot`.

Which task starts next and where is asked of the `placement` of the present level.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from typing import Any

from pytest_membudget.runtime.executor import attempts
from pytest_membudget.runtime.executor.attempts import Answer, Retry
from pytest_membudget.runtime.executor.placement import Assignment, Demand, arrival
from pytest_membudget.runtime.executor.policy import ExecutorPolicy
from pytest_membudget.runtime.executor.state import (
    Backend,
    Effect,
    Failure,
    Finish,
    Send,
    Slot,
    State,
    Submission,
    Task,
)
from pytest_membudget.runtime.executor.task_queue import TaskQueue
from pytest_membudget.runtime.executor.task_watch import TaskWatch, deadline_of
from pytest_membudget.runtime.executor.worker_pool import STARTS_THAT_MAY_FAIL, WorkerPool
from pytest_membudget.runtime.workers.protocol import (
    Attempt,
    Died,
    InitializerFailed,
    RanOut,
    Reading,
    Reply,
    Stage,
)

TRANSITIONS: frozenset[tuple[State, State]] = frozenset(
    {
        ("new", "queued"),
        ("new", "done"),  # the executor is broken already
        ("queued", "running"),
        ("queued", "done"),
        ("running", "queued"),
        ("running", "done"),
    }
)

LOST_TOO_OFTEN = 10
"""A task whose worker ended just before it began has not been attempted. After so many times it counts as the cause."""


class Scheduler:
    """Decides. Not thread-safe: one driver owns it.

    Args:
        backends: the levels, best first; it goes down when no worker can be had, never up.
        policy: the executor's rules.
        max_workers: tasks that run at once.
        max_in_flight: calls that may be with workers at a time.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        policy: ExecutorPolicy,
        *,
        max_workers: int,
        max_in_flight: int = sys.maxsize,
    ) -> None:
        self._effects: list[Effect] = []
        self.pool = WorkerPool(
            backends, policy, self._effects, max_workers=max_workers, max_in_flight=max_in_flight
        )
        self.levels = self.pool.levels
        self.queue = TaskQueue(self.levels, policy, self._fail)
        self.watch = TaskWatch(policy, self.pool, self._effects)
        self.broken: BaseException | None = None
        #: when a running task reaches its next time limit, on the driver's clock; None for never
        self.deadline_s: float | None = None
        self._policy = policy
        self._open: set[Task] = set()
        self._sent = 0

    # What a driver reads ---------------------------------------------------------------------------------------------

    @property
    def open_tasks(self) -> int:
        """How many tasks wait or run."""
        return len(self._open)

    @property
    def has_waiting(self) -> bool:
        """Whether any task waits to start."""
        return len(self._open) > sum(len(slot.running) for slot in (*self.pool.slots, *self.pool.gone))

    @property
    def can_accept(self) -> bool:
        """Whether one more task might start now, so that a driver should be woken for it."""
        if self.levels.now.is_cluster:
            return not self.queue.is_backed_up
        if self.pool.room_in_flight <= 0:
            return False
        refill_at = self.pool.throughput.refill_at
        return not self.pool.is_saturated or any(len(slot.running) <= refill_at for slot in self.pool.slots)

    def demand(self) -> Demand:
        """What tasks and workers ask of a budget that other programs share."""
        return self.queue.placement.demand(self.pool)

    # Events: tasks ---------------------------------------------------------------------------------------------------

    def submitted(self, task: Task) -> None:
        """A task came."""
        self._open.add(task)
        if self.broken is not None:
            self._fail(task, attempts.not_run(self.broken))
            return
        self._move(task, "queued")
        self.queue.append(task)

    @staticmethod
    def came_too_late(task: Task) -> Submission | None:
        """A task came when its driver had ended, in any thread: its call is handed back, and is no task's any more."""
        submission, task.submission = task.submission, None
        return submission

    def cancelled(self, task: Task) -> None:
        """The caller cancelled its future, so it has not begun. Again, or for a task that is done: nothing happens."""
        match task.state:
            case "queued":
                self.queue.remove(task)
            case "running":  # it was decided on, and its driver found it cancelled before it was sent
                self.pool.take_back(task)
            case _:
                return
        task.cause = "cancelled"
        self._close(task)

    def replied(self, slot: Slot, sequence: int, reply: Reply) -> None:
        """A worker's answer to one call."""
        task = self.pool.take_call(slot, sequence)
        if task is None:
            return
        task.level, task.host = slot.backend.level, slot.host
        if isinstance(reply, Died):
            self._lost(slot, task, reply)
        else:
            self._answered(slot, task, reply)

    def time_passed(self, now_s: float, readings: Mapping[Slot, Reading]) -> None:
        """Charges busy workers what they hold, and ends what is beyond its time."""
        self.pool.pass_time(now_s)
        due_s = [
            self._check(slot, reading)
            for slot, reading in readings.items()
            if slot.running and not slot.is_gone
        ]
        self.deadline_s = min((each for each in due_s if each is not None), default=None)

    def _check(self, slot: Slot, reading: Reading) -> float | None:
        """Ends the task that `slot` runs where it takes more than it may; when to ask again at the latest, None for never."""
        task = slot.running[0]
        if self.watch.check_memory(slot, reading):
            self.queue.recharge()
        if (error := self.watch.check_start(slot, reading)) is not None:
            self.shut_down(error)
            return None
        deadline_s = deadline_of(task, self.pool.now_s)
        if deadline_s is None or self.pool.now_s < deadline_s:
            return deadline_s
        self.watch.time_out(slot, task)
        if not slot.backend.own_memory:  # the thread goes on
            task.attempts += 1
            self.pool.abandon(slot, task)
            self._fail(task, attempts.timed_out(task, ended=False))
        return None

    def shut_down(self, error: BaseException) -> None:
        """Every task fails with `error`, those to come as well, and every worker is ended."""
        self.broken = error
        self.queue.clear()
        self.pool.shut_down()
        for task in sorted(self._open, key=arrival):
            self._fail(task, attempts.not_run(error))

    # Events: workers and what they may hold --------------------------------------------------------------------------

    def start_failed(self, slot: Slot, detail: str) -> None:
        """The driver could not start `slot`. What runs already at that level goes on; else the next level does."""
        backend = slot.backend
        tasks = self.pool.withdraw(slot)
        if not tasks:
            return  # it was started ahead; the next start that a task needs will show it
        there = [each for each in self.pool.slots if each.backend is backend]
        if any(each.is_started for each in self.pool.idle(backend)):
            for task in tasks:
                task.fresh_worker = False
        elif busy := sum(1 for each in there if each.is_started and each.running):
            self.pool.concurrency.lower_to(busy)
        elif no_level := self._fall_back(backend, detail):
            for task in tasks:
                self._fail(task, Failure(RuntimeError(no_level)))
            return
        else:  # those that were to be started with it would wait for the same
            tasks += [task for each in there for task in self.pool.withdraw(each)]
        for task in tasks:
            self._requeue(task)

    def budget_changed(self, budget_bytes: int, largest_bytes: int, ceiling_bytes: int | None = None) -> None:
        """What tasks and workers of this machine may hold together now; the most that it could be; and the machine's limit."""
        for backend in self.levels.all:
            if backend.memory is not None:
                backend.memory.set_budget(budget_bytes, largest_bytes, ceiling_bytes or largest_bytes)

    def cluster_lost(self, backend: Backend, detail: str) -> None:
        """A cluster cannot be used, or not any more: the next level goes on, else every task fails."""
        if no_level := self._fall_back(backend, detail):
            self.shut_down(BrokenExecutor(no_level))

    # Decisions -------------------------------------------------------------------------------------------------------

    def decide(self, now_s: float | None = None) -> list[Effect]:
        """Starts everything that may start now, and hands out all effects since the last time."""
        if now_s is not None:
            self.pool.pass_time(now_s)
        if self.broken is None:
            for task, error in self.queue.placement.stranded(self.pool):
                self._fail(task, attempts.not_run(error))
            # Where no worker is free, short tasks need not wait in the ledger: `_prefetch` takes them from here.
            if self.levels.now.is_cluster or not (self.pool.is_saturated and self.pool.throughput.is_fast):
                self.queue.fill_placement()
            for assignment in self.queue.placement.assignments(self.pool):
                self._assign(assignment)
                self.queue.fill_placement()
            # With profiles a call that follows would hold memory when the profile says that it has ended.
            if not self._policy.profiles:
                self._prefetch()
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    # From queued to running ------------------------------------------------------------------------------------------

    def _assign(self, assignment: Assignment) -> None:
        for idle in assignment.stop:
            self.pool.stop(idle)
        if not assignment.tasks:
            return
        slot = assignment.slot or self.pool.worker_for(assignment.tasks[0])
        if slot is None:  # it ran out of memory in a process of its own, and there are no processes any more
            self.pool.release(self.levels.now, assignment.lease)
            for task in assignment.tasks:
                self._fail(task, attempts.given_up(task, RanOut(MemoryError()), own_memory=False))
        elif assignment.renew:
            self.pool.forget(slot, renew=True)
            for task in assignment.tasks:
                self.queue.put_back(task)
        else:
            self.pool.begin(slot, assignment.lease)
            self._send(slot, assignment.tasks)

    def _prefetch(self) -> None:
        """Sends each busy worker as many calls as it may have, so that one with short calls never idles between two."""
        for slot in list(self.pool.slots):
            if 1 <= len(slot.running) <= self.pool.throughput.refill_at and slot.backend.is_local_pool:
                self._send(slot, self._calls_to_follow(slot))

    def _calls_to_follow(self, slot: Slot) -> Iterator[Task]:
        """Calls that run one after the other under the lease that the worker holds, which is enough for each of them.

        Each is sent before the next is drawn: it counts towards what the worker may have.
        """
        lease = slot.lease
        if lease is None or lease.exclusive:
            return
        if slot.left_something:
            return  # its calls may each leave as much, which is counted when they end
        depth = self.pool.throughput.depth
        while not slot.is_closing and len(slot.running) < depth and self.pool.room_in_flight > 0:
            task = self.queue.take_within(lease)
            if task is None:
                return
            yield task

    def _send(self, slot: Slot, tasks: Iterable[Task]) -> None:
        calls = []
        for task in tasks:
            self._move(task, "running")
            self._sent += 1
            task.sequence = self._sent
            task.level = slot.backend.level
            self.pool.add_call(slot, task)
            self.watch.begin(slot, task)
            calls.append((task, task.sequence))
        if not calls:
            return
        self._effects.append(Send(slot, tuple(calls)))
        self.pool.start_successor(slot)

    # From running to done, or back -----------------------------------------------------------------------------------

    def _answered(self, slot: Slot, task: Task, reply: Reply) -> None:
        """The worker lives."""
        figures = reply.figures
        if self.watch.answered(task, reply, self.pool.answered(slot, figures)):
            self.queue.recharge()
        if figures.reached_limit and task.kernel_limit_bytes is not None and not slot.is_gone:
            self.watch.end_at_kernel_limit(slot, task, figures.peak_bytes or 0)
            self.pool.forget(slot)
            if task.overran_bytes:  # its answer came of the end of something that it had started
                reply = Died("what it had started was ended", attempted=True, figures=figures)
        self.pool.release_if_idle(slot)
        if isinstance(reply, InitializerFailed):
            self.shut_down(attempts.broken_by(reply.error))  # this task among all others
        else:
            self._attempted(task, reply)

    def _lost(self, slot: Slot, task: Task, reply: Died) -> None:
        """The worker is gone. A task that it had not begun has not been attempted, and keeps its place."""
        if slot.stuck_at is not None and not slot.is_gone:
            self._never_began(slot, task, slot.stuck_at)
            return
        self.watch.lost(slot, task, reply)
        if reply.attempted and slot.lease is not None and not task.overran_bytes:
            # It needs more than it was seen to hold. Where it was ended for that, `overran_bytes` has what it held.
            self.queue.raise_charge(task, slot.lease.charge_bytes)
        no_level = ""
        if slot.is_gone:
            self.pool.release_if_idle(slot)
        else:
            self.pool.forget(slot)
            if reply.failed_to_start:
                no_level = self._start_ended(slot.backend, reply.detail, is_final=reply.is_final)
            elif reply.in_initializer:
                self._initializer_ended(slot.backend, reply.detail)
            if reply.attempted and not reply.crashed and not task.is_being_ended:
                self.pool.pace_starts()
        if no_level:
            self._fail(task, Failure(RuntimeError(no_level)))
            return
        if self.broken is not None:
            return  # every task has got its error
        task.lost += not reply.attempted
        if reply.attempted or task.lost > LOST_TOO_OFTEN:
            self._attempted(task, reply)
        else:
            self._requeue(task)

    def _never_began(self, slot: Slot, task: Task, stage: Stage) -> None:
        """The worker was ended since it did not come to the task, which another one may get."""
        limit_s = self._policy.start_timeout_s or 0.0
        failure = attempts.never_began(task, stage, limit_s)
        detail = attempts.not_begun(task, stage, limit_s)
        self.pool.forget(slot)
        # Where none has ever come to a call at this level the next would not either; else it is one failed start.
        if slot.backend is not self.levels.now or slot.backend.is_proven:
            no_level = self._start_ended(slot.backend, detail)
        else:
            no_level = self._fall_back(slot.backend, detail)
        if no_level:
            self.shut_down(failure.error)  # this task among all others
            return
        task.stuck += 1
        if task.stuck < STARTS_THAT_MAY_FAIL:
            self._requeue(task)
        else:
            self._fail(task, failure)

    def _attempted(self, task: Task, reply: Attempt) -> None:
        """An attempt ended: its task is done, or runs again."""
        task.attempts += 1
        own_memory = self.levels.now.own_memory
        is_lost = isinstance(reply, (Died, RanOut))
        task.ran_out = task.ran_out or (isinstance(reply, RanOut) and own_memory)
        if not task.over_limit_bytes:  # that it was ended says nothing of the others
            self.pool.adapt_concurrency(ended_well=not is_lost)
        what = attempts.after_attempt(
            task,
            reply,
            retries=self._policy.retries,
            largest_bytes=self.queue.placement.largest_bytes,
            own_memory=own_memory,
        )
        if is_lost and (event := attempts.lost_event(task, reply, what)) is not None:
            self._effects.append(event)
        match what:
            case Answer(value=value):
                self._finish(task, value=value)
            case Failure():
                self._fail(task, what)
            case Retry():
                task.prefers_thread = False
                self._requeue(task, what)

    def _requeue(self, task: Task, retry: Retry | None = None) -> None:
        """Back to its place."""
        self._move(task, "queued")
        self.queue.put_back(task, retry)

    def _fail(self, task: Task, failure: Failure) -> None:
        task.cause = failure.cause
        self._finish(task, error=failure.error)

    def _finish(self, task: Task, value: Any = None, error: BaseException | None = None) -> None:
        if task.submission is not None:
            self._effects.append(Finish(task.submission, value, error))
        self._close(task)

    def _close(self, task: Task) -> None:
        """Nothing here refers to the call or its future from now on, so that results are freed once they were read."""
        self._move(task, "done")
        task.submission = None
        self._open.discard(task)

    def _move(self, task: Task, to: State) -> None:
        if (task.state, to) not in TRANSITIONS:
            raise AssertionError(f"a task cannot go from {task.state} to {to}")
        task.state = to

    # Levels ----------------------------------------------------------------------------------------------------------

    def _initializer_ended(self, backend: Backend, detail: str) -> None:
        """Several in a row: what it loads does not fit, or it exits. The caller's program would be the next to run it, so all ends."""
        if self.levels.cannot_start(backend):
            self.shut_down(attempts.broken_by_kills(STARTS_THAT_MAY_FAIL, detail))

    def _start_ended(self, backend: Backend, detail: str, *, is_final: bool = False) -> str:
        """A worker ended before it was ready. Several in a row mean that the level cannot start: then as `_fall_back`."""
        if backend is not self.levels.now:
            return ""  # that level has been left already
        if not is_final:
            if not self.levels.cannot_start(backend):
                return ""
            detail = f"{STARTS_THAT_MAY_FAIL} ended before they were ready, in a row ({detail})"
        return self._fall_back(backend, detail)

    def _fall_back(self, backend: Backend, detail: str) -> str:
        """Goes down below `backend`, unless that was left before; where there is no lower level the text of the error."""
        before = self.queue.placement
        if not self.levels.fall_below(backend):
            return attempts.no_worker(backend.level, detail)
        if self.levels.now.most_after_fallback is not None:
            self.pool.concurrency.lower_to(self.levels.now.most_after_fallback)
        self.queue.move_from(before)
        self._effects.append(attempts.fallback_event(backend.level, detail, self.levels.now.level))
        return ""

    def validate(self) -> None:
        """The invariants, for tests: to be asked after `decide`."""
        self.pool.validate()
        running = [task for slot in (*self.pool.slots, *self.pool.gone) for task in slot.running]
        waiting = self.queue.waiting()
        assert len(set(waiting)) == len(waiting), "a task waits twice"
        assert all(task.state == "running" for task in running)
        assert all(task.state == "queued" for task in waiting)
        assert {*running, *waiting} == self._open, "a task is lost"
        level, memory = self.levels.now, self.levels.now.memory
        if self.broken is None and level.own_memory and memory is not None:
            slots = [slot for slot in self.pool.slots if slot.backend.is_local_pool]
            assert all(slot.lease is not None for slot in slots if slot.running)
            is_held_up = memory.waits_for_others or self.pool.leaving
            assert not waiting or running or self.pool.gone or is_held_up, "tasks wait while nothing runs"
