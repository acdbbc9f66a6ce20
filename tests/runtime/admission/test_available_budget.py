import subprocess
import sys

import pytest

from pytest_membudget.measurement.process import children
from pytest_membudget.measurement.process.high_water import resident_bytes
from pytest_membudget.runtime.admission import budgets

MB = 1_000_000
GRANDPARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "block = bytearray(b'1') * 60_000_000; print('ready', flush=True); input()"])
"""


@pytest.mark.processes
@pytest.mark.parametrize("without_proc", [False, True])
def test_our_own_memory_is_that_of_all_processes_below_us(monkeypatch, without_proc):
    if without_proc:
        monkeypatch.setattr(children, "_LINUX", False)
    child = subprocess.Popen(
        [sys.executable, "-c", GRANDPARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout.readline() == b"ready\n"
        assert children.tree_resident_bytes() >= resident_bytes() / 2 + 60 * MB
    finally:
        child.communicate(b"\n")


def test_the_reserve_is_a_share_of_the_limit_and_never_makes_the_budget_negative(memory):
    available = budgets.AvailableBudget(memory.reading, own_bytes=memory.own)
    assert available.read(0) == 8_192 * MB - 3_276_800_000
    assert available.reserve_bytes == 3_276_800_000
    memory.available_bytes = 1
    assert available.read(0) == 0


@pytest.mark.parametrize(
    ("granted", "grown", "used", "resident"),
    [
        (100, 500, 500, 100),
        (500, 100, 500, 100),
        (500, 500, 100, 100),
        (500, -50, 500, 0),
        (500, 500, -50, 0),
    ],
)
def test_the_least_that_leases_can_fill_is_added_back(memory, granted, grown, used, resident):
    available = budgets.AvailableBudget(memory.reading, own_bytes=memory.own)
    memory.own_bytes = 70 * MB
    empty_bytes = available.read(0)
    memory.own_bytes += grown * MB
    memory.available_bytes -= used * MB
    assert available.read(granted * MB) == empty_bytes + (resident - used) * MB
    assert available.read(0) == empty_bytes - used * MB  # with no lease out all of it is others' use
    assert available.read(granted * MB) == empty_bytes - used * MB  # and nothing has grown since


def test_a_given_budget_is_never_read_from_the_machine(clock):
    def refuse():
        raise AssertionError("the machine was asked")

    budget = budgets.Budget(500 * MB, 0.7, refuse, clock)
    assert budget.is_fixed
    assert (budget.largest_bytes, budget.ceiling_bytes) == (500 * MB, 500 * MB)
    assert budget.now_bytes(lambda: 400 * MB) == 500 * MB


def test_a_measured_budget_is_read_four_times_a_second_and_goes_by_what_others_use(memory, clock):
    budget = budgets.Budget(None, 0.7, memory.reading, clock)
    assert not budget.is_fixed
    assert budget.ceiling_bytes == memory.total_bytes
    assert budget.largest_bytes == int(0.7 * memory.total_bytes)
    # Half of the machine is used, 1,000 MB of that by this executor's own workers.
    memory.own_bytes = 1000 * MB
    now_bytes = budget.largest_bytes - 8_192 * MB + 1000 * MB
    assert budget.now_bytes(memory.own) == now_bytes
    memory.available_bytes = 9_000 * MB
    assert budget.now_bytes(memory.own) == now_bytes
    clock.now_s += budgets.READ_EVERY_S
    assert budget.now_bytes(memory.own) == now_bytes + 808 * MB
