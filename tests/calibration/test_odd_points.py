"""Whatever figures a calibration is made of: its answers are finite, in order, and can be kept."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_membudget import UnreadableFileError, UsageError, fit_points, load_calibration

MB, TERABYTE = 10**6, 10**12
edges = st.sampled_from([0, 1, 4096, MB, 10**9, TERABYTE])
amounts = st.one_of(edges, st.integers(0, 100 * MB), st.integers(0, TERABYTE))
points = st.lists(st.tuples(amounts, amounts), min_size=3, max_size=9)


@given(points, st.lists(amounts, min_size=1, max_size=4))
@settings(deadline=None, max_examples=80)
def test_every_answer_is_finite_and_the_bound_is_not_below_the_estimate(measured, sizes):
    found = fit_points(measured)
    assert 0 <= found.gamma < math.inf
    assert found.overhead_bytes >= 0
    for size in sorted(sizes):
        assert 0 <= found.expect(size) <= found.bound(size) + 1
        assert found.bound(size) >= max((peak for at, peak in measured if at <= size), default=0)
    if found.quality is not None:
        assert 0 <= found.quality.under_low <= found.quality.under_high <= 1
    assert found.picture("odd").points == tuple(measured)


@given(points, st.floats(0, 4))
@settings(deadline=None, max_examples=30)
def test_an_estimator_of_any_figures_answers_and_learns(measured, multiple):
    size = round(multiple * max(size for size, _ in measured))
    for aim in ("safe", "cheap"):
        estimator = fit_points(measured).estimator(aim)
        given_bytes = estimator.estimate_file_memory(size)
        assert given_bytes >= 0
        assert estimator.retry_bytes(size, given_bytes) > given_bytes
        estimator.observe(size, given_bytes)


@given(st.lists(st.integers(0, 10**10), min_size=4, max_size=8, unique=True), st.integers(0, 10**11))
@settings(deadline=None, max_examples=30)
def test_equal_peaks_are_a_constant(sizes, peak):
    found = fit_points([(size, peak) for size in sizes])
    assert found.gamma == pytest.approx(0, abs=1e-3)
    for size in (0, max(sizes), 10 * max(sizes)):
        assert found.expect(size) == pytest.approx(peak, rel=1e-3, abs=2)


def test_the_estimate_rises_with_the_size():
    found = fit_points([(size * MB, peak * MB) for size, peak in ((1, 3), (2, 7), (4, 12), (8, 26))])
    answers = [found.expect(size * MB) for size in range(1, 64)]
    assert all(before < after for before, after in pairwise(answers))


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, -1, -1.5, 10**30, 1e300, "many", None, True])
def test_what_is_no_amount_is_refused(odd):
    plain = [(MB, 2 * MB), (2 * MB, 4 * MB), (3 * MB, 6 * MB)]
    for measured in ([*plain, (odd, MB)], [*plain, (MB, odd)]):
        with pytest.raises((UsageError, ValueError, TypeError)):
            fit_points(measured)


@pytest.mark.parametrize("share", [0, 1, -0.5, 2, math.nan, "all", "0%"])
def test_a_share_that_leaves_no_doubt_or_nothing_else_is_refused(share):
    with pytest.raises(ValueError, match="content"):
        fit_points([(MB, 2 * MB)] * 3, content=share)
    with pytest.raises(ValueError, match="content"):
        fit_points([(MB, 2 * MB)] * 3).bound(MB, content=share)


@pytest.mark.parametrize(
    "field",
    [
        '"durations_s": [1.0, -2.0, 1.0]',
        '"durations_s": [1.0]',
        '"durations_s": [1e999, 1, 1]',
        '"base_bytes": -5',
        '"base_bytes": 1e400',
        '"points": [[1, 2], [2, 3], [3, 99999999999999999999]]',
        '"points": [[1, 2], [2, 3], [3, NaN]]',
        '"content": 0',
        '"gamma": 1e999',
    ],
)
def test_a_file_with_figures_that_nothing_can_have_measured_is_refused(tmp_path, field):
    path = tmp_path / "odd.json"
    plain = {"points": "[[1, 2], [2, 3], [3, 4]]", "content": "0.9", "confidence": "0.9"}
    name, value = field.split(": ", 1)
    text = ", ".join(f'"{key}": {text}' for key, text in {**plain, name.strip('"'): value}.items())
    path.write_text("{" + text + "}")
    with pytest.raises(UnreadableFileError, match=r"odd\.json"):
        load_calibration(path)
