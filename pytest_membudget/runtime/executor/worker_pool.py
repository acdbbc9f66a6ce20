"""The workers of an executor: where they begin and end, the calls and the memory that each holds, and their levels.

    start ─► started ─► ready ─► calls, one lease after the other ─► stop ─► leaving ─► ended
               │          │                │
               └──────────┴────────────────┴─► forget ─► gone, until the reply to its last call

`WorkerPool` is the only writer of a `Slot`, as the scheduler is of a `Task`: it gives leases back, counts what each worker has
done, and says which are to be started, stopped and killed. It does no I/O: those are effects, which a driver carries out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

from pytest_membudget.runtime.admission.ledger import Ticket
from pytest_membudget.runtime.executor import attempts
from pytest_membudget.runtime.executor.flow_control import ConcurrencyLimit, StartPacing, Throughput
from pytest_membudget.runtime.executor.policy import USUAL_TASKS_PER_CHILD, ExecutorPolicy
from pytest_membudget.runtime.executor.state import (
    Backend,
    Effect,
    Forget,
    Kill,
    Slot,
    Start,
    Stop,
    Task,
)
from pytest_membudget.runtime.workers.protocol import Figures, Stage
from pytest_membudget.runtime.workers.task_memory import RESOLUTION_BYTES

STARTS_THAT_MAY_FAIL = 3
"""When so many workers in a row ended before they were ready, their level counts as one that cannot start."""

FREE_BYTES = 16 * 1024 * 1024
"""What a worker may retain of its tasks before it is charged, where no base is known."""

_LOADING_SHARE = 0.1
"""A worker that is replaced as usual has spent at most so much of its time on loading what its tasks need."""

LEAVING_S = 2.0
"""How long what a worker retains is waited for after it was stopped. One that a thread of a task keeps alive may take minutes."""

RETAINED_CHANGE_BYTES = 1024 * 1024
"""A smaller change of what a worker retains is no news."""


class Levels:
    """The levels of an executor, best first, and the one that tasks run at now: that goes down, never up."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.all = tuple(backends)
        self.now = self.all[0]

    @property
    def for_threads(self) -> Backend:
        """Threads, where the present level or one below it is that of threads; else the present level."""
        below = self.all[self.all.index(self.now) :]
        return next((each for each in below if each.level == "thread"), self.now)

    def came_to_a_call(self, backend: Backend) -> None:
        """A worker of `backend` has answered a call, so its level can start workers."""
        if backend is self.now:
            backend.is_proven, backend.failed_starts = True, 0

    def cannot_start(self, backend: Backend) -> bool:
        """Counts a worker that ended before it was ready; True where as many in a row did as count for their level."""
        backend.failed_starts += 1
        if backend.failed_starts < STARTS_THAT_MAY_FAIL:
            return False
        backend.failed_starts = 0
        return True

    def fall_below(self, backend: Backend) -> bool:
        """Goes to the level below `backend`, unless that was left before; False where there is no lower one."""
        below = max(self.all.index(backend) + 1, self.all.index(self.now))
        if below == len(self.all):
            return False
        self.now = self.all[below]
        return True


class WorkerPool:
    """The workers of all levels. Placements read it; the scheduler, and for what concerns no task its driver, call it.

    Args:
        backends: the levels, best first.
        policy: the executor's rules.
        effects: gets what a driver is to do, in order with what the scheduler decides.
        max_workers: workers that are busy at once.
        max_in_flight: calls that may be with workers at a time.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        policy: ExecutorPolicy,
        effects: list[Effect],
        *,
        max_workers: int,
        max_in_flight: int = sys.maxsize,
    ) -> None:
        self.levels = Levels(backends)
        self.concurrency = ConcurrencyLimit(max_workers, policy.recover_after)
        self.throughput = Throughput()
        self.pacing = StartPacing()
        self.slots: list[Slot] = []
        #: gone, but with calls whose replies are still to come, or a lease that a thread still holds
        self.gone: dict[Slot, None] = {}
        #: stopped and not ended yet: what they retain is not free
        self.leaving: list[Slot] = []
        #: on the driver's monotonic clock
        self.now_s = 0.0
        #: whether tasks of this machine stall for want of memory; nothing then starts beside what runs
        self.is_under_pressure = False
        self._max_in_flight = max_in_flight
        self._replacement = Replacement(policy)
        self._effects = effects
        self._is_shut = False
        self._has_said_base = False

    # What placements and the driver read -----------------------------------------------------------------------------

    @property
    def busy(self) -> int:
        """Workers that have something to do."""
        return sum(1 for slot in self.slots if slot.running)

    @property
    def room_in_flight(self) -> int:
        """How many more calls may be with workers."""
        return self._max_in_flight - sum(len(slot.running) for slot in self.slots)

    @property
    def is_saturated(self) -> bool:
        """Whether no further worker may be busy."""
        most = 1 if self.is_under_pressure else self.concurrency.now
        return self.busy >= most or self.room_in_flight <= 0

    def idle(self, backend: Backend | None = None) -> list[Slot]:
        """Workers (of `backend`) with nothing to do: those that have begun first, of these the one that retains most."""
        found = [
            slot
            for slot in self.slots
            if not slot.running and not slot.is_closing and backend in {None, slot.backend}
        ]
        return sorted(found, key=lambda slot: (not slot.has_begun, -slot.retained_bytes))

    # From a worker's start to its end --------------------------------------------------------------------------------

    def start(self, backend: Backend) -> Slot:
        """A new worker, which can be given calls at once."""
        slot = Slot(backend)
        self.slots.append(slot)
        self._effects.append(Start(slot))
        return slot

    def start_ahead(self) -> None:
        """Starts one worker before its first task, where none is idle and there is memory for it."""
        backend = self.levels.now
        if backend.memory is None or not backend.own_memory or self.idle(backend):
            return
        if backend.memory.may_start_ahead(self):
            self.start(backend)

    def started(self, slot: Slot) -> None:
        """The driver has started `slot`; it may still be on its way up."""
        slot.is_started = True

    def withdraw(self, slot: Slot) -> list[Task]:
        """Removes a worker that could not be started; returns the calls that it was to get."""
        tasks = list(slot.running)
        slot.running.clear()
        self._remove(slot)
        return tasks

    def ready(self, slot: Slot, base_bytes: int) -> None:
        """A worker is up, its initializer run: it holds so much more than a bare one."""
        slot.base_bytes = base_bytes
        memory = slot.backend.memory
        if memory is None:
            return
        memory.retained.loaded_bytes = base_bytes
        if memory.is_base_over_budget and not self._has_said_base:
            self._has_said_base = True
            self._effects.append(attempts.base_over_budget_event(slot.backend.level))

    def stuck(self, slot: Slot, stage: Stage) -> None:
        """A worker has taken too long to come to its call, and was last at `stage`."""
        slot.stuck_at = stage

    def kill(self, slot: Slot) -> None:
        """Ends a worker at once; what it was running is answered by its end."""
        self._effects.append(Kill(slot))

    def stop(self, slot: Slot) -> None:
        """Lets a worker end that has no calls. What it retains is free when it has `ended`."""
        if slot.backend.is_local_pool and slot.retained_bytes:
            slot.stopped_s = self.now_s
            self.leaving.append(slot)
        self._remove(slot)
        self._effects.append(Stop(slot))

    def stop_idle(self) -> None:
        """Stops workers that have nothing to do: another program waits for what they keep."""
        for slot in self.idle():
            self.stop(slot)

    def forget(self, slot: Slot, *, renew: bool = False) -> None:
        """A worker has ended, or is left to itself; replies to its calls may still come. `renew`: its machine begins it again."""
        self._remove(slot)
        self._effects.append(Forget(slot, renew))

    def ended(self, slot: Slot) -> None:
        """A worker that was stopped is gone, and what it retained is free."""
        if slot in self.leaving:
            self.leaving.remove(slot)

    def pass_time(self, now_s: float) -> None:
        """It is `now_s` on the driver's clock. What a stopped worker retains is not waited for any longer than `LEAVING_S`."""
        self.now_s = now_s
        self.leaving = [slot for slot in self.leaving if now_s - slot.stopped_s < LEAVING_S]

    def workers_changed(
        self, backend: Backend, joined: Iterable[Slot], capacities: Mapping[Slot, int]
    ) -> None:
        """A cluster: `joined` are its workers that are new to us, `capacities` what each offers for one call now, in bytes."""
        self.slots.extend(joined)
        slots = [slot for slot in self.slots if slot.backend is backend]
        for slot in slots:
            slot.capacity_bytes = capacities.get(slot, slot.capacity_bytes)
        backend.placement.workers_changed(slots)

    def shut_down(self) -> None:
        """Ends every worker; replies to their calls are not waited for."""
        self._is_shut = True
        for slot in (*self.slots, *self.gone):
            slot.running.clear()
        for slot in self.slots:
            self.release_if_idle(slot)
            self.kill(slot)
        # A process that has ended holds nothing; a thread holds its lease until it returns.
        for slot in [each for each in self.gone if each.backend.own_memory]:
            self.release_if_idle(slot)

    # How many run at once --------------------------------------------------------------------------------------------

    def adapt_concurrency(self, *, ended_well: bool) -> None:
        """An attempt has ended: fewer may run at once after a loss, and more again after a run of clean ones."""
        if not ended_well:
            if not self.levels.now.is_cluster:  # its workers share no budget
                self.concurrency.lost()
            self.start_ahead()
        elif self.concurrency.clean():
            self._effects.append(attempts.recovery_event(self.levels.now.level, self.concurrency.most))

    def pace_starts(self) -> None:
        """A worker was killed, and not by us: memory may be out, so tasks start one by one for a while."""
        self.pacing.killed(self.now_s, self.concurrency.most)

    def pressure_changed(self, source: str) -> None:
        """`source` is the file that says that tasks stall for want of memory; empty where they do not."""
        was_under_pressure, self.is_under_pressure = self.is_under_pressure, bool(source)
        if source and not was_under_pressure:
            self._effects.append(attempts.pressure_event(self.levels.now.level, source))

    # A worker's calls ------------------------------------------------------------------------------------------------

    def worker_for(self, task: Task) -> Slot | None:
        """An idle worker or a new one; None where the task must not run at this level."""
        use_thread = task.prefers_thread and not task.ran_out
        backend = self.levels.for_threads if use_thread else self.levels.now
        if task.ran_out and not backend.own_memory:
            return None
        idle = self.idle(backend)
        return idle[0] if idle and not task.fresh_worker else self.start(backend)

    def begin(self, slot: Slot, lease: Ticket | None) -> None:
        """The next calls of `slot` run under `lease`, which goes back after the last of them."""
        slot.lease = lease
        self.pacing.started(self.now_s)

    def add_call(self, slot: Slot, task: Task) -> None:
        """A worker gets one more call, which counts towards its replacement; a cluster replaces its workers itself."""
        slot.running.append(task)
        slot.handed += self._replacement.weight_of(task, self.throughput.weight)
        if not slot.backend.is_cluster:
            slot.is_closing = slot.is_closing or task.fresh_worker or self._replacement.is_due(slot)

    def start_successor(self, slot: Slot) -> None:
        """Starts a worker ahead where `slot` is soon to be replaced."""
        if self._replacement.is_due(slot, soon=True):
            self.start_ahead()

    def take_call(self, slot: Slot, sequence: int) -> Task | None:
        """Takes the call with this number off its worker; None where it has no such call."""
        task = next((each for each in slot.running if each.sequence == sequence), None)
        if task is None:  # a thread that was left to itself has returned, or everything was ended meanwhile
            self.release_if_idle(slot)
        else:
            slot.running.remove(task)
        return task

    def take_back(self, task: Task) -> None:
        """A call is not sent after all."""
        slot = next(each for each in (*self.slots, *self.gone) if task in each.running)
        slot.running.remove(task)
        self.release_if_idle(slot)

    def abandon(self, slot: Slot, task: Task) -> None:
        """A thread goes on with a call that is given up. It holds its lease until it returns, and another one takes its place."""
        self.forget(slot)
        slot.running.remove(task)

    def answered(self, slot: Slot, figures: Figures) -> int:
        """A worker has ended a call. Returns the bytes that this has left there for good: not the task's own.

        What a task loads once, modules say, is the worker's from then on. What each task leaves is its own.
        """
        left_bytes = max(0, figures.kept_bytes - slot.retained_bytes)
        self._record_retained(slot, figures.kept_bytes)
        is_leak, slot.left_something = slot.left_something, left_bytes > RESOLUTION_BYTES
        self.levels.came_to_a_call(slot.backend)
        self.throughput.record(figures.duration_s)
        slot.first_task_s = slot.first_task_s if slot.tasks_done else figures.duration_s
        slot.busy_s += figures.duration_s
        slot.tasks_done += 1
        has_outgrown = self._replacement.has_outgrown(slot, self, figures.peak_bytes or 0)
        slot.is_closing = slot.is_closing or has_outgrown
        return 0 if is_leak and slot.left_something else left_bytes

    @staticmethod
    def release(backend: Backend, lease: Ticket | None) -> None:
        """Gives back what was granted at a level."""
        if backend.memory is not None and lease is not None:
            backend.memory.ledger.release(lease)

    def release_if_idle(self, slot: Slot) -> None:
        """After its last call the lease goes back, and a worker that takes no more calls is stopped."""
        if slot.running:
            return
        self.gone.pop(slot, None)
        self.release(slot.backend, slot.lease)
        slot.lease = None
        if slot.is_closing and not slot.is_gone and not self._is_shut:
            self.stop(slot)

    def _remove(self, slot: Slot) -> None:
        slot.is_gone = True
        if slot in self.slots:
            self.slots.remove(slot)
        if slot.running:
            self.gone[slot] = None
        self.release_if_idle(slot)

    def _record_retained(self, slot: Slot, retained_bytes: int) -> None:
        is_first = slot.first_retained_bytes is None
        if not is_first and abs(slot.retained_bytes - retained_bytes) < RETAINED_CHANGE_BYTES:
            return
        slot.retained_bytes = retained_bytes
        if is_first:
            slot.first_retained_bytes = retained_bytes
        if slot.backend.memory is not None:
            slot.backend.memory.retained.record(slot, is_first=is_first)

    def validate(self) -> None:
        """The invariants, for tests."""
        slots = (*self.slots, *self.gone)
        calls = [task for slot in slots for task in slot.running]
        leases = [slot.lease for slot in slots if slot.lease is not None]
        assert not any(slot.is_gone for slot in self.slots)
        assert all(slot.is_gone for slot in (*self.gone, *self.leaving))
        assert len(set(slots)) == len(slots), "a worker is listed twice"
        assert len(set(calls)) == len(calls), "a task runs twice"
        assert self._is_shut or not any(slot.is_closing and not slot.running for slot in self.slots)
        assert len(set(map(id, leases))) == len(leases), "two workers share a lease"
        assert not any(slot.lease and not slot.running for slot in self.slots), "an idle worker holds memory"
        assert not any(slot.lease or slot.running for slot in self.leaving), "a worker left with its calls"
        if any(lease.exclusive for lease in leases):
            assert len(leases) == 1, "something runs beside a task that must be alone"


class Replacement:
    """When a worker has done enough, or retains too much, and another one takes its place."""

    def __init__(self, policy: ExecutorPolicy) -> None:
        self._most_calls = policy.max_tasks_per_child
        self._most_bytes = None if policy.max_worker_bytes is None else policy.most_worker_bytes

    def weight_of(self, task: Task, usual_weight: float) -> float:
        """How much of a call `task` counts: a short one in part, inputs of `run` only at the usual number."""
        counts_whole = task.exact and self._most_calls != USUAL_TASKS_PER_CHILD
        return 1.0 if counts_whole else usual_weight

    def is_due(self, slot: Slot, *, soon: bool = False) -> bool:
        """Whether a worker process has been sent enough calls; `soon`: so many that its successor should be on its way up.

        Fifty files of some milliseconds are not enough, where the next worker would import pandas for two seconds first.
        """
        handed = slot.handed * 4 / 3 if soon else slot.handed
        if self._most_calls is None or handed < self._most_calls or not slot.backend.is_local_pool:
            return False
        has_loaded = (slot.first_retained_bytes or 0) > FREE_BYTES
        if self._most_calls != USUAL_TASKS_PER_CHILD or not has_loaded:
            return True
        return slot.loading_s <= _LOADING_SHARE * slot.busy_s

    def has_outgrown(self, slot: Slot, pool: WorkerPool, task_bytes: int) -> bool:
        """Whether a worker retains more than it may, where its tasks take `task_bytes` beside that."""
        memory = slot.backend.memory
        if memory is None or not slot.backend.own_memory:
            return False
        if self._most_bytes is not None:
            return slot.retained_bytes + (slot.base_bytes or 0) > self._most_bytes
        return memory.has_outgrown(slot, pool, task_bytes)
