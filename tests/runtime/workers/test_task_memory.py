"""What a call takes in its worker, exactly or within the resolution. In fresh workers: the heap of a long session
reuses what it kept."""

import executor_jobs as jobs
import pytest

from pytest_membudget import FallbackExecutor
from pytest_membudget.runtime.workers.task_memory import RESOLUTION_BYTES, Collector

MB = 1_000_000
pytestmark = [pytest.mark.kernel, pytest.mark.processes]


@pytest.fixture
def in_fresh_worker():
    with FallbackExecutor(1, budget="1 GB", mp_context="spawn") as executor:
        yield lambda fn, *args: executor.submit(fn, *args).result()


@pytest.mark.parametrize(("exact", "within"), [(True, RESOLUTION_BYTES), (False, 2 * RESOLUTION_BYTES)])
def test_each_call_has_its_own_peak(in_fresh_worker, exact, within):
    sizes = [40 * MB, 0, 0, 10 * MB, 20 * MB, 0]
    peaks = in_fresh_worker(jobs.gauged_peaks, sizes, exact)
    if None in peaks:
        pytest.skip("this kernel has no mark that can be reset")
    assert peaks == [pytest.approx(size, abs=within) for size in sizes]


def test_what_is_kept_is_told(in_fresh_worker):
    assert in_fresh_worker(jobs.gauged_kept, 30 * MB) == pytest.approx(30 * MB, abs=2 * RESOLUTION_BYTES)


@pytest.mark.parametrize(("cost_s", "collections"), [(0.004, 40), (0.07, 6)])
def test_dear_collections_take_a_tenth_of_the_time(cost_s, collections):
    now = [0.0, 0.0]  # what has passed, and what was computed
    seen = []

    def collect():
        seen.append(now[0])
        now[:] = [each + cost_s for each in now]

    collector = Collector(collect, lambda: now[0], lambda: now[1])
    for _ in range(40):  # tasks of 100 ms
        now[0] += 0.1
        collector.collect()
    assert len(seen) == collections
