import random

import pytest

from pytest_membudget.stats.samples import is_equivalent, judge_pairs, plan

MIB = 2**20
TOLERANCE = {"share": 0.03, "absolute_bytes": MIB // 2}


def around(level, count, *, sigma=0.002, seed=1):
    chance = random.Random(seed)
    return [round(level * MIB * chance.gauss(1, sigma)) for _ in range(count)]


def judged(base, head, looks):
    verdict = None
    for pairs in range(1, looks.last + 1):
        verdict = judge_pairs(base[:pairs], head[:pairs], looks, **TOLERANCE)
        if verdict is not None:
            return verdict, pairs
    raise AssertionError("the last look decides")


@pytest.mark.parametrize(("suspected", "first"), [(1, 6), (4, 7), (50, 9)])
def test_the_first_look_comes_when_sides_that_lie_apart_are_certain(suspected, first):
    looks = plan(suspected, 0.01)
    assert looks.first == first
    assert 2 * suspected * (looks.first_level + looks.last_level) == pytest.approx(0.01)


@pytest.mark.parametrize(("suspected", "rate"), [(0, 0.01), (1, 0.0), (1, 1.0)])
def test_what_cannot_be_planned_is_refused(suspected, rate):
    with pytest.raises(ValueError, match="cannot be planned"):
        plan(suspected, rate)


def test_two_quiet_pairs_are_enough_for_equivalence_and_one_never_is():
    base, head = around(40, 2, sigma=0.0005), around(40.2, 2, sigma=0.0005, seed=2)
    assert is_equivalent(base, head, **TOLERANCE)
    assert not is_equivalent(base[:1], head[:1], **TOLERANCE)
    assert not is_equivalent([0], [0], **TOLERANCE)


def test_equivalence_needs_an_interval_within_the_tolerance():
    assert not is_equivalent(around(40, 3), around(43, 3, seed=2), **TOLERANCE)
    assert not is_equivalent(around(43, 3), around(40, 3, seed=2), **TOLERANCE)
    assert not is_equivalent([40 * MIB, 30 * MIB], [40 * MIB, 40 * MIB], **TOLERANCE)


def test_tests_that_use_nothing_are_equivalent():
    assert is_equivalent([0, 0], [0, 4096], **TOLERANCE)


def test_a_change_is_called_at_the_first_look_where_both_sides_lie_apart():
    looks = plan(1, 0.01)
    assert judged(around(40, 19), around(44, 19, seed=2), looks) == ("regressed", looks.first)
    assert judged(around(44, 19), around(40, 19, seed=2), looks) == ("improved", looks.first)


def test_an_unchanged_test_that_was_suspected_by_chance_is_equivalent_soon():
    verdict, pairs = judged(around(40, 19), around(40, 19, seed=2), plan(1, 0.01))
    assert verdict == "equivalent"
    assert pairs < 5


def test_a_certain_rise_within_the_tolerance_is_no_regression():
    assert judged(around(40, 19), around(40.8, 19, seed=2), plan(1, 0.01))[0] == "equivalent"


def test_two_modes_are_not_called_by_chance():
    called = 0
    for seed in range(300):
        chance = random.Random(seed)
        base, head = ([chance.choice((20, 30)) * MIB for _ in range(25)] for _ in range(2))
        called += judged(base, head, plan(1, 0.01))[0] in {"regressed", "improved"}
    assert called <= 3
