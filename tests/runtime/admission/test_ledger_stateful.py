"""The ledger under any sequence of calls, against a model that only counts."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pytest_membudget.runtime.admission.ledger import Ledger

MOST = 12
SIZES = st.integers(0, MOST)


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.waiting, self.live = [], []
        self.granted = self.released = 0
        self.overtaken = {}
        self.overran = False

    @initialize(budget=st.integers(1, MOST), max_overtakes=st.integers(0, 4))
    def open(self, budget, max_overtakes):
        self.budget, self.max_overtakes = budget, max_overtakes
        self.ledger = Ledger(budget, max_overtakes=max_overtakes, ceiling_bytes=MOST)

    @rule(size=SIZES, exclusive=st.booleans())
    def submit(self, size, exclusive):
        self.waiting.append(self.ledger.submit(size, exclusive=exclusive))
        self.grant()

    @precondition(lambda self: self.live)
    @rule(pick=st.integers(0))
    def release(self, pick):
        ticket = self.live.pop(pick % len(self.live))
        self.ledger.release(ticket)
        self.ledger.release(ticket)
        self.released += 1
        self.grant()

    @precondition(lambda self: self.waiting)
    @rule(pick=st.integers(0))
    def cancel(self, pick):
        self.ledger.cancel(self.waiting.pop(pick % len(self.waiting)))
        self.grant()

    @precondition(lambda self: self.live)
    @rule(pick=st.integers(0), resident=st.integers(0, MOST + 5))
    def charge(self, pick, resident):
        self.ledger.charge(self.live[pick % len(self.live)], resident)
        self.grant()

    @rule(budget=st.integers(0, MOST))
    def set_budget(self, budget):
        self.budget = budget
        self.ledger.set_budget(budget)
        self.grant()

    def head(self):
        return next(
            (ticket for ticket in self.waiting if ticket.exclusive or ticket.bytes <= self.budget), None
        )

    def grant(self):
        predicted = self.ledger.would_grant(1)
        started = self.ledger.grant()
        assert not (started and self.live and any(ticket.exclusive for ticket in self.live))
        for ticket in started:
            head = self.head()
            if ticket is not head:
                self.overtaken[head] = self.overtaken.get(head, 0) + 1
                assert self.overtaken[head] <= self.max_overtakes
            self.waiting.remove(ticket)
            self.live.append(ticket)
            self.granted += 1
            if ticket.exclusive:
                assert self.live == [ticket]
        if started and not started[-1].exclusive:
            assert self.charged() <= self.budget
        if not started and predicted:
            assert self.charged() + 1 <= self.budget

    def charged(self):
        return sum(ticket.charge_bytes for ticket in self.live)

    @invariant()
    def the_book_agrees_with_what_is_out(self):
        now = self.ledger.statistics()
        assert now.reserved_bytes == self.charged()
        assert now.leases == len(self.live) == self.granted - self.released
        assert now.waiting == len(self.waiting)
        assert now.exclusive == any(ticket.exclusive for ticket in self.live)
        assert all(ticket.charge_bytes >= ticket.bytes for ticket in self.live)

    @invariant()
    def an_empty_ledger_with_somebody_it_can_hold_has_granted(self):
        if not self.live:
            assert self.head() is None

    @invariant()
    def the_head_waits_only_because_it_does_not_fit(self):
        head = self.head()
        if head is not None and not any(ticket.exclusive for ticket in self.live):
            assert self.live if head.exclusive else self.charged() + head.bytes > self.budget


class GivenBudgetMachine(LedgerMachine):
    """Without overruns and with a fixed budget, what is out never exceeds it, at any time."""

    set_budget = None
    charge = None

    @invariant()
    def reserved_is_within_the_budget_or_one_runs_alone(self):
        alone = [ticket for ticket in self.live if ticket.exclusive]
        assert self.charged() <= self.budget or self.live == alone


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestGivenBudget = GivenBudgetMachine.TestCase
TestGivenBudget.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestLedgerAtLength(LedgerMachine.TestCase):
    settings = settings(
        max_examples=600, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
    )
