"""Where the peak of a batch went, on real processes and on scripted readings."""

import executor_jobs as jobs
import pytest

from pytest_membudget import FallbackExecutor, measuring
from pytest_membudget.measurement.process.pss import SharedPages, proportional_bytes

PARTS = ("coordinator_bytes", "workers_base_bytes", "task_bytes", "waiting_results_bytes", "other_bytes")
MB = 1_000_000


def parts_of(breakdown):
    return {name: getattr(breakdown, name) for name in PARTS}


@pytest.mark.kernel
@pytest.mark.processes
@pytest.mark.parametrize("level", ["process", "thread", "sequential"])
def test_the_parts_add_up_to_the_measured_peak(level):
    with FallbackExecutor(2, budget="1 GB", levels=(level,)) as executor:
        executor.run(jobs.square, range(4))
        with measuring() as probe:
            batch = executor.run(jobs.hold_and_return, [(60 * MB, 3 * MB, 0.3)] * 6)
    breakdown = batch.breakdown
    parts = parts_of(breakdown)
    assert min(parts.values()) >= 0
    assert sum(parts.values()) == breakdown.peak_bytes == batch.peak_bytes
    assert breakdown.peak_bytes == pytest.approx(probe.measurement.total_peak_bytes, rel=0.03)
    assert breakdown.task_bytes >= 55 * MB


@pytest.mark.kernel
@pytest.mark.processes
def test_workers_base_and_waiting_results_are_told_apart():
    with FallbackExecutor(1, budget="1 GB") as executor:
        executor.run(jobs.square, range(4))
        batch = executor.run(jobs.hold_and_return, [(1 * MB, 20 * MB, 0.1)] * 6)
    parts = parts_of(batch.breakdown)
    assert parts["workers_base_bytes"] > 1 * MB
    assert 60 * MB <= parts["waiting_results_bytes"] <= 125 * MB


@pytest.mark.kernel
def test_the_shares_of_one_process_are_its_resident_memory_at_most():
    import os

    pages = SharedPages()
    held = pages.exact_holdings([os.getpid(), 2**22 + 1])
    assert list(held) == [os.getpid()]
    share_bytes = proportional_bytes(os.getpid())
    assert held[os.getpid()] == pytest.approx(share_bytes, rel=0.2)
