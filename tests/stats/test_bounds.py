import math
import random

import pytest
from scipy import stats

from pytest_membudget.stats.bounds import (
    ExcessDetector,
    anytime_rate_interval,
    curvature_p,
    noncentral_t_cdf,
    noncentral_t_quantile,
    rate_interval,
    t_quantile,
    tolerance_factor,
)


@pytest.mark.parametrize("freedom", [1, 2, 9, 50])
@pytest.mark.parametrize("noncentrality", [1.6, 5.8, 30.0])
@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_the_noncentral_t_agrees_with_an_independent_implementation(freedom, noncentrality, share):
    assert noncentral_t_quantile(share, freedom, noncentrality) == pytest.approx(
        stats.nct.ppf(share, freedom, noncentrality), rel=3e-5
    )


@pytest.mark.parametrize("t", [-3.0, -0.5, 0.0, 0.5, 3.0])
def test_students_t_agrees_on_both_sides_of_zero(t):
    assert noncentral_t_cdf(t, 4) == pytest.approx(stats.t.cdf(t, 4), abs=1e-6)
    assert t_quantile(0.9, 3) == pytest.approx(stats.t.ppf(0.9, 3), rel=1e-5)
    assert t_quantile(0.1, 3) == pytest.approx(stats.t.ppf(0.1, 3), rel=1e-5)


def test_the_f_test_is_the_square_of_students_t():
    assert curvature_p(4.3, 9) == pytest.approx(stats.f.sf(4.3, 1, 9), abs=1e-7)
    assert curvature_p(0.0, 9) == 1.0


def test_a_tolerance_factor_of_a_plain_sample_is_the_tabled_one():
    # n = 10, content 95%, confidence 95%: 2.911 in the tables of the one-sided normal tolerance factor.
    assert tolerance_factor(1 / 10, 9, content=0.95, confidence=0.95) == pytest.approx(2.911, abs=5e-4)


@pytest.mark.parametrize(("hits", "trials"), [(0, 20), (3, 20), (20, 20), (7, 1000)])
def test_a_rate_interval_agrees_with_an_independent_implementation(hits, trials):
    reference = stats.binomtest(hits, trials).proportion_ci()
    assert rate_interval(hits, trials) == pytest.approx((reference.low, reference.high), abs=1e-6)


def test_no_trials_say_nothing():
    assert rate_interval(0, 0) == (0.0, 1.0)
    assert not math.isnan(noncentral_t_cdf(1e9, 1, 0.0))


def test_an_interval_for_all_times_holds_the_rate_at_every_one_of_them():
    source, lost = random.Random(2), 0
    for _ in range(100):
        hits = 0
        for trial in range(1, 121):
            hits += source.random() < 0.05
            low, high = anytime_rate_interval(hits, trial)
            if not low <= 0.05 <= high:
                lost += 1
                break
    assert lost / 100 <= 0.05


def test_an_interval_for_all_times_is_wider_than_one_for_a_single_time_and_narrows():
    for hits, trials in ((0, 10), (3, 40), (40, 40), (100, 5000)):
        low, high = anytime_rate_interval(hits, trials)
        once_low, once_high = rate_interval(hits, trials)
        assert low <= once_low <= hits / trials <= once_high <= high
    assert anytime_rate_interval(0, 0) == (0.0, 1.0)
    assert anytime_rate_interval(0, 10_000)[1] < 0.002


def first_alarm(stream):
    """The number of the task at which a breach of "at most 1%" is found, and the breach."""
    detector = ExcessDetector(0.01)
    for task, exceeded in enumerate(stream, 1):
        detector.add(exceeded)
        if detector.breach is not None:
            return task, detector.breach
    return None, None


@pytest.mark.parametrize(
    ("bad", "from_the_start", "later"),
    [([True], 2, 5), ([False, True], 4, 12), ([False] * 9 + [True], 50, 140)],
)
@pytest.mark.parametrize("good", [0, 100, 2_000])
def test_a_broken_promise_is_found_soon_however_long_it_was_kept(bad, from_the_start, later, good):
    kept = ([False] * 199 + [True])[-good:] * (good // 200 or 1) if good else []
    task, breach = first_alarm([*kept, *bad * 200])
    assert task <= good + (later if good else from_the_start)
    assert breach.last == task
    assert breach.exceeded >= 0.03 * breach.tasks


def test_a_promise_that_breaks_slowly_is_found():
    source = random.Random(5)
    task, _ = first_alarm(source.random() < max(0.005, (task - 1000) * 1e-4) for task in range(4000))
    assert 1_100 < task < 1_900


def test_a_kept_promise_is_seldom_called_broken_at_any_time():
    source = random.Random(6)
    false_alarms = sum(
        first_alarm(source.random() < 0.01 for _ in range(1_000))[0] is not None for _ in range(100)
    )
    assert false_alarms <= 3  # 1 is the most on average
