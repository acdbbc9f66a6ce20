import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget import MemoryEstimator

MB = 1_000_000


@pytest.mark.parametrize(("size_mb", "expected_mb"), [(1, 512), (10, 620), (20, 740), (50, 1100), (68, 1316)])
def test_the_document_preset_gives_the_reference_figures(size_mb, expected_mb):
    assert MemoryEstimator.preset("document").estimate_file_memory(size_mb * MB) == expected_mb * MB


def test_the_dataframe_preset_is_the_default():
    estimator = MemoryEstimator.preset("dataframe")
    assert (estimator.gamma, estimator.overhead_bytes, estimator.base_bytes) == (3.0, 50 * MB, 0)
    assert (
        MemoryEstimator().estimate_file_memory("10 MB") == estimator.estimate_file_memory("10 MB") == 80 * MB
    )


def test_processes_have_a_base_each():
    estimator = MemoryEstimator(gamma=3.0, overhead="50 MB", base="100 MB")
    sizes = ["5 MB", "10 MB", "3 MB"]
    assert estimator.estimate_batch_memory(sizes, 2, processes=True) == (2 * 100 + 80 + 65) * MB
    assert estimator.estimate_batch_memory(sizes, 9, processes=True) == (3 * 100 + 80 + 65 + 59) * MB
    assert estimator.optimal_workers(sizes, "345 MB", 1.0, processes=True) == 2
    assert estimator.optimal_workers(sizes, "344.9 MB", 1.0, processes=True) == 1
    assert estimator.optimal_workers(sizes, "345 MB", 1.0) == 3


def test_a_batch_takes_the_base_and_its_largest_files():
    estimator = MemoryEstimator(gamma=3.0, overhead="50 MB", base="100 MB")
    # 100 + (3·10 + 50) + (3·5 + 50); the file of 3 MB waits
    assert estimator.estimate_batch_memory(["5 MB", "10 MB", "3 MB"], workers=2) == 245 * MB
    assert estimator.estimate_batch_memory([], workers=2) == 100 * MB


def test_five_large_documents_take_the_references_figure():
    assert MemoryEstimator.preset("document").estimate_batch_memory(["68 MB"] * 5, workers=5) == 6580 * MB


@given(
    sizes=st.lists(st.integers(0, 10**9), min_size=1, max_size=20),
    limit=st.integers(0, 10**11),
    eta=st.floats(0.05, 1),
    base=st.integers(0, 10**9),
)
def test_optimal_workers_is_the_most_whose_batch_stays_within_the_share(sizes, limit, eta, base):
    estimator = MemoryEstimator(base=base)
    fitting = [
        p for p in range(1, len(sizes) + 1) if estimator.estimate_batch_memory(sizes, p) <= eta * limit
    ]
    assert estimator.optimal_workers(sizes, limit=limit, eta=eta) == max(fitting, default=1)


def test_what_was_seen_once_is_expected_from_then_on_at_that_size_and_above():
    estimator = MemoryEstimator(gamma=1, overhead="0 B")
    estimator.observe("10 MB", "90 MB")
    estimator.observe("20 MB", "40 MB")
    estimate_mb = [estimator.estimate_file_memory(f"{size} MB") // MB for size in (9, 10, 20, 100)]
    assert estimate_mb == [9, 90, 90, 100]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))), st.integers(0, 50))
def test_never_below_the_largest_peak_seen_at_that_size_or_smaller(tasks, size):
    estimator = MemoryEstimator(gamma=0, overhead=0)
    for seen_size, peak in tasks:
        estimator.observe(seen_size, peak)
    assert estimator.estimate_file_memory(size) >= max(
        (peak for seen, peak in tasks if seen <= size), default=0
    )


def after_tasks_of(estimator, ratio, count=30):
    for turn in range(count):
        size = (5 + turn % 10) * MB
        estimator.observe(size, round(ratio * size * (1 + turn % 3 / 50)))
    return estimator


def test_it_goes_below_the_formula_only_with_evidence():
    size, formula = 10 * MB, 620 * MB
    assert (
        after_tasks_of(MemoryEstimator.preset("document"), ratio=3, count=7).estimate_file_memory(size)
        == formula
    )
    estimate = after_tasks_of(MemoryEstimator.preset("document"), ratio=3).estimate_file_memory(size)
    assert 3 * size <= estimate < formula / 4


def test_far_from_what_was_seen_the_formula_holds():
    estimator = after_tasks_of(MemoryEstimator.preset("document"), ratio=3)
    assert estimator.estimate_file_memory(100 * MB) >= 1700 * MB


def test_a_peak_above_the_estimate_raises_it_at_once():
    estimator = after_tasks_of(MemoryEstimator.preset("document"), ratio=3, count=100)
    estimator.observe(10 * MB, 400 * MB)
    assert estimator.estimate_file_memory(10 * MB) >= 400 * MB


class ScriptedLearner:
    def __init__(self):
        self.seen = []

    def allocate(self, size_bytes):
        return 7 * size_bytes

    def retry(self, size_bytes, failed_bytes):
        return failed_bytes // 2

    def observe(self, size_bytes, peak_bytes, duration_s):
        self.seen.append((size_bytes, peak_bytes, duration_s))


def test_a_given_learner_answers_from_the_first_file_on():
    learner = ScriptedLearner()
    estimator = MemoryEstimator(gamma=3, overhead="50 MB", learner=learner)
    assert estimator.estimate_file_memory(10) == 70
    assert estimator.retry_bytes(10, 50) == 70
    assert estimator.retry_bytes(10, 200) == 201
    estimator.observe(10, 30, 2.5)
    assert learner.seen == [(10, 30, 2.5)]


def test_a_learner_that_was_given_is_told_of_every_task():
    learner = ScriptedLearner()
    estimator = MemoryEstimator(learner=learner)
    for count in range(1, 21):
        estimator.observe(10, 30)
        assert len(learner.seen) == count


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_retry_always_allocates_more_than_what_failed(size, failed):
    assert MemoryEstimator().retry_bytes(size, failed) > failed


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"gamma": -1}, "gamma"),
        ({"gamma": float("nan")}, "gamma"),
        ({"gamma": "3"}, "gamma"),
        ({"overhead": "50"}, "overhead"),
        ({"base": -5}, "base"),
    ],
)
def test_a_nonsense_parameter_is_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        MemoryEstimator(**arguments)


def test_nonsense_in_a_call_is_named_too():
    estimator = MemoryEstimator()
    with pytest.raises(ValueError, match="workers"):
        estimator.estimate_batch_memory(["1 MB"], workers=0)
    with pytest.raises(ValueError, match="eta"):
        estimator.optimal_workers(["1 MB"], limit="1 GB", eta=1.5)
    with pytest.raises(ValueError, match="preset 'pdf' is unknown; choose one of dataframe, document"):
        MemoryEstimator.preset("pdf")
