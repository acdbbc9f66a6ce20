"""The host's ledger under any sequence of calls by several programs, each of which may be killed at any step."""

import collections

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pytest_membudget import OversizeError
from pytest_membudget.runtime.admission.host_ledger import HostClaim, HostClient, HostLedger, HostState
from pytest_membudget.runtime.admission.host_state_file import Owner

PROGRAMS = st.integers(0, 3)


def nobody_measures():
    raise AssertionError


def nothing(ledger):
    """Only looks; the dead are reaped and the living granted all the same."""


class HostMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.file = msgspec.json.encode(HostState())
        self.alive = {}
        self.pids = 0
        self.names = 0
        self.granted, self.ended = set(), set()
        self.overtaken = collections.Counter()

    @initialize(budgets=st.lists(st.integers(1, 10), min_size=4, max_size=4), max_overtakes=st.integers(0, 3))
    def begin(self, budgets, max_overtakes):
        self.budgets, self.max_overtakes = budgets, max_overtakes
        for program in range(4):
            self.start(program)

    @rule(program=PROGRAMS)
    def start(self, program):
        if program not in self.alive:
            self.pids += 1
            self.alive[program] = Owner(self.pids, float(self.pids))
            self.transaction(program, nothing)

    @precondition(lambda self: self.alive)
    @rule(
        program=PROGRAMS,
        size=st.integers(0, 12),
        exclusive=st.booleans(),
        killed=st.sampled_from(["", "before", "after"]),
    )
    def submit(self, program, size, exclusive, killed):
        if program not in self.alive:
            return
        self.names += 1
        claim = HostClaim(id=str(self.names), owner=self.alive[program], bytes=size, exclusive=exclusive)
        if killed != "before":
            try:
                self.transaction(program, lambda ledger: ledger.submit(claim))
            except OversizeError:
                assert size > min(self.budgets[each] for each in self.alive)
        if killed:
            self.kill(program)

    @rule(program=PROGRAMS, pick=st.integers(0))
    def remove(self, program, pick):
        claims = [claim for claim in self.state().claims if claim.owner == self.alive.get(program)]
        if claims:
            chosen = claims[pick % len(claims)].id
            self.transaction(program, lambda ledger: ledger.remove(chosen))

    @rule(program=PROGRAMS)
    def kill(self, program):
        self.alive.pop(program, None)

    @rule(program=PROGRAMS)
    def look(self, program):
        if program in self.alive:
            self.transaction(program, nothing)

    def state(self):
        return msgspec.json.decode(self.file, type=HostState)

    def transaction(self, program, change):
        """What a program does with the file; when it returns, the file has been replaced."""
        state = self.state()
        before = {claim.id for claim in state.claims if claim.granted}
        ledger = HostLedger(state, alive=set(self.alive.values()).__contains__, reading=nobody_measures)
        ledger.add_client(
            HostClient(
                id=f"client {program}",
                owner=self.alive[program],
                budget_bytes=self.budgets[program],
                max_overtakes=self.max_overtakes,
            )
        )
        change(ledger)
        ledger.grant()
        self.file = msgspec.json.encode(state)
        self.check(state, before)

    def check(self, state, before):
        living = set(self.alive.values())
        assert {claim.owner for claim in state.claims} <= living, "the dead are reaped on every path"
        assert {client.owner for client in state.clients} <= living
        out = [claim for claim in state.claims if claim.granted]
        waiting = [claim for claim in state.claims if not claim.granted]
        budget = min(client.budget_bytes for client in state.clients)
        if {claim.id for claim in out} - before:
            assert sum(claim.bytes for claim in out) <= budget or (len(out) == 1 and out[0].exclusive)
        if any(claim.exclusive for claim in out):
            assert len(out) == 1
        if not out:
            assert not [claim for claim in waiting if claim.exclusive or claim.bytes <= budget]
        self.count_overtakes(state.claims, budget, before)
        self.granted |= {claim.id for claim in out}
        self.ended |= self.granted - {claim.id for claim in out}

    def count_overtakes(self, claims, budget, before):
        """What started now from behind the first that waits has overtaken it: while it waits, it never fits."""
        head = next(
            (claim for claim in claims if not claim.granted and (claim.exclusive or claim.bytes <= budget)),
            None,
        )
        if head is not None:
            behind = claims[claims.index(head) + 1 :]
            self.overtaken[head.id] += sum(claim.granted and claim.id not in before for claim in behind)
            assert self.overtaken[head.id] <= self.max_overtakes

    @invariant()
    def grants_less_releases_and_reaps_are_the_live_leases(self):
        out = {claim.id for claim in self.state().claims if claim.granted}
        assert out == self.granted - self.ended


TestHost = HostMachine.TestCase
TestHost.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
