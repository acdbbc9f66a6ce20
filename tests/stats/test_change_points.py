import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_membudget.stats.change_points import clip, find_changes


def noisy(levels, *, sigma=0.01, seed=1):
    chance = random.Random(seed)
    return [level + chance.gauss(0, sigma) for level in levels]


def two_modes(count, *, seed=1, shift=0.0):
    chance = random.Random(seed)
    return [chance.choice((1.0, 1.3)) + chance.gauss(0, 0.003) + shift for _ in range(count)]


@pytest.mark.parametrize("at", [4, 20, 56])
def test_a_step_is_found_where_it_is(at):
    (step,) = find_changes(noisy([0.0] * at + [0.1] * (60 - at)))
    assert (step.first, step.is_ramp) == (at, False)
    assert step.before == pytest.approx(0, abs=0.01)
    assert step.after == pytest.approx(0.1, abs=0.01)


def test_several_steps_both_ways_are_found_in_order():
    levels = [0.0] * 30 + [0.2] * 30 + [0.05] * 30 + [0.15] * 30
    assert [step.first for step in find_changes(noisy(levels))] == [30, 60, 90]


def test_a_rise_bit_by_bit_is_one_ramp_from_its_first_revision():
    (ramp,) = find_changes(noisy([0.0] * 40 + [0.01 * n for n in range(1, 31)] + [0.3] * 20, sigma=0.003))
    assert ramp.is_ramp
    assert ramp.first == pytest.approx(40, abs=2)
    assert ramp.last == pytest.approx(69, abs=2)
    assert ramp.after - ramp.before == pytest.approx(0.3, abs=0.01)


def test_one_percent_a_revision_is_told_within_fifteen():
    for seed in range(20):
        values = noisy([0.0] * 50 + [0.01 * n for n in range(1, 16)], seed=seed)
        assert [change.is_ramp for change in find_changes(values)] == [True]


def test_two_modes_are_no_change_and_hide_none():
    assert find_changes(two_modes(200)) == []
    (step,) = find_changes(two_modes(60) + two_modes(60, seed=2, shift=0.5))
    assert step.first == 60


def test_an_outlier_is_no_change_and_hides_none():
    values = noisy([0.0] * 30 + [0.1] * 30)
    values[10] = values[45] = 3.0
    assert [step.first for step in find_changes(values)] == [30]


def test_what_is_too_small_to_matter_joins_its_neighbours():
    values = noisy([0.0] * 30 + [0.01] * 30 + [0.2] * 30, sigma=0.001)
    steps = find_changes(values, is_material=lambda before, after: abs(after - before) > 0.05)
    assert [step.first for step in steps] == [60]
    assert steps[0].before == pytest.approx(0.005, abs=0.006)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1.0, 1.01, 1.0, 1.01, 1.2, 1.21, 1.2, 1.21], [4]),
        ([1.0, 1.01, 1.0, 1.2, 1.21, 1.2], []),
        ([1.0, 1.1, 1.0, 1.1, 1.15, 1.2, 1.15, 1.2], []),
    ],
)
def test_few_values_are_enough_where_both_sides_lie_far_apart(values, found):
    assert [step.first for step in find_changes(values)] == found


def test_what_rose_and_fell_back_is_found_and_hides_nothing_later():
    levels = [0.0] * 100 + [0.3] * 20 + [0.0] * 100 + [0.1] * 5
    assert [step.first for step in find_changes(noisy(levels, sigma=0.002))] == [100, 120, 220]


def test_unchanging_series_are_rarely_said_to_change():
    found = sum(bool(find_changes(noisy([0.0] * 100, seed=seed))) for seed in range(1_000))
    assert found <= 5


def test_values_that_are_all_the_same_have_no_change():
    assert find_changes([5.0] * 100) == []
    assert [step.first for step in find_changes([5.0] * 50 + [5.1] * 50)] == [50]


def test_clipping_moves_outliers_alone():
    assert clip([1.0, 1.1, 0.9, 1.0, 9.0])[:4] == [1.0, 1.1, 0.9, 1.0]
    assert clip([1.0, 1.1, 0.9, 1.0, 9.0])[4] < 2


@settings(max_examples=50)
@given(st.lists(st.floats(-5, 5), max_size=60))
def test_any_series_gives_changes_in_order_that_join_up(values):
    changes = find_changes(values)
    assert all(0 < change.first <= change.last < len(values) for change in changes)
    assert all(one.last < two.first for one, two in itertools.pairwise(changes))
    assert all(math.isfinite(change.before) and math.isfinite(change.after) for change in changes)
