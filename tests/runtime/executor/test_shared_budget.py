"""Executors that lease what their tasks take from the budget of the host."""

import os
import threading
import time
from concurrent.futures import Future

import pytest
from executor_jobs import square_slowly
from scripted_scheduler import Fixed, Played, a_task, only

from pytest_membudget import (
    FallbackExecutor,
    MemoryEstimator,
    MemorySemaphore,
    OversizeError,
    UnreadableFileError,
)
from pytest_membudget.records.measurement import MemoryLimit, MemoryReading
from pytest_membudget.runtime.admission.host_scope import host_status
from pytest_membudget.runtime.admission.host_share import GroupShare
from pytest_membudget.runtime.executor import engine as engine_module
from pytest_membudget.runtime.executor.placement import Demand
from pytest_membudget.runtime.executor.state import Stop
from waiting import wait_until

MB = 1_000_000


class Shared(Played):
    """A scheduler whose budget other programs share: what it holds of it is what a test grants."""

    def __init__(self, largest_bytes=100, workers=2, **policy):
        super().__init__(largest_bytes, workers, is_shared=True, **policy)
        self.largest_bytes = largest_bytes

    def grant(self, size_bytes):
        self.scheduler.budget_changed(size_bytes, self.largest_bytes)
        return self.decided()


def test_nothing_starts_before_the_host_has_granted_it():
    played = Shared()
    first, second = a_task(40), a_task(40)
    played.submit(first, second)
    assert played.running == []
    assert played.scheduler.demand() == Demand(0, 40, 80)
    played.grant(50)
    assert played.running == [first]
    assert played.scheduler.demand() == Demand(40, 40, 80)
    played.grant(80)
    assert played.running == [first, second]
    assert played.scheduler.demand() == Demand(80, 0, 80)


@pytest.mark.parametrize(("largest_bytes", "started"), [(80, 2), (79, 1)])
def test_of_a_shared_budget_the_whole_must_hold_four_times_the_charges_of_calls_that_start_together(
    largest_bytes, started
):
    played = Shared(largest_bytes)
    tasks = [a_task() for _ in range(2)]
    for task in tasks:
        task.charge = Fixed(10, calls_seen=1)
    played.submit(*tasks)
    played.grant(20)
    assert played.running == tasks[:started]


def test_it_asks_for_no_more_than_its_free_workers_can_start():
    played = Shared(workers=2)
    played.submit(*[a_task(10) for _ in range(50)])
    assert played.scheduler.demand() == Demand(0, 10, 20)


def test_a_task_that_runs_alone_waits_for_the_whole_budget():
    played = Shared(oversize="alone")
    alone = a_task(500)
    played.submit(alone)
    played.grant(99)
    assert played.running == []
    played.grant(100)
    assert played.running == [alone]


def test_idle_workers_are_stopped_when_another_program_waits_for_what_they_keep():
    played = Shared()
    task = a_task(40)
    played.submit(task)
    played.grant(40)
    played.returned(task)
    assert len(played.scheduler.pool.slots) == 1
    played.scheduler.pool.stop_idle()
    assert len(only(played.decided(), Stop)) == 1
    assert played.scheduler.pool.slots == []


@pytest.fixture
def other(host_directory):
    return MemorySemaphore("300 MB", scope="host")


@pytest.fixture
def executor(host_directory):
    with FallbackExecutor(
        2, budget="300 MB", scope="host", levels=("thread",), estimator=MemoryEstimator(0, "100 MB")
    ) as executor:
        yield executor


def test_its_tasks_wait_for_what_another_program_holds(executor, other):
    lease = other.reserve("250 MB")
    future = executor.submit(abs, -3)
    wait_until(lambda: other.statistics().waiting == 1)
    assert not future.done()
    lease.release()
    assert future.result(30) == 3


def test_while_its_tasks_run_their_memory_is_reserved_and_then_it_is_free(executor, other):
    go_on = Future()
    future = executor.submit(go_on.result)
    wait_until(lambda: other.statistics().reserved_bytes == 100 * MB)
    assert not other.can_allocate("250 MB")
    go_on.set_result(7)
    assert future.result(30) == 7
    wait_until(lambda: other.statistics().reserved_bytes == 0)


@pytest.fixture
def caller(host_directory):
    with FallbackExecutor(
        budget="300 MB", scope="host", levels=("sequential",), estimator=MemoryEstimator(0, "100 MB")
    ) as executor:
        yield executor


def test_a_task_in_its_caller_leases_from_the_host_and_gives_it_back_at_once(caller, other):
    def reserved():
        return other.statistics().reserved_bytes

    assert caller.submit(reserved).result() == 100 * MB
    assert reserved() == 0
    assert caller.submit(lambda: caller.submit(reserved).result()).result() == 100 * MB + 1024 * 1024
    assert reserved() == 0


def test_a_task_in_its_caller_waits_for_what_another_program_holds(caller, other):
    lease = other.reserve("250 MB")
    done = []
    waiting = threading.Thread(target=lambda: done.append(caller.submit(abs, -3).result()))
    waiting.start()
    wait_until(lambda: other.statistics().waiting == 1)
    assert done == []
    lease.release()
    waiting.join(30)
    assert done == [3]


def test_closed_its_limit_counts_no_longer(host_directory):
    large = MemorySemaphore("1 GB", scope="host", name="nightly")
    with FallbackExecutor(1, budget="300 MB", scope="host", name="nightly", levels=("thread",)) as executor:
        assert executor.submit(abs, -3).result(30) == 3
        assert large.statistics().budget_bytes == 300 * MB
    wait_until(lambda: large.statistics().budget_bytes == 1000 * MB)


def test_a_task_larger_than_the_smallest_budget_is_refused_with_both_numbers(host_directory):
    small = MemorySemaphore("50 MB", scope="host")
    with (
        FallbackExecutor(
            1, budget="1 GB", scope="host", levels=("thread",), estimator=MemoryEstimator(0, "100 MB")
        ) as executor,
        pytest.raises(OversizeError, match=r"95\.4 MiB, more than the whole budget of 47\.7 MiB"),
    ):
        executor.submit(abs, -3).result(30)
    small.close()


@pytest.mark.parametrize(
    ("options", "said"), [({"scope": "galaxy"}, "scope is"), ({"name": "nightly"}, "name is 'nightly'")]
)
def test_a_nonsense_scope_is_named(options, said):
    with pytest.raises(ValueError, match=said):
        FallbackExecutor(1, **options)


@pytest.mark.processes
def test_two_executors_never_run_more_together_than_the_budget_holds(host_directory, tmp_path, other):
    policy = {"scope": "host", "budget": "300 MB", "estimator": MemoryEstimator(0, "100 MB")}
    with FallbackExecutor(3, **policy) as one, FallbackExecutor(3, **policy) as two:
        futures = [executor.submit(square_slowly, n) for n in range(6) for executor in (one, two)]
        most_bytes = 0
        while not all(future.done() for future in futures):
            most_bytes = max(most_bytes, other.statistics().reserved_bytes)
            time.sleep(0.01)
        assert [future.result() for future in futures] == [n * n for n in range(6) for _ in range(2)]
    assert 100 * MB <= most_bytes <= 300 * MB


@pytest.mark.usefixtures("host_directory")
def test_programs_of_one_control_group_that_name_no_budget_share_what_is_free(monkeypatch):
    group = MemoryLimit(1000 * MB, "cgroup v2 /pod memory.max")
    with FallbackExecutor(1) as executor:
        unnamed = executor._engine.settings._replace(
            reading=lambda: MemoryReading(limit=group, available_bytes=0)
        )
    budget = engine_module._budget(unnamed)
    assert isinstance(budget.share, GroupShare)
    assert (budget.largest_bytes, budget.ceiling_bytes) == (700 * MB, 1000 * MB)
    monkeypatch.setattr(engine_module, "ancestors", lambda _: [os.getpid()])
    assert engine_module._budget(unnamed).share is None, "it would wait for the task that it is part of"
    budget.share.close()
    assert engine_module._budget(unnamed._replace(budget_bytes=50 * MB)).share is None


@pytest.mark.usefixtures("host_directory")
def test_a_shared_budget_that_turns_out_to_be_unreadable_is_given_back(monkeypatch):
    source = "cgroup v2 /pod memory.max"
    with FallbackExecutor(1, budget="1 GB") as executor:
        reading = MemoryReading(limit=MemoryLimit(1000 * MB, source), available_bytes=0)
        unnamed = executor._engine.settings._replace(budget_bytes=None, reading=lambda: reading)

    def unreadable(*_):
        raise UnreadableFileError("no state of ours")

    monkeypatch.setattr(engine_module.HostScope, "is_within", unreadable)
    assert engine_module._budget(unnamed).share is None
    assert host_status(source).programs == 0
