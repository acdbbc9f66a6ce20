"""Any order of events leaves the scheduler's books right, finishes every task once and lets nothing wait for nothing."""

import sys

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scripted_scheduler import BEHIND, KILLED, MB, UNSTARTED, a_scheduler, a_task

from pytest_membudget.runtime.executor.state import Finish, Send, Start, Stop
from pytest_membudget.runtime.prediction.profiles import Profiles
from pytest_membudget.runtime.workers.protocol import (
    Delay,
    Died,
    Figures,
    Raised,
    RanOut,
    Reading,
    Returned,
    Unpicklable,
)

REPLIES = [
    Returned(1, Figures(0.001)),
    Returned(1, Figures(0.5, peak_bytes=12 * MB)),
    Returned(1, Figures(0.01, peak_bytes=60 * MB, kept_bytes=45 * MB)),
    Raised(ValueError("mine")),
    Returned(1, Figures(0.5, reached_limit=True)),
    KILLED._replace(figures=Figures(reached_limit=True)),
    RanOut(MemoryError()),
    Unpicklable(TypeError("not it")),
    KILLED,
    BEHIND,
    UNSTARTED,
]


class AnyOrder(RuleBasedStateMachine):
    """Any order of events leaves the books right, finishes every task exactly once and lets nothing wait for nothing."""

    @initialize(
        workers=st.integers(1, 4),
        mean_s=st.sampled_from([1.0, 0.01, 0.001]),
        max_in_flight=st.sampled_from([sys.maxsize, sys.maxsize, 1, 3]),
        levels=st.sampled_from(
            [("process", "thread"), ("process",), ("thread",), ("process", "thread", "sequential")]
        ),
        max_tasks=st.sampled_from([None, 2, 50]),
        oversize=st.sampled_from(["alone", "refuse"]),
        overrun=st.sampled_from(["wait", "end"]),
        profiles=st.booleans(),
    )
    def begin(self, *, workers, mean_s, max_in_flight, levels, max_tasks, oversize, overrun, profiles):
        self.scheduler = a_scheduler(
            100 * MB,
            workers,
            levels,
            max_in_flight,
            max_tasks_per_child=max_tasks,
            oversize=oversize,
            overrun=overrun,
            max_overtakes=3,
            profiles=profiles,
        )
        self.profile = Profiles().of("parse", 0) if profiles else None
        self.scheduler.pool.throughput.mean_s = mean_s
        self.submissions, self.numbers, self.open, self.finished = [], {}, {}, set()
        self.started, self.sent, self.starts, self.now_s = set(), set(), True, 0.0

    def carry_out(self):
        """What a driver would do, as far as it matters here: calls go to workers that were started."""
        for effect in self.scheduler.decide():
            match effect:
                case Finish(submission=submission):
                    assert id(submission) not in self.finished, "finished twice"
                    self.finished.add(id(submission))
                    self.open.pop(self.numbers[id(submission)], None)
                case Start(slot=slot) if not slot.is_gone:
                    self.started.add(slot)
                    if self.starts:
                        self.scheduler.pool.started(slot)
                case Send(slot=slot, calls=calls):
                    assert slot in self.started, "a call for a worker that was not started"
                    assert all(task.sequence == sequence for task, sequence in calls)
                    self.sent.update(sequence for _, sequence in calls)
                case Stop(slot=slot):
                    assert not slot.running
                    self.started.discard(slot)

    @rule(
        size_mb=st.integers(0, 130),
        fields=st.sampled_from(
            [
                {},
                {},
                {"fresh_worker": True},
                {"prefers_thread": True},
                {"timeout_s": 5.0},
                {"estimate_bytes": 1},
                {"limit": 20 * MB},
            ]
        ),
        times=st.sampled_from([1, 1, 2, 20]),
        calls_seen=st.sampled_from([None, None, 0, 1]),
    )
    def submit(self, size_mb, fields, times, calls_seen):
        for _ in range(times - 1):
            self.add(a_task(size_mb * MB, **fields), calls_seen)
        self.submit_one(size_mb, fields, calls_seen)

    def add(self, task, calls_seen=None):
        task.profile, task.charge.calls_seen = self.profile, calls_seen
        self.numbers[id(task.submission)] = number = len(self.submissions)
        self.submissions.append(task.submission)  # keeps its id from being used again
        self.open[number] = task
        self.scheduler.submitted(task)

    def submit_one(self, size_mb=10, fields=None, calls_seen=None):
        self.add(a_task(size_mb * MB, **(fields or {})), calls_seen)
        self.carry_out()

    @property
    def owing(self):
        return [slot for slot in (*self.scheduler.pool.slots, *self.scheduler.pool.gone) if slot.running]

    @precondition(lambda self: self.owing)
    @rule(data=st.data(), reply=st.sampled_from(REPLIES))
    def reply(self, data, reply):
        slot = data.draw(st.sampled_from(self.owing))
        if not slot.backend.own_memory and isinstance(reply, Died):
            reply = REPLIES[0]
        if slot.is_gone and not isinstance(reply, Died):
            reply = BEHIND
        self.scheduler.replied(slot, slot.running[0].sequence, reply)
        self.carry_out()

    @rule(data=st.data())
    def fail_to_start(self, data):
        """The next workers do not start; some of them fail at once, the others after that."""
        self.starts = False
        self.submit_one()
        self.starts = True
        for slot in [slot for slot in self.scheduler.pool.slots if not slot.is_started]:
            if slot.is_gone:
                continue
            if data.draw(st.booleans()):
                self.started.discard(slot)
                self.scheduler.start_failed(slot, "no memory")
            else:
                self.scheduler.pool.started(slot)
            self.carry_out()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data):
        number = data.draw(st.sampled_from(sorted(self.open)))
        task = self.open[number]
        if task.state == "queued" and task.is_first_attempt:
            self.open.pop(number)
            self.scheduler.cancelled(task)
            self.carry_out()

    @rule(seconds=st.sampled_from([0.1, 6.0, 400.0]), held_mb=st.integers(0, 200), data=st.data())
    def pass_time(self, seconds, held_mb, data):
        self.now_s += seconds
        reading = data.draw(
            st.sampled_from(
                [
                    Reading(0.0, None, held_mb * MB),
                    Reading(0.0, None, held_mb * MB, True),
                    Reading(None, Delay("import", 0.0), 0),
                ]
            )
        )
        busy = [slot for slot in self.scheduler.pool.slots if slot.running]
        self.scheduler.time_passed(self.now_s, dict.fromkeys(busy, reading))
        self.carry_out()

    @precondition(lambda self: self.scheduler.pool.leaving)
    @rule()
    def a_stopped_worker_ends(self):
        self.scheduler.pool.ended(self.scheduler.pool.leaving[0])
        self.carry_out()

    @rule(budget_mb=st.integers(0, 150))
    def change_budget(self, budget_mb):
        self.scheduler.budget_changed(budget_mb * MB, 100 * MB)
        self.carry_out()

    @invariant()
    def the_books_are_right(self):
        if not hasattr(self, "scheduler"):
            return
        self.scheduler.validate()
        assert self.scheduler.open_tasks == len(self.open)
        assert all(slot in self.started for slot in self.scheduler.pool.slots)
        assert all(task.sequence in self.sent for slot in self.owing for task in slot.running), (
            "a call was not sent"
        )
        assert not self.scheduler.decide(), "a decision was left for later"

    def teardown(self):
        if not hasattr(self, "scheduler"):
            return
        for _ in range(10_000):
            while self.scheduler.pool.leaving:
                self.a_stopped_worker_ends()
            if not self.owing:
                break
            slot = self.owing[0]
            reply = BEHIND if slot.is_gone else REPLIES[0]
            self.scheduler.replied(slot, slot.running[0].sequence, reply)
            self.carry_out()
        for slot in list(self.scheduler.pool.gone):
            assert not slot.backend.own_memory, "only a thread that was left to itself still holds its lease"
            self.scheduler.replied(slot, 0, REPLIES[0])
            self.carry_out()
        while self.owing or self.scheduler.pool.leaving:
            if self.scheduler.pool.leaving:
                self.a_stopped_worker_ends()
                continue
            slot = self.owing[0]
            self.scheduler.replied(slot, slot.running[0].sequence, BEHIND if slot.is_gone else REPLIES[0])
            self.carry_out()
        assert not self.open, "a task was never finished"
        assert self.scheduler.queue.placement.memory.ledger.statistics().leases == 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestAnyOrderForLong(AnyOrder.TestCase):
    settings = settings(max_examples=2000, stateful_step_count=50, deadline=None)
