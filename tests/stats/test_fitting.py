import random
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget.stats.fitting import LEAST_BYTES, fit_line, fit_peaks

MB = 1_000_000


def noisy(peak, seed, scatter=0.02, sizes=(1, 2, 4, 8), repeats=3):
    source = random.Random(seed)
    return [(size * MB, peak(size * MB) * source.gauss(1, scatter)) for size in sizes for _ in range(repeats)]


def test_an_exact_line_is_found_exactly():
    fit = fit_peaks([(size * MB, 20 * MB + 3.3 * size * MB) for size in (1, 2, 4, 8)])
    assert (fit.slope, fit.expect(0), fit.curved) == (pytest.approx(3.3), pytest.approx(20 * MB), False)


def test_the_weighted_fit_is_that_of_numpy():
    points = noisy(lambda size: 5 * MB + 6.7 * size, seed=4)
    fit = fit_line(points)
    weights = [1 / fit.expect(size) for size, _ in points]
    slope, start = np.polyfit([x for x, _ in points], [y for _, y in points], 1, w=weights)
    assert (fit.slope, fit.expect(0)) == (pytest.approx(slope, rel=1e-3), pytest.approx(start, rel=1e-3))


def test_a_quadratic_peak_is_caught_as_curved_and_a_linear_one_is_not():
    assert fit_peaks(noisy(lambda size: 2 * MB + size * size / MB, seed=1)).curved
    assert not fit_peaks([(size * MB, 3 * size * MB + size) for size in (1, 2, 4, 8)]).curved
    hinge = [(size * MB / 10, max(0, 6.5 * size * MB / 10 - 0.3 * MB)) for size in (2.5, 5, 10, 10)]
    assert not fit_peaks(hinge).curved


ARROW_MB = {1: (12.6, 14.7, 12.6), 2: (25.3, 23.1, 27.4), 4: (42.0, 42.0, 35.8), 8: (50.4, 54.6, 50.5)}
"""What pyarrow's csv reader took, by the MB of its file: it reads ahead in blocks, and stops when those are full."""


def test_a_reader_whose_buffers_fill_up_is_followed_while_its_bound_keeps_to_the_line():
    points = [(size * MB, peak * MB) for size, peaks in ARROW_MB.items() for peak in peaks]
    fit, line = fit_peaks(points), fit_line(points)
    assert (fit.flattens, fit.curved) == (True, False)
    assert line.expect(32 * MB) > 200 * MB
    assert fit.expect(32 * MB) == pytest.approx(107 * MB, rel=0.25)  # so it was
    assert (fit.slope, fit.intercept_bytes) == (line.slope, line.intercept_bytes)
    for size in (0.5, 1, 3, 8, 32):
        promise = {"content": 0.95, "confidence": 0.95}
        assert fit.bound(size * MB, **promise) >= line.bound(size * MB, **promise)


@pytest.mark.parametrize("peak", [lambda x: 5 * MB + 3 * x, lambda _: 40 * MB, lambda x: 2 * MB + x * x / MB])
def test_noise_alone_hardly_ever_flattens(peak):
    assert sum(fit_peaks(noisy(peak, seed)).flattens for seed in range(100)) <= 8


def test_a_law_that_flattens_still_rises_for_ever():
    fit = fit_peaks([(size * MB, size**0.5 * 10 * MB) for size in (1, 2, 4, 8)])
    assert fit.flattens
    assert fit.expect(100 * MB) == pytest.approx(100 * MB)
    falling = fit_peaks([(size * MB, peak * MB) for size, peak in ((1, 10), (2, 30), (4, 38), (8, 40))])
    assert falling.expect(8 * MB) < falling.expect(80 * MB)


def test_the_tolerance_bound_keeps_its_promise():
    scatter, trials = 0.05, 300
    size, peak = 5 * MB, 20 * MB + 3.3 * 5 * MB
    kept = 0
    for seed in range(trials):
        points = noisy(lambda size: 20 * MB + 3.3 * size, seed, scatter)
        bound = fit_line(points).bound(size, content=0.95, confidence=0.95)
        kept += NormalDist(peak, peak * scatter).cdf(bound) >= 0.95
    assert 0.92 <= kept / trials <= 0.98


def test_a_prediction_bound_needs_freedom_and_lies_below_the_tolerance_bound():
    points = noisy(lambda size: 20 * MB + 3.3 * size, seed=3)
    fit = fit_line(points)
    assert fit.expect(MB) < fit.prediction_bound(MB, confidence=0.95)
    assert fit.prediction_bound(MB, confidence=0.95) < fit.bound(MB, content=0.95, confidence=0.95)
    two = fit_line([(MB, 5 * MB), (2 * MB, 7 * MB)])
    assert two.prediction_bound(3 * MB, confidence=0.95) == two.expect(3 * MB) == pytest.approx(9 * MB)


def test_one_size_gives_a_constant_and_two_points_an_error():
    assert fit_peaks([(MB, 2 * MB), (MB, 4 * MB), (MB, 3 * MB)]).expect(9 * MB) == pytest.approx(
        3 * MB, rel=0.1
    )
    with pytest.raises(ValueError, match="3 or more"):
        fit_peaks([(1, 1), (2, 2)])


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)), min_size=3, max_size=12),
    st.integers(0, 10**13),
)
def test_any_points_give_a_finite_bound_at_or_above_the_estimate(points, size):
    fit = fit_peaks(points)
    assert 0 <= fit.expect(size) <= fit.bound(size, content=0.95, confidence=0.95) < float("inf")
    assert LEAST_BYTES > 0


def test_points_that_fall_are_scatter_around_a_constant():
    fit = fit_peaks([(size * MB, peak * MB) for size, peak in ((1, 43), (3, 41), (8, 40), (8, 40))])
    assert (fit.slope, fit.curved) == (0, False)
    assert 40 * MB < fit.expect(100 * MB) < 43 * MB
    assert fit.bound(100 * MB, content=0.9, confidence=0.9) > 43 * MB
