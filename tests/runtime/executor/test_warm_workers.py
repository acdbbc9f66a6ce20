"""Workers that keep what they have loaded: neither ended for nothing nor started where no room is for what they will keep."""

import executor_jobs as jobs
import pytest

from pytest_membudget import ExecutorPolicy, FallbackExecutor
from pytest_membudget.runtime.executor.flow_control import Reestimation
from pytest_membudget.runtime.executor.local_memory import LocalMemory, RetainedMemory
from pytest_membudget.runtime.executor.local_placement import LocalPlacement
from pytest_membudget.runtime.executor.state import Backend, Slot
from pytest_membudget.runtime.executor.worker_pool import FREE_BYTES, WorkerPool

MB = 1_000_000


def test_warm_workers_are_not_ended_again_and_again_for_a_tight_budget(tmp_path):
    paths = [tmp_path / f"{number}.csv" for number in range(40)]
    for path in paths:
        path.write_text("a,b\n")
    with FallbackExecutor(4, budget="250 MB") as executor:
        batch = executor.run(jobs.load_once, paths)
    assert (
        len(set(batch.values)) <= 12
    )  # four, and one for each that is started before any has ended its first task


def a_slot(backend=None, retained_mb=None, latest_mb=None):
    """A worker that has begun where it retains anything."""
    backend = backend or Backend(
        "process",
        LocalPlacement(LocalMemory(1000 * MB, max_overtakes=8)),
        own_memory=True,
    )
    slot = Slot(backend)
    if retained_mb is not None:
        slot.handed = 1.0
        slot.first_retained_bytes = slot.retained_bytes = retained_mb * MB
    if latest_mb is not None:
        slot.retained_bytes = latest_mb * MB
    return slot


def test_a_new_worker_is_expected_to_retain_what_the_latest_retain():
    retained = RetainedMemory()
    for first, latest in zip((10, 50, 60), (100, 120, 900), strict=True):
        retained.record(a_slot(None, first, latest), is_first=True)
    assert (retained.fresh_bytes, retained.expected_bytes) == (50 * MB, 120 * MB)


def test_of_two_workers_the_larger_counts_as_neither_can_be_called_an_outlier():
    retained = RetainedMemory()
    for latest in (100, 300):
        retained.record(a_slot(None, 10, latest), is_first=True)
    assert retained.expected_bytes == 300 * MB


def test_what_a_worker_retains_is_not_its_tasks():
    retained = RetainedMemory()
    slot = a_slot(None, 100)
    slot.base_bytes = 40 * MB  # by its initializer; what it holds is counted from there
    assert retained.task_bytes(slot, 130 * MB) == 30 * MB
    assert retained.task_bytes(a_slot(), 5) == 5


def test_a_worker_that_has_not_begun_holds_nothing_beside_its_tasks():
    retained = RetainedMemory()
    retained.record(a_slot(None, 100), is_first=True)
    assert retained.own_bytes(a_slot()) == 0


def test_a_calibrated_base_stays_what_it_is():
    retained = RetainedMemory(base_bytes=80 * MB)
    retained.record(a_slot(None, 200), is_first=True)
    assert retained.expected_bytes == retained.fresh_bytes == 80 * MB


def pool_of(*retained_mb, base_bytes=0):
    """Idle workers, and what is known of their memory."""
    memory = LocalMemory(1000 * MB, max_overtakes=8, base_bytes=base_bytes)
    backend = Backend("process", LocalPlacement(memory), own_memory=True)
    pool = WorkerPool([backend], ExecutorPolicy(), [], max_workers=4)
    for each in retained_mb:
        slot = a_slot(backend, each or None)
        pool.slots.append(slot)
        if each:
            memory.retained.record(slot, is_first=True)
    return pool, memory.retained


def aside_bytes(pool, retained):
    return sum(map(retained.charged_bytes, pool.slots))


def test_one_warm_worker_stays_where_room_is_made():
    pool, retained = pool_of(100, 120, 110)
    assert [slot.retained_bytes for slot in retained.surplus(pool)] == [120 * MB, 110 * MB]
    pool, retained = pool_of(100)
    assert retained.surplus(pool) == []


def test_a_worker_that_has_grown_is_no_loss():
    pool, retained = pool_of(100)
    pool.slots[0].retained_bytes = 400 * MB
    retained.record(pool.slots[0], is_first=False)
    assert retained.surplus(pool) == pool.slots
    assert retained.surplus(pool, leave_one=True) == []


def test_a_worker_started_ahead_that_has_loaded_nothing_costs_nothing_yet():
    pool, retained = pool_of(100, 0)
    assert retained.surplus(pool) == []
    assert aside_bytes(pool, retained) == 100 * MB - FREE_BYTES


def test_a_worker_is_charged_what_it_will_retain_when_it_begins():
    pool, retained = pool_of(100)
    assert retained.start_bytes(pool) == 0
    pool.slots[0].running.append("a task")
    assert retained.start_bytes(pool) == 100 * MB - FREE_BYTES
    begun = Slot(pool.levels.now)
    begun.handed = 1.0
    pool.slots.append(begun)
    assert aside_bytes(pool, retained) == 2 * (100 * MB - FREE_BYTES)


def test_a_calibrated_base_is_charged_from_the_start():
    pool, retained = pool_of(0, base_bytes=80 * MB)
    assert (aside_bytes(pool, retained), retained.start_bytes(pool)) == (80 * MB, 0)
    pool, retained = pool_of(base_bytes=80 * MB)
    assert (aside_bytes(pool, retained), retained.start_bytes(pool)) == (0, 80 * MB)


@pytest.mark.parametrize(("granted_mb", "workers"), [(920, 1), (921, 0)])
def test_a_worker_is_started_ahead_where_it_fits_beside_all_that_is_charged(granted_mb, workers):
    pool, _ = pool_of(base_bytes=80 * MB)
    ledger = pool.levels.now.memory.ledger
    ledger.submit(granted_mb * MB)
    ledger.grant()
    pool.start_ahead()
    assert len(pool.slots) == workers


@pytest.mark.parametrize(
    ("exceeding", "due"),
    [
        (range(0), [8, 16, 32, 64]),
        (range(1, 65), [1, 9, 17, 25, 33, 41, 49, 57]),
        (range(3, 4), [3, 8, 16, 32, 64]),
    ],
)
def test_tasks_that_wait_are_charged_again_now_and_then(exceeding, due):
    reestimation = Reestimation()
    seen = [number for number in range(1, 65) if reestimation.is_due(exceeded=number in exceeding)]
    assert seen == due


def test_workers_that_grow_are_charged_all_that_they_retain():
    pool, retained = pool_of(10, 10, 10)
    assert aside_bytes(pool, retained) == 0
    for slot in pool.slots:
        slot.retained_bytes = 30 * MB
    assert aside_bytes(pool, retained) == 90 * MB
