import random

import pytest

from pytest_membudget.stats.change_points import find_levelled_changes


def found(levels, environments, *, sigma=0.005, seed=1):
    chance = random.Random(seed)
    values = [level + chance.gauss(0, sigma) for level in levels]
    return find_levelled_changes(values, environments, is_material=lambda a, b: abs(a - b) > 0.02)


def test_a_step_with_another_environment_is_no_change():
    levelled = found([0.0] * 40 + [0.2] * 40, [0] * 40 + [1] * 40)
    assert levelled.changes == []
    assert levelled.offsets[1] == pytest.approx(0.2, abs=0.01)


def test_a_change_beside_that_step_is_found_with_its_own_size():
    levelled = found([0.0] * 40 + [0.2] * 20 + [0.3] * 20, [0] * 40 + [1] * 40)
    (change,) = levelled.changes
    assert change.first == 60
    assert change.after - change.before == pytest.approx(0.1, abs=0.01)


def test_environments_that_alternate_hide_no_change():
    environments = [n % 2 for n in range(80)]
    levels = [0.2 * environment + (0.1 if n >= 50 else 0) for n, environment in enumerate(environments)]
    (change,) = found(levels, environments).changes
    assert change.first == 50


def test_creep_is_told_across_a_step_of_the_environment():
    levels = [0.01 * max(0, n - 20) + (0.3 if n >= 40 else 0) for n in range(60)]
    (change,) = found(levels, [0] * 40 + [1] * 20).changes
    assert change.is_ramp
    # The part of it that fell beside the step is taken for the environment's.
    assert change.after - change.before == pytest.approx(0.34, abs=0.04)


def test_first_values_unlike_the_rest_of_their_environment_are_no_change():
    levels = [0.0] * 40 + [0.3] * 5 + [0.2] * 35
    assert all(change.first > 41 for change in found(levels, [0] * 40 + [1] * 40).changes)


def test_one_environment_needs_no_offsets():
    assert found([0.0] * 10, [0] * 10).offsets == {}
