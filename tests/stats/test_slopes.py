"""Theil's slope and Sen's interval."""

import math
import random

import pytest

from pytest_membudget.stats.growth import robust_slope


def test_a_straight_line_has_its_slope_and_no_doubt():
    assert robust_slope([1, 2, 4, 8, 16, 32], [3, 5, 9, 17, 33, 65], 0.95) == (2.0, 2.0, 2.0)


def test_one_wild_point_does_not_bend_the_line():
    y = [float(x) for x in range(20)]
    y[10] = 1e9
    assert robust_slope(range(20), y, 0.95).value == pytest.approx(1.0)


def test_a_single_point_has_no_slope():
    assert robust_slope([1], [5], 0.95) == (0.0, -math.inf, math.inf)


def test_the_interval_holds_the_true_slope_as_often_as_it_says():
    source = random.Random(7)
    held = 0
    for _ in range(400):
        found = robust_slope(range(15), [3 * x + source.gauss(0, 10) for x in range(15)], 0.95)
        held += found.low <= 3 <= found.high
    assert held >= 0.92 * 400


def test_many_points_are_thinned_out_but_the_last_counts():
    y = [0.0] * 999 + [1e6]
    assert robust_slope(range(1000), y, 0.95).high >= 0
    assert robust_slope(range(1000), range(1000), 0.95).value == pytest.approx(1.0)
