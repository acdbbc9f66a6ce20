import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_membudget.stats.surfaces import choose_terms, fit_surface

MB = 1_000_000
CONSTANT, BYTES, ROWS, COLUMNS = (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)


def inputs(count, seed):
    source = random.Random(seed)
    return [
        (source.uniform(1, 10) * MB, source.randint(100, 2000), source.randint(5, 100)) for _ in range(count)
    ]


def runs(law, seed=0, scatter=0.01, repeats=3):
    source = random.Random(seed)
    values = [each for each in inputs(8, seed) for _ in range(repeats)]
    return values, [law(each) * source.gauss(1, scatter) for each in values]


@pytest.mark.parametrize(
    ("law", "terms"),
    [
        (lambda x: 20 * MB + 5 * x[0], {BYTES}),
        (lambda x: 5 * MB + 90_000 * x[1], {ROWS}),
        (lambda x: 5 * MB + 900 * x[1] * x[2], {(0, 1, 1)}),
        (lambda x: 80 * x[1] * x[1], {(0, 2, 0)}),
        (lambda x: 3 * x[0] + 90_000 * x[1], {BYTES, ROWS}),
        (lambda _x: 30 * MB, set()),
    ],
)
def test_the_law_behind_the_peaks_is_found(law, terms):
    assert set(choose_terms(*runs(law, scatter=0.002))) == {CONSTANT, *terms}


def test_bounds_cover_inputs_that_were_not_run_and_cost_little():
    source, covered, bounds, peaks = random.Random(9), 0, 0.0, 0.0

    def law(values):
        size, rows, columns = values
        return 10 * MB + 2 * size + 1500 * rows * columns

    for seed in range(10):
        measured = runs(law, seed=seed)
        fit = fit_surface(*measured, choose_terms(*measured))
        for each in inputs(30, seed + 100):
            peak = law(each) * source.gauss(1, 0.01)
            bound = fit.bound(each, content=0.95, confidence=0.95)
            covered, bounds, peaks = covered + (bound >= peak), bounds + bound, peaks + peak
    assert covered / 300 >= 0.95
    assert bounds / peaks <= 1.15


def test_a_product_beyond_those_seen_is_extrapolated_though_each_factor_is_not():
    values = [(1.0, 10.0), (10.0, 1.0), (5.0, 2.0), (2.0, 5.0), (3.0, 3.0), (1.0, 1.0)]
    fit = fit_surface(values, [MB * (5 + a * b) for a, b in values], ((0, 0), (1, 1)))
    assert not fit.is_extrapolated((3.0, 3.0))
    assert fit.is_extrapolated((10.0, 10.0))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 10**10)), min_size=3, max_size=15)
)
def test_any_runs_give_a_law_that_rises_with_every_predictor(found):
    values, peaks = [(float(a), float(b)) for a, b, _ in found], [peak for _, _, peak in found]
    fit = fit_surface(values, peaks, choose_terms(values, peaks))
    assert 0 <= fit.expect((1.0, 2.0)) <= fit.expect((1.0, 3.0)) <= fit.expect((4.0, 3.0)) + 1


def test_runs_that_are_too_much_alike_are_refused():
    with pytest.raises(ValueError, match="3 runs cannot separate 2 terms"):
        fit_surface([(1.0,), (1.0,), (1.0,)], [1, 2, 3], ((0,), (1,)))
    with pytest.raises(ValueError, match="no runs"):
        choose_terms([], [])


def test_repeats_that_agree_promise_no_more_than_one_run_of_each_input():
    source = random.Random(4)
    values = inputs(8, 4)
    peaks = [(10 * MB + 2 * size) * source.gauss(1, 0.05) for size, _, _ in values]
    once, often = (fit_surface(values * times, peaks * times, (CONSTANT, BYTES)) for times in (1, 3))
    assert often.freedom == 6
    for each in inputs(5, 5):
        assert often.bound(each, content=0.95, confidence=0.95) == pytest.approx(
            once.bound(each, content=0.95, confidence=0.95)
        )


def test_of_two_laws_the_one_that_errs_less_is_not_refused():
    """Ten tables read by pandas, as measured: rows and columns² came out, which are 118% off on other tables."""
    tables = [
        (582057, 27716, 7, 4.15),
        (336192, 16809, 4, 1.88),
        (1655680, 33113, 10, 7.42),
        (3522710, 39140, 30, 21.64),
        (2281890, 32598, 10, 8.02),
        (5864654, 37593, 39, 29.92),
        (6379120, 36661, 29, 23.99),
        (282998, 8842, 16, 2.86),
        (5000694, 39067, 32, 17.09),
        (426710, 7111, 15, 2.36),
    ]
    values = [(float(size), float(rows), float(columns)) for size, rows, columns, _ in tables]
    assert choose_terms(values, [peak_mb * 1e6 for *_, peak_mb in tables]) == ((0, 0, 0), (0, 1, 1))


def test_steps_of_so_many_bytes_cost_a_large_task_no_more_than_a_small_one():
    """Allocators keep a few blocks or none, whatever the task takes; beyond what was run that may change."""
    source, terms = random.Random(3), ((0, 0), (1, 1))
    values = [(float(source.randint(1, 8)), float(source.randint(10, 90))) for _ in range(12)]
    steps = [MB * (a * b / 10 + 3 * (number % 3 == 0)) for number, (a, b) in enumerate(values)]
    shares = [MB * a * b / 10 * (0.95 + 0.1 * (number % 3 == 0)) for number, (a, b) in enumerate(values)]
    even, follows = (fit_surface(values, peaks, terms) for peaks in (steps, shares))

    def margin(fit, item):
        return fit.bound(item, content=0.95, confidence=0.95) - fit.expect(item)

    assert margin(even, (8.0, 80.0)) < 1.5 * margin(even, (2.0, 20.0))
    assert margin(follows, (8.0, 80.0)) > 5 * margin(follows, (2.0, 20.0))
    assert margin(even, (16.0, 80.0)) > 1.5 * margin(even, (8.0, 80.0))
