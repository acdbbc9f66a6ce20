import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget.stats.samples import geometric_mean, median, median_interval, samples_for_interval


def test_the_median_is_the_middle():
    assert (median([3, 1, 2]), median([4, 1, 2, 3])) == (2, 2.5)
    with pytest.raises(ValueError, match="at least one sample"):
        median([])


def test_six_samples_are_the_fewest_for_95_percent():
    assert samples_for_interval(0.95) == 6
    assert median_interval([1, 2, 3, 4, 5]) is None
    assert median_interval([6, 5, 4, 3, 2, 1]) == (1, 6)


def test_the_interval_is_that_of_the_sign_test():
    # Tables of the sign test: for n = 20 at 95% the 6th and the 15th order statistics.
    assert median_interval(range(1, 21)) == (6, 15)


@given(st.lists(st.floats(-1e9, 1e9), min_size=6, max_size=40))
def test_the_interval_holds_the_sample_median(samples):
    low, high = median_interval(samples)
    assert low <= median(samples) <= high


def test_the_geometric_mean_of_a_doubling_and_a_halving_is_one():
    assert math.isclose(geometric_mean([2, 0.5]), 1)
    assert geometric_mean([]) is None
    assert geometric_mean([1, 0]) is None
