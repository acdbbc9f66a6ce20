"""A Dask cluster as the first level: a real scheduler and real workers, in processes of their own."""

import importlib.util
import signal
import sys
import time
from pathlib import Path

import executor_jobs as jobs
import pytest
from slow_link import SlowLink

from dask_cluster import HOST, LADDER, SMALL, DaskCluster, all_workers, children, on
from pytest_membudget import ExecutorPolicy, FallbackExecutor, MemoryEstimator, OversizeError
from pytest_membudget.errors import UnpicklableError
from waiting import is_alive, wait_until

pytest.importorskip("distributed")
pytestmark = [pytest.mark.processes, pytest.mark.timeout(180), pytest.mark.xdist_group(__name__)]

LINK_S = 0.03


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers of different size, each with a nanny that restarts it; it takes seconds, so all tests share it.

    A test before may have killed one: where both are needed, wait for `all_workers`.
    """
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"))
    try:
        cluster.add_worker("350 MB")
        cluster.add_worker("700 MB")
        yield cluster
    finally:
        assert not cluster.close()


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
    assert f"\n{use}" in str(batch)


@pytest.mark.usefixtures("beside_no_shared_memory")
def test_what_a_call_starts_there_is_in_its_figures(cluster):
    with on(cluster) as executor:
        (outcome,) = executor.run(jobs.fill_in_a_program, [60_000_000]).outcomes
    assert outcome.level == "dask"
    assert 57_000_000 < outcome.peak_bytes <= outcome.peak_upper_bytes < 120_000_000
    assert outcome.value == 0


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


def test_a_client_of_the_caller_names_the_cluster_too_and_stays_open(cluster):
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client:
        with FallbackExecutor(levels=("dask",), dask=client) as executor:
            assert executor.submit(jobs.square, 3).result(60) == 9
        assert client.submit(jobs.square, 4).result(60) == 16


@pytest.mark.usefixtures("only_this_plugin")
def test_the_report_of_a_session_shows_the_hosts_that_its_batches_used(cluster, pytester):
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.parametrize("fallback_executor", [{{"dask": {cluster.address!r}}}], indirect=True, ids=["there"])
        def test_job(fallback_executor):
            assert fallback_executor.run(abs, [-1, -2, -3, -4, -5]).values == [1, 2, 3, 4, 5]
        """
    )
    with on(cluster) as executor:
        all_workers(executor)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--membudget-report")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["Hosts of the batches", f"*test_job?there? *{HOST} *2 *5 *iB *iB"])


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
    with on(cluster) as executor:
        (_, (_, large)) = sorted(all_workers(executor).items())
        in_300_mb = executor.options(memory="300 MB")
        assert {in_300_mb.submit(jobs.pid_after, 0.01).result(60) for _ in range(6)} == {large.who.pid}


def test_a_function_of_the_script_itself_travels(cluster):
    namespace = {"__name__": "__main__"}
    exec("def twice(number):\n    return 2 * number", namespace)
    with on(cluster) as executor:
        assert executor.submit(namespace["twice"], 21).result(60) == 42


def test_a_module_that_no_path_leads_to_travels_by_value(cluster, tmp_path, monkeypatch):
    path = tmp_path / "test_it.py"
    path.write_text("def job(number): return number, __name__\n")
    spec = importlib.util.spec_from_file_location("tests.test_it", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tests.test_it", module)
    spec.loader.exec_module(module)
    with on(cluster) as executor:
        assert executor.submit(module.job, 7).result(60) == (7, "tests.test_it")


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
    def remove_and_submit(task, *when_done):
        path.unlink()
        return submit(task, *when_done)

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
