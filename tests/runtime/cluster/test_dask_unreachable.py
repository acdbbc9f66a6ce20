"""Clusters that cannot be used, or not any more: the next level goes on, or the error says why."""

import executor_jobs as jobs
import pytest

from dask_cluster import LADDER, DaskCluster, on
from pytest_membudget import FallbackExecutor, UsageError
from waiting import wait_until

pytest.importorskip("distributed")
pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.fixture
def lonely(tmp_path):
    """A scheduler without workers."""
    lonely = DaskCluster(tmp_path)
    try:
        yield lonely
    finally:
        assert not lonely.close()


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
    monkeypatch.setattr("pytest_membudget.runtime.cluster.connection.CONNECT_S", 0.2)
    with FallbackExecutor(levels=("dask", "thread"), dask="tcp://127.0.0.1:1") as executor:
        assert executor.submit(jobs.square, 3).result(60) == 9
        assert "127.0.0.1:1" in executor.events[0].cause
    alone = FallbackExecutor(levels=("dask",), dask="tcp://127.0.0.1:1")
    with alone as executor, pytest.raises(RuntimeError, match=r"127\.0\.0\.1:1"):
        executor.submit(jobs.square, 3).result(60)


def test_workers_that_cannot_be_used_are_told_before_work_starts(lonely, monkeypatch):
    from pytest_membudget.runtime.cluster import worker_side

    with monkeypatch.context() as hurry:
        hurry.setattr("pytest_membudget.runtime.cluster.membership.JOIN_S", 0.0)
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
    here = worker_side.versions()
    monkeypatch.setattr(worker_side, "versions", lambda: (("Python", "2.7"), *here[1:]))
    told = pytest.raises(RuntimeError, match=r"Python is 3.* there and 2\.7 here")
    with on(lonely) as executor, told:
        executor.submit(jobs.square, 3).result(60)


def test_wrong_arguments_are_named():
    with pytest.raises(UsageError, match="dask="):
        FallbackExecutor(levels=("dask", "process"))
    with pytest.raises(UsageError, match="first"):
        FallbackExecutor(levels=("process", "dask"), dask="tcp://127.0.0.1:1")
    with pytest.raises(UsageError, match="put 'dask' first"):
        FallbackExecutor(levels=("process",), dask="tcp://127.0.0.1:1")
    with pytest.raises(UsageError, match="scheduler"):
        FallbackExecutor(levels=("dask",), dask=17)
