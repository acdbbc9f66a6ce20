"""joblib's backend: its own tests of a backend, scikit-learn unchanged, and the budget."""

import inspect
import multiprocessing
import os
import time
from typing import NamedTuple

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed

import pytest_membudget.joblib as ours
from pytest_membudget import FallbackExecutor

pytestmark = pytest.mark.processes
MB = 1_000_000
takes_options = pytest.mark.skipif(
    "backend_kwargs" not in inspect.signature(Parallel).parameters,
    reason="joblib 1.5 hands options on to a backend",
)


@pytest.fixture
def theirs(pytestconfig):
    """joblib's tests; they use a marker of their own."""
    pytestconfig.addinivalue_line("markers", "thread_unsafe: joblib's own")
    from joblib.test import test_parallel

    return test_parallel


@pytest.fixture(autouse=True)
def leave_no_workers():
    yield
    ours.shut_down_workers()


def take(size_bytes):
    block = bytearray(b"1") * size_bytes
    time.sleep(0.02)
    return os.getpid(), len(block)


def span(size_bytes):
    began_s = time.monotonic()
    block = bytearray(b"1") * size_bytes
    time.sleep(0.3)
    return began_s, time.monotonic() - 0 * len(block)


def die(number):
    assert multiprocessing.parent_process() is not None, "this is no worker process"
    os.kill(os.getpid(), 9)


def name_of(array):
    return type(array).__name__, float(array.sum())


def threads(number):
    return os.environ["OMP_NUM_THREADS"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_simple_parallel", {"n_jobs": 2, "verbose": 2}),
        ("test_parallel_as_context_manager", {}),
        ("test_parallel_timeout_success", {}),
        ("test_parallel_timeout_fail", {}),
        ("test_dispatch_multiprocessing", {}),
        ("test_nested_exception_dispatch", {}),
        ("test_invalid_njobs", {}),
        ("test_njobs_converted_to_int", {"n_jobs": "2"}),
        ("test_lambda_expression", {}),
        ("test_backend_batch_statistics_reset", {}),
        ("test_abort_backend", {"n_jobs": 2}),
        ("test_nested_loop", {"parent": True}),
    ],
)
def test_joblibs_own_tests_of_a_backend_pass(theirs, name, arguments):
    test = getattr(theirs, name)
    if arguments.pop("parent", False):
        test(parent_backend="membudget", child_backend="loky")
    else:
        test(backend="membudget", **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [2, -1])
@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_joblibs_own_tests_of_generators_pass(theirs, n_jobs, return_as):
    theirs.test_multiple_generator_call("membudget", return_as, n_jobs)
    theirs.test_multiple_generator_call_managed("membudget", return_as, n_jobs)


def test_results_come_in_order_from_workers_that_stay():
    with joblib.parallel_config("membudget", n_jobs=2, budget="500 MB"):
        first = Parallel()(delayed(take)(number) for number in range(8))
        second = Parallel()(delayed(take)(number) for number in range(8))
    assert [size for _, size in first] == list(range(8))
    assert {pid for pid, _ in second} & {pid for pid, _ in first}


def test_the_budget_decides_how_many_run_at_once(monkeypatch):
    executors = []

    class Remembered(FallbackExecutor):
        def __init__(self, *arguments, **options):
            executors.append((arguments, options))
            super().__init__(*arguments, **options)

    monkeypatch.setattr(ours, "FallbackExecutor", Remembered)
    with joblib.parallel_config("membudget", n_jobs=3, budget="200 MB"):
        Parallel()(delayed(take)(number) for number in range(4))
    ((arguments, options),) = executors
    assert arguments == (3,)
    assert options["budget"] == 200 * MB


def test_what_a_function_raises_reaches_the_caller_and_the_next_call_works():
    with joblib.parallel_config("membudget", n_jobs=2):
        with pytest.raises(ZeroDivisionError):
            Parallel()(delayed(lambda number: 1 // (number - 3))(number) for number in range(20))
        assert Parallel()(delayed(abs)(-number) for number in range(5)) == list(range(5))


@pytest.mark.slow
def test_classes_that_travel_by_value_come_back_as_the_callers_own():
    class Row(NamedTuple):
        number: int

    class UnreadableRowError(Exception):
        pass

    def read(number):
        if number == 2:
            raise UnreadableRowError(number)
        return Row(number)

    with joblib.parallel_config("membudget", n_jobs=2, budget="1 GB"):
        assert Parallel()(delayed(read)(number) for number in range(2)) == [Row(0), Row(1)]
        (row,) = Parallel()([delayed(read)(0)])
        assert type(row) is Row
        with pytest.raises(UnreadableRowError, match="2"):
            Parallel()([delayed(read)(2)])


def test_a_worker_that_is_killed_is_named_and_the_next_call_works():
    with joblib.parallel_config("membudget", n_jobs=2):
        with pytest.raises(Exception, match=r"SIGKILL while it ran die \(call [12] of Parallel\)"):
            Parallel()(delayed(die)(number) for number in range(2))
        assert Parallel()(delayed(abs)(-number) for number in range(5)) == list(range(5))


def test_a_call_without_large_arrays_leaves_no_folder_to_clean_up(monkeypatch):
    left = set()
    tracker = ours.resource_tracker
    monkeypatch.setattr(tracker, "register", lambda name, _: left.add(name))
    monkeypatch.setattr(tracker, "unregister", lambda name, _: left.remove(name))
    files = ours._ArrayFiles("1M", None, "r")
    files.open("a call", {})
    assert left
    files.close()
    assert left == set()


@pytest.mark.slow
def test_large_arrays_are_mapped_and_their_files_are_removed(tmp_path):
    array = np.ones(300_000)
    with joblib.parallel_config("membudget", n_jobs=2, temp_folder=tmp_path):
        found = Parallel()(delayed(name_of)(array) for _ in range(4))
        small = Parallel()(delayed(name_of)(array[:10]) for _ in range(2))
    assert found == [("memmap", 300_000.0)] * 4
    assert small == [("ndarray", 10.0)] * 2
    assert list(tmp_path.rglob("*.pkl")) == []


@pytest.mark.slow
def test_inner_threads_are_limited_as_joblib_says():
    with joblib.parallel_config("membudget", n_jobs=2, inner_max_num_threads=3):
        assert Parallel()(delayed(threads)(number) for number in range(2)) == ["3", "3"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget": "much"}, "budget"),
        ({"buget": "1 GB"}, "has no buget"),
        ({"budget": -1}, "budget"),
        ({"memory": "x"}, "memory"),
    ],
)
def test_a_wrong_option_is_named(options, said):
    with pytest.raises(ValueError, match=said):
        joblib.parallel_config("membudget", **options)


@takes_options
@pytest.mark.parametrize(
    ("options", "said"),
    [({"budget": "much"}, "budget"), ({"buget": "1 GB"}, "has no buget"), ({"limit": 0.5}, "limit")],
)
def test_a_wrong_option_of_one_call_is_named(options, said):
    with pytest.raises(ValueError, match=said):
        Parallel(n_jobs=2, backend="membudget", **options)(delayed(abs)(number) for number in range(2))


@takes_options
def test_the_options_of_one_call_go_before_those_of_its_surroundings(monkeypatch):
    budgets = []

    def recorded(*_, budget, **__):
        budgets.append(budget)
        return FallbackExecutor(1)

    monkeypatch.setattr(ours, "FallbackExecutor", recorded)
    with joblib.parallel_config("membudget", budget="2 GB", n_jobs=2):
        for options in ({"budget": "1 GB"}, {}):
            assert Parallel(**options)(delayed(abs)(number) for number in (-1, 1)) == [1, 1]
    assert budgets == [1000 * MB, 2000 * MB]


@pytest.mark.slow
def test_scikit_learn_gives_the_same_scores_as_with_its_own_backend():
    from sklearn.datasets import make_classification
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    x, y = make_classification(300, random_state=0)
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2, 4]}, cv=3)
    scores = {}
    for backend, options in (("membudget", {"budget": "1 GB"}), ("loky", {})):
        with joblib.parallel_config(backend, n_jobs=2, **options):
            scores[backend] = (
                search.fit(x, y).cv_results_["mean_test_score"].tolist(),
                cross_val_score(DecisionTreeClassifier(random_state=0), x, y, cv=3).tolist(),
            )
    assert scores["membudget"] == scores["loky"]


@pytest.mark.slow
def test_until_a_batch_was_seen_they_run_one_by_one_and_then_as_the_budget_has_room():
    with joblib.parallel_config("membudget", n_jobs=3, budget="300 MB"):
        found = Parallel(batch_size=1)(delayed(span)(100 * MB) for _ in range(6))
    (first, *_) = sorted(found)
    assert all(began_s >= first[1] for began_s, _ in found if began_s != first[0])
    most = max(sum(began_s <= at_s < ended_s for began_s, ended_s in found) for at_s, _ in found)
    assert most <= 2, "three of them take more than the budget"
