"""A Dask cluster as the first level: a real scheduler and real workers, in processes of their own."""

import importlib.util
import sys
from pathlib import Path

import executor_jobs as jobs
import pytest

from dask_cluster import HOST, all_workers, on
from pytest_membudget import ExecutorPolicy, FallbackExecutor, MemoryEstimator, OversizeError
from pytest_membudget.errors import UnpicklableError, UsageError

pytest.importorskip("distributed")
pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


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
    with on(cluster, estimator=MemoryEstimator(gamma=1.0, overhead="300 MB")) as executor:
        batch = executor.run(jobs.pid_after, [0.01] * 6)
        (_, (_, large)) = sorted(all_workers(executor).items())
    assert set(batch.values) == {large.who.pid}


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


def test_wrong_arguments_are_named():
    with pytest.raises(UsageError, match="dask="):
        FallbackExecutor(levels=("dask", "process"))
    with pytest.raises(UsageError, match="first"):
        FallbackExecutor(levels=("process", "dask"), dask="tcp://127.0.0.1:1")
    with pytest.raises(UsageError, match="put 'dask' first"):
        FallbackExecutor(levels=("process",), dask="tcp://127.0.0.1:1")
    with pytest.raises(UsageError, match="scheduler"):
        FallbackExecutor(levels=("dask",), dask=17)
