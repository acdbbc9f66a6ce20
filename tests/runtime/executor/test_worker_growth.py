"""Do worker processes hold more after each task? On real workers, and the log of their readings on scripted ones."""

import executor_jobs as jobs
import pytest

from pytest_membudget import FallbackExecutor
from pytest_membudget.runtime.executor.journal import MOST_POINTS, MOST_WORKERS, HeapLog, growth_in_workers
from pytest_membudget.runtime.workers.protocol import HeapReading

TASKS = 40


def growth_of(fn, tasks=TASKS):
    with FallbackExecutor(1, budget="1 GB") as executor:
        return executor.run(fn, range(tasks))


@pytest.mark.kernel
@pytest.mark.processes
def test_a_leak_in_a_worker_is_found_and_told():
    batch = growth_of(jobs.keep_100_kb)
    assert batch.growth.verdict == "leak"
    assert batch.growth.label == "keep_100_kb"
    assert batch.growth.bytes_per_call == pytest.approx(100_000, rel=0.05)
    assert [worker.verdict for worker in batch.worker_growth] == ["leak"]
    assert "growth in workers: leak" in str(batch)


@pytest.mark.kernel
@pytest.mark.processes
@pytest.mark.parametrize("fn", [jobs.keep_nothing, jobs.warm_up, jobs.leave_cycles])
def test_workers_that_keep_no_more_are_clean(fn):
    batch = growth_of(fn)
    assert batch.growth.verdict == "clean"
    assert "growth in workers: clean" in str(batch)


@pytest.mark.kernel
@pytest.mark.processes
def test_a_cache_that_is_still_filling_is_not_accused():
    assert growth_of(jobs.warm_up, tasks=6).growth.verdict == "inconclusive"


@pytest.mark.kernel
@pytest.mark.processes
def test_too_few_tasks_say_that_it_is_not_known_yet():
    batch = growth_of(jobs.keep_100_kb, tasks=10)
    assert batch.growth.verdict == "inconclusive"
    assert "a verdict takes 16" in batch.growth.caveats[0]


@pytest.mark.kernel
@pytest.mark.processes
def test_a_batch_is_judged_by_its_own_tasks():
    with FallbackExecutor(1, budget="1 GB") as executor:
        assert executor.run(jobs.keep_100_kb, range(24)).growth.verdict == "leak"
        assert executor.run(jobs.keep_nothing, range(24)).growth.verdict == "clean"


@pytest.mark.kernel
@pytest.mark.processes
def test_calls_that_were_submitted_are_judged_by_the_executor():
    with FallbackExecutor(1, budget="1 GB") as executor:
        list(executor.map(jobs.keep_100_kb, range(TASKS)))
        assert executor.growth.verdict == "leak"


def test_threads_have_no_memory_of_their_own_to_judge():
    with FallbackExecutor(1, levels=("thread",)) as executor:
        batch = executor.run(jobs.keep_nothing, range(20))
    assert (batch.growth, batch.worker_growth) == (None, ())
    assert "growth" not in str(batch)


def test_the_log_forgets_the_oldest_worker_and_thins_long_series():
    log = HeapLog()
    for pid in range(MOST_WORKERS + 1):
        log.record(pid, HeapReading(0, 100))
    assert 0 not in log.latest()
    assert len(log.latest()) == MOST_WORKERS
    for tasks in range(1, 3 * MOST_POINTS):
        log.record(7, HeapReading(tasks, 100))
    readings = log.since({})[7]
    assert len(readings) <= MOST_POINTS
    assert (readings[0].tasks, readings[-1].tasks) == (0, 3 * MOST_POINTS - 1)


def test_a_process_with_the_number_of_an_earlier_one_begins_a_series_of_its_own():
    log = HeapLog()
    for tasks in (0, 1, 2, 0, 1):
        log.record(7, HeapReading(tasks, 100))
    assert [reading.tasks for reading in log.since({})[7]] == [0, 1]


def test_only_what_came_after_a_moment_is_given():
    log = HeapLog()
    for pid in (1, 2):
        for tasks in range(5):
            log.record(pid, HeapReading(tasks, 100))
    before = log.latest()
    log.record(2, HeapReading(5, 100))
    assert {pid: [each.tasks for each in found] for pid, found in log.since(before).items()} == {2: [4, 5]}


def test_without_workers_there_is_no_verdict():
    assert growth_in_workers({}) == (None, ())
