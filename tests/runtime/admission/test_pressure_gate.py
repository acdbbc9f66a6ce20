import logging

import pytest

from pytest_membudget import MemorySemaphore
from pytest_membudget.runtime.admission.budgets import PressureGate, budget_while_closed
from pytest_membudget.runtime.admission.host_ledger import HostClaim, HostClient, HostLedger, HostState, Owner

MB = 1_000_000


class Pressure:
    source = "/proc/pressure/memory"
    stalled = False

    def is_stalled(self):
        return self.stalled


@pytest.fixture
def pressure():
    return Pressure()


@pytest.fixture(params=["process", "host"])
def semaphore(request, host_directory, memory, pressure):
    return MemorySemaphore(
        scope=request.param, reading=memory.reading, own_bytes=memory.own, gate=PressureGate(pressure)
    )


def test_nothing_starts_beside_what_runs_while_tasks_stall(semaphore, pressure):
    with semaphore.reserve("1 GB"):
        assert semaphore.can_allocate("1 GB")
        pressure.stalled = True
        assert not semaphore.can_allocate("1 B")
        pressure.stalled = False
        assert semaphore.can_allocate("1 GB")


def test_something_always_runs(semaphore, pressure):
    pressure.stalled = True
    first = semaphore.acquire_nowait("1 GB")
    assert first is not None
    assert semaphore.acquire_nowait("1 GB") is None
    first.release()
    assert semaphore.acquire_nowait("1 GB") is not None


def test_under_pressure_those_who_wait_start_one_by_one(memory, pressure, clock):
    semaphore = MemorySemaphore(
        reading=memory.reading,
        own_bytes=memory.own,
        gate=PressureGate(pressure),
        clock=clock,
        wait=clock.wait,
    )
    memory.available_bytes = 0
    claims = [semaphore._submit(MB, exclusive=False) for _ in range(3)]
    memory.available_bytes = 8_192 * MB
    pressure.stalled = True
    assert semaphore.statistics().leases == 1
    assert semaphore.statistics().leases == 1
    semaphore._scope.release(claims[0])
    assert semaphore.statistics().leases == 1
    pressure.stalled = False
    assert semaphore.statistics().leases == 2


def test_each_closing_is_said_once_with_its_source(pressure, caplog):
    gate = PressureGate(pressure)
    with caplog.at_level(logging.WARNING, "pytest_membudget"):
        for stalled in (False, True, True, False, True):
            pressure.stalled = stalled
            assert gate.is_closed() == stalled
    assert len(caplog.records) == 2
    assert "10.0% or more of the last 2 s (/proc/pressure/memory)" in caplog.records[0].getMessage()


@pytest.mark.parametrize(("granted", "budget"), [(0, 100), (40, 40), (130, 100)])
def test_while_closed_the_budget_is_what_is_out_or_all_where_nothing_is(granted, budget):
    assert budget_while_closed(100, granted) == budget


def test_programs_that_wait_start_one_by_one_under_pressure():
    host = HostLedger(
        HostState(
            claims=[HostClaim(id=name, owner=Owner(1, 1.0), bytes=10) for name in "abc"],
            clients=[HostClient(id="one", owner=Owner(1, 1.0), budget_bytes=100, max_overtakes=4)],
        ),
        alive=lambda _: True,
        reading=None,
        is_closed=True,
    )
    host.grant()
    host.grant()
    assert [claim.id for claim in host.state.claims if claim.granted] == ["a"]
