import pytest

from pytest_membudget.stats.fitting import judge_law, steepest_rise

MB = 1_000_000


@pytest.mark.parametrize(
    ("peaks_mb", "shape"),
    [
        ((50, 50.5, 50.2), "flat"),
        ((50, 51, 56.4), "linear"),  # more than a tenth of the smallest and one MiB
        ((51, 54, 70), "linear"),
        ((5, 20, 101), "linear"),
        ((51, 66, 450), "worse"),
        ((0.7, 3, 25), "linear"),  # the smallest fits into memory that is free already
        ((70, 60, 50), "flat"),
        ((1, 1.2, 2), "flat"),  # twice as much, and yet less than one MiB more
    ],
)
def test_the_shape_of_three_scales(peaks_mb, shape):
    points = [(size * MB, peak * MB) for size, peak in zip((1, 4, 20), peaks_mb, strict=True)]
    assert judge_law(points).shape == shape


def test_flat_is_what_hardly_rises_from_the_smallest_scale_to_the_largest_wherever_the_smallest_is():
    assert judge_law([(100 * MB, 50 * MB), (110 * MB, 52 * MB), (120 * MB, 54 * MB)]).shape == "flat"


def test_the_order_of_the_rows_does_not_matter_and_the_slope_has_a_bound():
    law = judge_law([(20 * MB, 101 * MB), (1 * MB, 5 * MB), (4 * MB, 20 * MB)])
    assert law.slope == pytest.approx(5.05, rel=0.01)
    assert law.slope_low < law.slope < law.slope_high < 5.5


def test_two_scales_give_a_slope_without_a_bound_and_one_gives_none():
    law = judge_law([(1 * MB, 5 * MB), (4 * MB, 20 * MB)])
    assert (law.slope, law.slope_high) == (pytest.approx(5), None)
    with pytest.raises(ValueError, match="at least two scales"):
        judge_law([(1 * MB, 5 * MB), (1 * MB, 6 * MB)])


def test_a_line_that_begins_below_zero_has_a_base_of_zero():
    assert judge_law([(1 * MB, 1 * MB), (2 * MB, 12 * MB), (3 * MB, 23 * MB)]).base_bytes == 0
    assert judge_law([(1 * MB, 30 * MB), (2 * MB, 40 * MB)]).base_bytes == pytest.approx(20 * MB)


def test_many_scales_use_the_test_of_curvature():
    curved = [(size * MB, (10 + 0.2 * size * size) * MB) for size in (1, 2, 4, 8, 16)]
    assert judge_law(curved).shape == "worse"


def test_a_larger_scale_is_never_foretold_to_take_less():
    law = judge_law([(1 * MB, 45 * MB), (4 * MB, 40 * MB)])
    assert (law.shape, law.fit.expect(20 * MB)) == ("flat", pytest.approx(42.35 * MB, rel=0.01))


def test_two_readings_allow_a_rise_from_the_least_of_one_to_the_most_of_the_other():
    small, larger = (1 * MB, 20 * MB, 20 * MB), (3 * MB, 40 * MB, 60 * MB)
    low, high = 20 * MB * 0.9 - 2**20, 60 * MB * 1.1 + 2**20
    assert steepest_rise(small, larger, 5 * MB) == pytest.approx(high + (high - low))
    assert steepest_rise(larger, small, 5 * MB) == steepest_rise(small, larger, 5 * MB)
    assert steepest_rise(small, larger, 2 * MB) == pytest.approx(high)
