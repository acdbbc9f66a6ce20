"""No sequence of observations makes an estimate unsafe, and no thread breaks it."""

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pytest_membudget import MemoryEstimator, fit_points

MB = 1_000_000
MIB = 1024 * 1024
SIZES = st.sampled_from([1, 900_000, MB, 1_040_000, 2 * MB, 2_300_000, 8 * MB, 100 * MB])
PEAKS = st.one_of(st.integers(0, 10**10), st.sampled_from([0, 1, 30_000, 50 * MB, 10**9]))


class Estimates(RuleBasedStateMachine):
    @initialize(calibrated=st.booleans())
    def begin(self, calibrated):
        points = [(size * MB, (20 + 5 * size) * MB) for size in (1, 2, 4, 8)]
        self.proven = points if calibrated else []
        self.estimator = fit_points(points).estimator("safe") if calibrated else MemoryEstimator(1, "1 MB")

    @rule(size=SIZES, peak=PEAKS, times=st.sampled_from([1, 20]))
    def finish(self, size, peak, times):
        for _ in range(times):
            self.estimator.observe(size, peak, 0.5)
        self.proven = [*self.proven, (size, peak)]

    @rule(size=SIZES, peak=PEAKS, doubt=st.one_of(st.integers(0, 10 * MIB), st.just(10**10)))
    def finish_with_an_interval(self, size, peak, doubt):
        self.estimator.observe(size, peak, peak_upper_bytes=peak + doubt)
        self.proven = [*self.proven, (size, peak)]

    @rule(size=SIZES, failed=PEAKS)
    def run_out(self, size, failed):
        assert self.estimator.retry_bytes(size, failed) > failed

    @invariant()
    def no_estimate_is_below_a_peak_seen_near_that_size(self):
        for size in {size for size, _ in self.proven}:
            near = [peak for seen, peak in self.proven if size / 1.25 <= seen <= size]
            assert self.estimator.estimate_file_memory(size) >= max(near)


Estimates.TestCase.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)
TestEstimates = Estimates.TestCase


def calibrated(aim="safe"):
    return fit_points([(size * MB, (100 + size) * MB) for size in (0.5, 1, 2, 4)]).estimator(aim)


def test_small_figures_do_not_talk_a_calibration_out_of_large_ones():
    estimator = calibrated()
    for _ in range(128):
        estimator.observe("2 MB", 30_000, 0.7)
    assert estimator.estimate_file_memory("2 MB") >= 102 * MB
    assert estimator.estimate_file_memory("20 MB") >= 104 * MB


@pytest.mark.parametrize("aim", ["safe", "cheap"])
def test_a_peak_that_was_not_seen_teaches_nothing(aim):
    estimator = calibrated(aim)
    before = estimator.estimate_file_memory("2 MB")
    for _ in range(64):
        estimator.observe("2 MB", 0)
    assert estimator.estimate_file_memory("2 MB") == before


@pytest.mark.parametrize("aim", ["safe", "cheap"])
def test_a_wide_interval_teaches_no_more_than_its_lower_end(aim):
    estimator = calibrated(aim)
    before = estimator.estimate_file_memory("2 MB")
    for _ in range(64):
        estimator.observe("2 MB", "1 MB", peak_upper_bytes="900 MB")
    assert estimator.estimate_file_memory("2 MB") == before


def test_a_narrow_interval_is_learned():
    estimator = calibrated("cheap")
    for _ in range(64):
        estimator.observe("2 MB", 0, peak_upper_bytes="300 kB")
    assert estimator.estimate_file_memory("2 MB") < 2 * MB


def test_a_broken_promise_is_said_once(caplog):
    estimator = calibrated()
    for turn in range(40):
        given = estimator.estimate_file_memory(2 * MB + turn)
        estimator.observe(2 * MB + turn, given + MB)
    assert estimator.coverage.is_broken
    assert len(caplog.records) == 1
    assert "tasks took more than was estimated (true rate" in caplog.text
    assert "where at most 1.0% are promised; calibrate again" in caplog.text


def test_a_kept_promise_is_not_called_broken(caplog):
    estimator = calibrated()
    for turn in range(300):
        given = estimator.estimate_file_memory(2 * MB + turn)
        estimator.observe(2 * MB + turn, given + MB if turn in {40, 200} else 102 * MB)
    found = estimator.coverage
    assert (found.tasks, found.exceeded, found.is_broken) == (300, 2, False)
    assert found.low < 0.01 < found.high
    assert not caplog.records


def test_a_promise_broken_late_is_said_soon_and_stays_said(caplog):
    estimator = calibrated()
    broken_from, until = 500, 508
    for turn in range(700):
        given = estimator.estimate_file_memory(2 * MB + turn)
        took = given + MB if broken_from <= turn < until else 102 * MB
        estimator.observe(2 * MB + turn, took)
    found = estimator.coverage
    assert found.is_broken
    assert found.breach.last <= until
    assert found.low < 0.01  # of all tasks that were ever counted few took more
    assert "tasks took more than was estimated (true rate" in caplog.text
    assert f"of the {found.breach.tasks} up to task {found.breach.last}" in caplog.text


def test_what_two_runs_of_one_input_differ_by_breaks_no_promise(caplog):
    estimator = calibrated()
    for turn in range(5):
        given = estimator.estimate_file_memory(2 * MB + turn)
        estimator.observe(2 * MB + turn, given + 200_000)
    assert (estimator.coverage.tasks, estimator.coverage.exceeded) == (5, 0)
    assert not caplog.records


def test_what_was_never_estimated_and_what_promises_nothing_is_not_judged():
    estimator = calibrated()
    estimator.observe(2 * MB, 900 * MB)
    assert estimator.coverage.tasks == 0
    assert calibrated("cheap").coverage.promised is None
    assert MemoryEstimator().coverage.promised is None


def test_two_threads_may_share_an_estimator():
    estimator, errors = MemoryEstimator(1, "1 MB"), []

    def work(call):
        try:
            for turn in range(400):
                call(turn)
        except Exception as error:
            errors.append(error)

    calls = [
        lambda turn: estimator.observe(turn * MB, turn * 7 % 50 * MB),
        lambda turn: estimator.estimate_file_memory(turn * MB),
        lambda turn: estimator.retry_bytes(turn * MB, turn),
    ]
    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_what_a_running_task_holds_is_no_broken_promise():
    estimator = calibrated("safe")
    for _ in range(3):
        given = estimator.estimate_file_memory("2 MB")
        estimator.observe("2 MB", 2 * given, peak_upper_bytes=2**62)  # it has just imported a library, say
    assert estimator.coverage.tasks == 0
    estimator.observe("2 MB", given)
    assert (estimator.coverage.tasks, estimator.coverage.exceeded) == (1, 0)
