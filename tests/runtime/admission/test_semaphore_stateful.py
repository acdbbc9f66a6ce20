"""The safety theorem of docs/admission.md: true peaks within their estimates keep the machine below its limit."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scripted import ScriptedClock

from pytest_membudget import MemorySemaphore, OversizeError
from pytest_membudget.records.measurement import MemoryLimit, MemoryReading

LIMIT = 20
RESERVE = 4


class Machine(RuleBasedStateMachine):
    """A machine of 20 bytes, so that every edge is met: tasks that touch at most what they reserved, and other memory that comes and goes."""

    def __init__(self):
        super().__init__()
        self.clock = ScriptedClock()
        self.tasks = {}
        self.own_other = self.outside = 0

    def used(self):
        return sum(self.tasks.values()) + self.own_other + self.outside

    def reading(self):
        if not self.tasks:
            self.least_other = self.own_other + self.outside
        return MemoryReading(
            limit=MemoryLimit(LIMIT, "scripted"), available_bytes=max(0, LIMIT - self.used())
        )

    def own(self):
        return self.own_other + sum(self.tasks.values())

    @initialize(outside=st.integers(0, LIMIT - RESERVE), max_overtakes=st.integers(0, 3))
    def begin(self, outside, max_overtakes):
        self.outside = outside
        self.semaphore = MemorySemaphore(
            max_overtakes=max_overtakes,
            reading=self.reading,
            own_bytes=self.own,
            clock=self.clock,
            wait=self.clock.wait,
        )

    @rule(size=st.integers(1, LIMIT))
    def start(self, size):
        promised = self.semaphore.can_allocate(size)
        try:
            lease = self.semaphore.acquire_nowait(size)
        except OversizeError:
            assert size > LIMIT - RESERVE
            return
        assert (lease is not None) == promised
        if lease is not None:
            self.tasks[lease] = 0

    @rule(size=st.integers(1, LIMIT - RESERVE), timeout_s=st.floats(0.1, 5))
    def wait_in_vain_or_not(self, size, timeout_s):
        before_s = self.clock.now_s
        try:
            lease = self.semaphore.reserve(size, timeout_s=timeout_s)
        except TimeoutError:
            assert self.clock.now_s >= before_s + timeout_s - 1e-6
        else:
            self.tasks[lease] = 0

    @precondition(lambda self: self.tasks)
    @rule(pick=st.integers(0), share=st.floats(0, 1))
    def touch(self, pick, share):
        lease = list(self.tasks)[pick % len(self.tasks)]
        self.tasks[lease] = max(self.tasks[lease], int(share * lease.bytes))

    @precondition(lambda self: self.tasks)
    @rule(pick=st.integers(0))
    def finish(self, pick):
        lease = list(self.tasks)[pick % len(self.tasks)]
        del self.tasks[lease]
        lease.release()

    @rule(change=st.integers(-RESERVE, RESERVE), own=st.booleans())
    def others_come_and_go(self, change, own):
        """Since no lease was out last, never a rise by more than the reserve: the theorem's assumption."""
        most = self.least_other + RESERVE if self.tasks else LIMIT - RESERVE
        change = min(change, most - self.own_other - self.outside)
        if own:
            self.own_other = max(0, self.own_other + change)
        else:
            self.outside = max(0, self.outside + change)
        self.least_other = min(self.least_other, self.own_other + self.outside)

    @invariant()
    def use_stays_within_the_limit(self):
        assert self.used() <= LIMIT

    @invariant()
    def nothing_is_left_behind(self):
        if hasattr(self, "semaphore"):
            now = self.semaphore.statistics()
            assert (now.leases, now.waiting) == (len(self.tasks), 0)
            assert now.reserved_bytes == sum(lease.bytes for lease in self.tasks)


TestTheorem = Machine.TestCase
TestTheorem.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestTheoremAtLength(Machine.TestCase):
    settings = settings(max_examples=600, stateful_step_count=60, deadline=None)
