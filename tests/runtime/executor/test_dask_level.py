"""A Dask cluster as the first level: a real scheduler and real workers, in processes of their own."""

import platform
import signal
import time
from pathlib import Path

import executor_jobs as jobs
import pytest
from dask_cluster import DaskCluster, wait_until

from pytest_membudget import ExecutorPolicy, FallbackExecutor, MemoryEstimator, OversizeError
from pytest_membudget.errors import UnpicklableError, UsageError

pytest.importorskip("distributed")
pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

HOST = platform.node()
SMALL = MemoryEstimator(gamma=1.0, overhead="8 MB")
LADDER = ("dask", "process", "thread", "sequential")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"))
    try:
        cluster.add_worker("350 MB")
        cluster.add_worker("700 MB")
        yield cluster
    finally:
        assert not cluster.close()


def on(cluster, levels=("dask",), **options):
    options.setdefault("estimator", SMALL)
    return FallbackExecutor(levels=levels, dask=cluster.scheduler_file, **options)


def both_workers(executor):
    """Has both workers taken, so that a test may choose between them."""
    executor.submit(int).result(60)
    wait_until(lambda: executor.submit(int).result(60) == 0 and executor.max_workers == 2)
    return {post.worker.capacity_bytes: post.worker for post in executor._engine.crew.posts}


def test_outcomes_peaks_and_hosts_come_back_in_order(cluster, tmp_path):
    paths = []
    for number in range(6):
        paths.append(tmp_path / f"{number}.bin")
        paths[-1].write_bytes(bytes(1000 * (number + 1)))
    with on(cluster) as executor:
        batch = executor.run(jobs.fill_by_name, paths)
        assert executor.events == ()
    assert batch.values == [40_000_000] * 6
    assert {outcome.level for outcome in batch.outcomes} == {"dask"}
    assert {outcome.host for outcome in batch.outcomes} == {HOST}
    assert all(39_000_000 < outcome.peak_bytes < 80_000_000 for outcome in batch.outcomes)
    (use,) = batch.hosts
    assert use.host == HOST
    assert use.tasks == 6
    assert 0 < use.peak_upper_bytes < use.budget_bytes


def test_what_was_learned_there_charges_the_next_call(cluster):
    with on(cluster) as executor:
        executor.submit(jobs.fill, 60_000_000).result(60)
        assert executor._engine.peaks.peak_bytes("executor_jobs:fill") > 59_000_000


def test_map_keeps_the_order_and_exceptions_are_the_callers(cluster):
    with on(cluster) as executor:
        assert list(executor.map(jobs.square, range(300))) == [number * number for number in range(300)]
        with pytest.raises(FileNotFoundError, match="mine") as caught:
            executor.submit(jobs.raise_named, "FileNotFoundError").result(60)
        assert HOST in "".join(caught.value.__notes__)


def test_larger_than_any_worker_is_refused_with_both_numbers(cluster):
    estimator = MemoryEstimator(gamma=1.0, overhead="5 GB")
    refused = pytest.raises(OversizeError, match=r"4\.66 GiB, more than the \d+ MiB that the largest worker")
    with on(cluster, estimator=estimator) as executor, refused:
        executor.submit(jobs.square, 3).result(60)


def test_larger_than_any_worker_may_run_alone(cluster):
    estimator = MemoryEstimator(gamma=1.0, overhead="5 GB")
    with on(cluster, estimator=estimator, policy=ExecutorPolicy(oversize="alone")) as executor:
        assert executor.submit(jobs.square, 3).result(60) == 9


def test_a_task_goes_to_a_worker_that_is_large_enough(cluster):
    with on(cluster, estimator=MemoryEstimator(gamma=1.0, overhead="300 MB")) as executor:
        (_, large) = sorted(both_workers_of(cluster).items())
        batch = executor.run(jobs.pid_after, [0.01] * 6)
    assert set(batch.values) == {large[1]}


def both_workers_of(cluster):
    with on(cluster) as executor:
        return {capacity: worker.who.pid for capacity, worker in both_workers(executor).items()}


def test_a_killed_worker_costs_one_repeat(cluster, tmp_path):
    with on(cluster) as executor:
        both_workers(executor)
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


def test_a_function_of_the_script_itself_travels(cluster):
    namespace = {"__name__": "__main__"}
    exec("def twice(number):\n    return 2 * number", namespace)
    with on(cluster) as executor:
        assert executor.submit(namespace["twice"], 21).result(60) == 42


def test_a_module_that_is_missing_there_is_named_with_the_host(cluster, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def job(number):\n    return number\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    with on(cluster) as executor, pytest.raises(UnpicklableError, match="only_here") as caught:
        executor.submit(only_here.job, 1).result(60)
    assert HOST in str(caught.value)


def test_a_file_that_is_missing_there_is_told_with_the_host(cluster, tmp_path):
    path = tmp_path / "here.txt"
    path.write_text("seen")
    with on(cluster) as executor:
        executor._engine.submit = removing(path, executor._engine.submit)
        (outcome,) = executor.run(jobs.read_text, [path]).outcomes
    assert isinstance(outcome.error, FileNotFoundError)
    assert HOST in str(outcome.error)


def removing(path, submit):
    def remove_and_submit(task):
        path.unlink()
        submit(task)

    return remove_and_submit


def test_small_files_travel_where_asked_for(cluster, tmp_path):
    path = tmp_path / "travels.txt"
    path.write_text("came along")
    with on(cluster, policy=ExecutorPolicy(send_files_up_to="1 kB")) as executor:
        batch = executor.run(jobs.name_and_text, [str(path)])
    name, text, folder = batch.values[0]
    assert (name, text) == ("travels.txt", "came along")
    assert folder != str(tmp_path)
    assert not Path(folder).exists()


def test_results_that_wait_are_bounded_in_the_worker(cluster):
    with on(cluster) as executor:
        assert [len(each) for each in executor.map(bytes, [700_000] * 40)] == [700_000] * 40


def test_the_initializer_runs_there_once(cluster):
    with on(cluster, initializer=jobs.remember, initargs=("ready",)) as executor:
        assert executor.submit(jobs.remembered).result(60) == ["ready"]


def test_a_worker_that_joins_later_is_used(cluster):
    with on(cluster) as executor:
        both_workers(executor)
        late = cluster.add_worker("400 MB")
        wait_until(lambda: len(set(executor.map(jobs.pid_after, [0.1] * 4))) == 3)
    late.send_signal(signal.SIGTERM)
    late.wait(30)


def test_without_the_scheduler_the_batch_goes_on_here(tmp_path):
    lonely = DaskCluster(tmp_path)
    try:
        lonely.add_worker("400 MB")
        with on(lonely, LADDER, max_workers=2) as executor:
            items = [(str(tmp_path), number) for number in range(30)]
            first = executor.submit(jobs.square, 2)
            assert first.result(60) == 4
            futures = [executor.submit(jobs.touch_and_wait, *item) for item in items]
            wait_until((tmp_path / "0").exists)
            lonely.scheduler.kill()
            assert [future.result(60) for future in futures] == list(range(30))
            assert executor.level == "process"
            (fallen,) = [event for event in executor.events if event.kind == "fallback"]
        assert "scheduler" in fallen.cause
        assert "process" in fallen.next_step
    finally:
        assert not lonely.close()


def test_nobody_at_the_address_means_the_next_level(monkeypatch):
    monkeypatch.setattr("pytest_membudget.runtime.executor.dask_level.CONNECT_S", 0.5)
    with FallbackExecutor(levels=("dask", "thread"), dask="tcp://127.0.0.1:1") as executor:
        assert executor.submit(jobs.square, 3).result(60) == 9
        assert "127.0.0.1:1" in executor.events[0].cause
    alone = FallbackExecutor(levels=("dask",), dask="tcp://127.0.0.1:1")
    with alone as executor, pytest.raises(RuntimeError, match=r"127\.0\.0\.1:1"):
        executor.submit(jobs.square, 3).result(60)


def test_workers_that_cannot_be_used_are_told_before_work_starts(tmp_path, monkeypatch):
    from pytest_membudget.runtime.executor import cluster_side

    small = DaskCluster(tmp_path)
    try:
        small.add_plain_worker()
        with (
            on(small) as executor,
            pytest.raises(RuntimeError, match=r"MEMORY.*membudget dask-worker .*scheduler.json"),
        ):
            executor.submit(jobs.square, 3).result(60)
        small.workers[0].kill()
        small.add_plain_worker("--resources", "MEMORY=500000000")
        here = cluster_side.versions()
        monkeypatch.setattr(cluster_side, "versions", lambda: (("Python", "2.7"), *here[1:]))
        with on(small) as executor, pytest.raises(RuntimeError, match=r"Python is 3.* there and 2\.7 here"):
            executor.submit(jobs.square, 3).result(60)
    finally:
        assert not small.close()


def test_wrong_arguments_are_named():
    with pytest.raises(UsageError, match="dask="):
        FallbackExecutor(levels=("dask", "process"))
    with pytest.raises(UsageError, match="first"):
        FallbackExecutor(levels=("process", "dask"), dask="tcp://127.0.0.1:1")
    with pytest.raises(UsageError, match="put 'dask' first"):
        FallbackExecutor(levels=("process",), dask="tcp://127.0.0.1:1")
    with pytest.raises(UsageError, match="scheduler"):
        FallbackExecutor(levels=("dask",), dask=17)


def test_ctrl_c_ends_what_runs_there_and_leaves_the_cluster(cluster):
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), on(cluster) as executor:
        both_workers(executor)
        future = executor.submit(jobs.hang, 1)
        wait_until(future.running)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 60
    with on(cluster) as executor:
        assert executor.submit(jobs.square, 5).result(60) == 25
