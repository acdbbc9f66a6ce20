"""What can go wrong with a cluster: real processes are killed, links are slow or cut."""

import signal
import time

import executor_jobs as jobs
import pytest
from slow_link import SlowLink

from dask_cluster import HOST, LADDER, SMALL, DaskCluster, all_workers, children, is_alive, on, wait_until
from pytest_membudget import ExecutorPolicy, FallbackExecutor, MemoryEstimator

pytest.importorskip("distributed")
pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

LINK_S = 0.03


@pytest.fixture
def lonely(tmp_path):
    """A scheduler without workers."""
    lonely = DaskCluster(tmp_path)
    try:
        yield lonely
    finally:
        assert not lonely.close()


def test_a_killed_worker_costs_one_repeat(cluster, tmp_path):
    with on(cluster) as executor:
        all_workers(executor)
        items = [str(tmp_path / "marker"), *range(20)]
        batch = executor.run(jobs.die_once_or_square, items)
    assert batch.values[1:] == [number * number for number in range(20)]
    assert batch.outcomes[0].attempts == 2
    assert {outcome.attempts for outcome in batch.outcomes[1:]} == {1}
    assert [event.kind for event in batch.events] == ["worker-killed"]
    assert HOST in batch.events[0].cause


def test_a_task_that_always_kills_is_reported_and_the_others_are_not(cluster):
    with on(cluster, policy=ExecutorPolicy(retries=1)) as executor:
        batch = executor.run(jobs.die_at_seven, range(12))
    assert [outcome.cause for outcome in batch.outcomes] == ["ok"] * 7 + ["killed"] + ["ok"] * 4


def test_past_its_time_a_task_ends_with_its_worker(cluster):
    with on(cluster, policy=ExecutorPolicy(timeout_s=1.5)) as executor:
        with pytest.raises(TimeoutError):
            executor.submit(jobs.hang, 1).result(60)
        assert executor.submit(jobs.square, 4).result(60) == 16


def test_a_worker_that_nobody_starts_anew_is_ended_too(cluster):
    only = cluster.add_plain_worker("--resources", "MEMORY=1500000000")
    larger_than_the_others = MemoryEstimator(gamma=1.0, overhead="900 MB")
    with on(cluster, estimator=larger_than_the_others, policy=ExecutorPolicy(timeout_s=0.5)) as executor:
        wait_until(lambda: executor.submit(int).exception(60) is None)
        with pytest.raises(TimeoutError):
            executor.submit(jobs.hang, 1).result(60)
    assert only.wait(30) == 1


def test_a_worker_that_joins_later_over_a_slow_link_is_used_and_ends_when_asked(cluster):
    with on(cluster) as executor, SlowLink(cluster.address, LINK_S) as link:
        all_workers(executor)
        late = cluster.add_worker("400 MB", link.address)
        wait_until(lambda: len(set(executor.map(jobs.pid_after, [0.1] * 4))) == 3)
        below = children(late.pid)
        late.send_signal(signal.SIGTERM)
        late.wait(30)
        wait_until(lambda: not any(is_alive(child) for child in below))


def test_a_slow_link_to_the_scheduler_only_costs_time(cluster):
    with (
        SlowLink(cluster.address, LINK_S) as link,
        FallbackExecutor(levels=LADDER, dask=link.address, estimator=SMALL) as executor,
    ):
        batch = executor.run(jobs.square, range(60))
        assert executor.events == ()
    assert batch.values == [number * number for number in range(60)]
    assert {(outcome.level, outcome.attempts) for outcome in batch.outcomes} == {("dask", 1)}


def test_a_link_that_breaks_counts_as_a_lost_scheduler(cluster, tmp_path):
    with (
        SlowLink(cluster.address, LINK_S) as link,
        FallbackExecutor(levels=("dask", "thread"), dask=link.address, estimator=SMALL) as executor,
    ):
        assert executor.submit(jobs.square, 2).result(60) == 4
        futures = [executor.submit(jobs.touch_and_wait, str(tmp_path), number) for number in range(20)]
        wait_until((tmp_path / "0").exists)
        link.cut()
        assert [future.result(60) for future in futures] == list(range(20))
        (fallen,) = [event for event in executor.events if event.kind == "fallback"]
    assert "the connection was lost" in fallen.cause


def test_without_the_scheduler_the_batch_goes_on_here(lonely, tmp_path):
    lonely.add_plain_worker("--resources", "MEMORY=400000000")
    with on(lonely, LADDER, max_workers=2) as executor:
        assert executor.submit(jobs.square, 2).result(60) == 4
        futures = [executor.submit(jobs.touch_and_wait, str(tmp_path), number) for number in range(20)]
        wait_until((tmp_path / "0").exists)
        lonely.scheduler.kill()
        assert [future.result(60) for future in futures] == list(range(20))
        assert executor.level == "process"
        (fallen,) = [event for event in executor.events if event.kind == "fallback"]
    assert "scheduler" in fallen.cause
    assert "process" in fallen.next_step


def test_nobody_at_the_address_means_the_next_level(monkeypatch):
    monkeypatch.setattr("pytest_membudget.runtime.executor.dask_link.CONNECT_S", 0.2)
    with FallbackExecutor(levels=("dask", "thread"), dask="tcp://127.0.0.1:1") as executor:
        assert executor.submit(jobs.square, 3).result(60) == 9
        assert "127.0.0.1:1" in executor.events[0].cause
    alone = FallbackExecutor(levels=("dask",), dask="tcp://127.0.0.1:1")
    with alone as executor, pytest.raises(RuntimeError, match=r"127\.0\.0\.1:1"):
        executor.submit(jobs.square, 3).result(60)


def test_workers_that_cannot_be_used_are_told_before_work_starts(lonely, monkeypatch):
    from pytest_membudget.runtime.executor import cluster_side

    with monkeypatch.context() as hurry:
        hurry.setattr("pytest_membudget.runtime.executor.dask_reception.JOIN_S", 0.0)
        told = pytest.raises(RuntimeError, match=r"no worker joined .* within 0 s; .* membudget dask-worker")
        with on(lonely) as executor, told:
            executor.submit(jobs.square, 3).result(60)
    without = lonely.add_plain_worker()
    told = pytest.raises(RuntimeError, match=r"MEMORY.*membudget dask-worker .*scheduler.json")
    with on(lonely) as executor, told:
        executor.submit(jobs.square, 3).result(60)
    without.kill()
    without.wait()
    lonely.add_plain_worker("--resources", "MEMORY=500000000")
    here = cluster_side.versions()
    monkeypatch.setattr(cluster_side, "versions", lambda: (("Python", "2.7"), *here[1:]))
    told = pytest.raises(RuntimeError, match=r"Python is 3.* there and 2\.7 here")
    with on(lonely) as executor, told:
        executor.submit(jobs.square, 3).result(60)


def test_ctrl_c_ends_what_runs_there_and_leaves_the_cluster(cluster):
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), on(cluster) as executor:
        all_workers(executor)
        future = executor.submit(jobs.hang, 1)
        wait_until(future.running)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 60
    with on(cluster) as executor:
        assert executor.submit(jobs.square, 5).result(60) == 25
