"""A scheduler played by hand: events in, effects out, its invariants after every step. No thread, no clock, no sleep."""

import sys
from concurrent.futures import Future

from pytest_membudget import ExecutorPolicy
from pytest_membudget.runtime.executor.charges import Charge
from pytest_membudget.runtime.executor.local_memory import LocalMemory
from pytest_membudget.runtime.executor.local_placement import LocalPlacement
from pytest_membudget.runtime.executor.scheduler import Scheduler
from pytest_membudget.runtime.executor.state import Backend, Finish, Send, Start, Submission, Task
from pytest_membudget.runtime.workers.protocol import Died, Figures, Reading, Returned

MB = 1_000_000
KILLED = Died("worker process 7 was killed by SIGKILL", attempted=True)
BEHIND = Died("worker process 7 was killed by SIGKILL", attempted=False)
UNSTARTED = Died("worker process 7 ended with exit code 1", attempted=False, failed_to_start=True)


class Fixed(Charge):
    """A charge that says what the test says, and keeps what it is taught."""

    calls_seen = None  # can be set: a property of `Charge` cannot

    def __init__(self, size_bytes, calls_seen=None):
        self.size_bytes = size_bytes
        self.calls_seen = calls_seen
        self.seen = []
        self.seen_upper = []
        self.seen_running = []

    def first_bytes(self):
        if isinstance(self.size_bytes, Exception):
            raise self.size_bytes
        return self.size_bytes

    def retry_bytes(self, failed_bytes):
        return 2 * failed_bytes

    def observe(self, peak_bytes, duration_s, peak_upper_bytes=None):
        self.seen.append(peak_bytes)
        self.seen_upper.append(peak_upper_bytes)

    def observe_running(self, held_bytes):
        self.seen_running.append(held_bytes)


def a_task(size_bytes=10, **fields):
    return Task(Submission(abs, (-3,), {}, Future()), Fixed(size_bytes), **fields)


def a_scheduler(
    budget_bytes=100,
    workers=2,
    levels=("process", "thread"),
    max_in_flight=sys.maxsize,
    *,
    has_initializer=False,
    base_bytes=0,
    is_shared=False,
    **policy,
):
    policy = ExecutorPolicy(**policy)
    memory = LocalMemory(
        budget_bytes,
        max_overtakes=policy.max_overtakes,
        base_bytes=base_bytes,
        has_initializer=has_initializer,
        is_shared=is_shared,
    )
    here = LocalPlacement(memory)
    made = {
        "process": Backend("process", here, own_memory=True),
        "thread": Backend("thread", here, own_memory=False, most_after_fallback=policy.degraded_threads),
        "sequential": Backend("sequential", here, own_memory=False, most_after_fallback=1),
    }
    backends = [made[level] for level in levels]
    return Scheduler(backends, policy, max_workers=workers, max_in_flight=max_in_flight)


class Played:
    """A scheduler and what it decided, with the invariants checked after every step."""

    def __init__(self, *args, **kwargs):
        self.scheduler = a_scheduler(*args, **kwargs)
        self.effects = []

    def decided(self, *, starts=True):
        """What the events since the last call led to; workers are started unless the test says otherwise."""
        new = self.scheduler.decide()
        for start in only(new, Start) if starts else ():
            self.scheduler.pool.started(start.slot)
        assert not self.scheduler.decide(), "a decision was left for later"
        self.scheduler.validate()
        self.effects += new
        return new

    def submit(self, *tasks, starts=True):
        for task in tasks:
            self.scheduler.submitted(task)
        return self.decided(starts=starts)

    def reply(self, task, reply):
        self.scheduler.replied(self.slot_of(task), task.sequence, reply)
        return self.decided()

    def returned(self, task, **figures):
        return self.reply(task, Returned(3, Figures(**{"duration_s": 1.0, **figures})))

    def pass_time(self, now_s, reading):
        busy = [slot for slot in self.scheduler.pool.slots if slot.running]
        self.scheduler.time_passed(now_s, dict.fromkeys(busy, reading))
        return self.decided()

    def slot_of(self, task):
        slots = (*self.scheduler.pool.slots, *self.scheduler.pool.gone)
        return next(slot for slot in slots if task in slot.running)

    @property
    def running(self):
        return [task for slot in self.scheduler.pool.slots for task in slot.running]

    def outcome(self, submission):
        (finish,) = [each for each in only(self.effects, Finish) if each.submission is submission]
        return finish.value if finish.error is None else finish.error


def only(effects, *kinds):
    return [each for each in effects if isinstance(each, kinds)]


def sent(effects):
    return [task for send in only(effects, Send) for task, _ in send.calls]


def holds(megabytes):
    """A reading of a worker whose call has begun at 0 and holds so much."""
    return Reading(0.0, None, int(megabytes * MB))
