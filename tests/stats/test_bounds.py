import math

import pytest
from scipy import stats

from pytest_membudget.stats.bounds import (
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
