"""The writer of workers' slots by itself: any order of events leaves its books right, and every lease goes back once."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scripted_scheduler import MB, a_task

from pytest_membudget import ExecutorPolicy
from pytest_membudget.runtime.executor.local_memory import LocalMemory
from pytest_membudget.runtime.executor.local_placement import LocalPlacement
from pytest_membudget.runtime.executor.state import Backend, Forget, Kill, Start, Stop
from pytest_membudget.runtime.executor.worker_pool import LEAVING_S, WorkerPool
from pytest_membudget.runtime.workers.protocol import Figures


def a_placement():
    """Of a machine that has room for whatever is asked."""
    return LocalPlacement(LocalMemory(10_000 * MB, max_overtakes=1))


def test_loading_is_what_a_first_task_takes_beyond_the_others():
    process = Backend("process", a_placement(), own_memory=True)
    pool = WorkerPool([process], ExecutorPolicy(), [], max_workers=1)
    slot = pool.start(process)
    for duration_s in (2.0, 0.5, 0.5):
        pool.answered(slot, Figures(duration_s))
    assert slot.loading_s == 1.5


class AnyOrder(RuleBasedStateMachine):
    """Workers begin, get calls, answer, are stopped, killed, left to themselves, in any order."""

    @initialize(max_tasks=st.sampled_from([None, 1, 3, 50]), max_worker_mb=st.sampled_from([None, 20]))
    def begin(self, max_tasks, max_worker_mb):
        placement, self.effects, self.sequence = a_placement(), [], 0
        self.ledger = placement.memory.ledger
        self.process = Backend("process", placement, own_memory=True)
        self.thread = Backend("thread", placement, own_memory=False)
        policy = ExecutorPolicy(
            max_tasks_per_child=max_tasks, max_worker_bytes=max_worker_mb and max_worker_mb * MB
        )
        self.pool = WorkerPool([self.process, self.thread], policy, self.effects, max_workers=4)
        self.alive, self.ended, self.dead = {}, set(), set()

    def a_lease(self):
        self.ledger.submit(MB)
        (lease,) = self.ledger.grant()
        return lease

    def a_call(self, **fields):
        self.sequence += 1
        return a_task(sequence=self.sequence, exact=True, **fields)

    @rule(
        fields=st.sampled_from([{}, {}, {"fresh_worker": True}, {"prefers_thread": True}, {"ran_out": True}]),
        calls=st.sampled_from([1, 1, 3]),
    )
    def send(self, fields, calls):
        task = self.a_call(**fields)
        slot = self.pool.worker_for(task)
        if slot is None:
            assert task.ran_out
            assert self.pool.levels.now is self.thread
            return
        assert not slot.running
        assert not (task.fresh_worker and slot.has_begun)
        self.pool.begin(slot, self.a_lease())
        self.pool.add_call(slot, task)
        while len(slot.running) < calls and not slot.is_closing:
            self.pool.add_call(slot, self.a_call())
        self.pool.start_successor(slot)

    @property
    def busy(self):
        return [slot for slot in self.pool.slots if slot.running]

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), kept_mb=st.integers(0, 30), duration_s=st.sampled_from([0.001, 1.0]))
    def answer(self, data, kept_mb, duration_s):
        slot = data.draw(st.sampled_from(self.busy))
        retained_bytes = slot.retained_bytes
        task = self.pool.take_call(slot, slot.running[0].sequence)
        left_bytes = self.pool.answered(slot, Figures(duration_s, kept_bytes=kept_mb * MB))
        assert left_bytes in {0, max(0, kept_mb * MB - retained_bytes)}
        assert task not in slot.running
        self.pool.release_if_idle(slot)

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def cancel(self, data):
        slot = data.draw(st.sampled_from(self.busy))
        self.pool.take_back(slot.running[-1])

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def lose(self, data):
        """A process ends, with replies to come for what waited in it; a thread is left to itself."""
        slot = data.draw(st.sampled_from(self.busy))
        task = slot.running[0]
        if slot.backend.own_memory:
            self.pool.kill(slot)
            assert self.pool.take_call(slot, task.sequence) is task
            self.pool.forget(slot)
        else:
            self.pool.abandon(slot, task)
            assert slot.lease is not None
        assert slot not in self.pool.slots

    @precondition(lambda self: self.pool.gone)
    @rule()
    def last_replies(self):
        slot = next(iter(self.pool.gone))
        for task in list(slot.running):
            assert self.pool.take_call(slot, task.sequence) is task
            self.pool.release_if_idle(slot)
        assert self.pool.take_call(slot, 0) is None
        assert slot not in self.pool.gone
        assert slot.lease is None

    @rule(data=st.data())
    def fail_to_start(self, data):
        slot = self.pool.start(self.pool.levels.now)
        assert slot in self.pool.idle(self.pool.levels.now)
        tasks = [self.a_call() for _ in range(data.draw(st.integers(0, 2)))]
        for task in tasks:
            self.pool.begin(slot, slot.lease or self.a_lease())
            self.pool.add_call(slot, task)
        assert self.pool.withdraw(slot) == tasks
        assert slot.lease is None
        self.dead.add(slot)

    @precondition(lambda self: self.pool.slots)
    @rule(data=st.data(), loaded_mb=st.integers(0, 30))
    def becomes_ready(self, data, loaded_mb):
        slot = data.draw(st.sampled_from(self.pool.slots))
        self.pool.started(slot)
        self.pool.ready(slot, loaded_mb * MB)

    @rule()
    def make_room(self):
        self.pool.stop_idle()
        assert not self.pool.idle()

    @rule(seconds=st.sampled_from([0.125, LEAVING_S]))  # sums of both are exact
    def pass_time(self, seconds):
        self.pool.pass_time(self.pool.now_s + seconds)
        assert seconds < LEAVING_S or not self.pool.leaving

    @precondition(lambda self: self.pool.leaving)
    @rule()
    def end(self):
        self.pool.ended(self.pool.leaving[0])

    @rule()
    def fall(self):
        self.pool.levels.fall_below(self.process)
        assert self.pool.levels.now is self.thread

    @invariant()
    def books_are_right(self):
        if not hasattr(self, "pool"):
            return
        self.pool.validate()
        for effect in self.effects:
            match effect:
                case Start(slot=slot):
                    assert self.alive.setdefault(slot, "started") == "started"
                case Stop(slot=slot) | Forget(slot=slot):
                    assert self.alive.pop(slot) == "started", "a worker ends once, after its start"
                    self.ended.add(slot)
                case Kill(slot=slot):
                    assert slot in self.alive
        self.effects.clear()
        assert set(self.pool.slots) == self.alive.keys() - self.dead
        held = [slot for slot in (*self.pool.slots, *self.pool.gone) if slot.lease is not None]
        assert self.ledger.statistics().leases == len(held)
        assert not any(slot.lease for slot in self.ended - self.pool.gone.keys()), "its memory is lost"

    def teardown(self):
        if not hasattr(self, "pool"):
            return
        self.pool.shut_down()
        while self.pool.gone:
            self.last_replies()
        assert self.ledger.statistics().leases == 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestAnyOrderForLong(AnyOrder.TestCase):
    settings = settings(max_examples=2000, stateful_step_count=50, deadline=None)
