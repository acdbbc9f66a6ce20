import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget.gate.comparison import direction, next_step, suspicion
from pytest_membudget.records.report import TestRecord
from pytest_membudget.units import Tolerance, parse_tolerance

MIB = 2**20
TEN_PERCENT_AND_ONE = parse_tolerance("10% + 1 MiB")


def base(peak, samples=()):
    return TestRecord(
        nodeid="t", outcome="passed", peak_bytes=peak * MIB, samples_bytes=tuple(s * MIB for s in samples)
    )


def step(first, samples=(), *, against=None, wanted=5):
    return next_step(
        against or base(100), round(first * MIB), [round(s * MIB) for s in samples], wanted=wanted
    )


def test_the_tolerance_is_the_sum_and_its_end_is_within():
    assert direction(100 * MIB, 111 * MIB, TEN_PERCENT_AND_ONE) == "same"
    assert direction(100 * MIB, 111 * MIB + 1, TEN_PERCENT_AND_ONE) == "regressed"
    assert direction(100 * MIB, 89 * MIB, TEN_PERCENT_AND_ONE) == "same"
    assert direction(100 * MIB, 89 * MIB - 1, TEN_PERCENT_AND_ONE) == "improved"


def test_within_the_tolerance_one_measurement_settles_it():
    assert step(111) == "same"


@pytest.mark.parametrize("first", [130, 70])
def test_beyond_it_fresh_samples_are_asked_for_until_all_agree(first):
    called = "regressed" if first > 100 else "improved"
    assert [step(first, [first] * count) for count in range(6)] == ["rerun"] * 5 + [called]


@pytest.mark.parametrize("wanted", [1, 2, 3, 5, 10])
def test_it_is_called_after_as_many_samples_as_were_allowed(wanted):
    assert step(130, [130] * (wanted - 1), wanted=wanted) == "rerun"
    assert step(130, [130] * wanted, wanted=wanted) == "regressed"


def test_one_sample_within_the_tolerance_ends_the_suspicion_where_no_rank_test_is_possible():
    assert step(130, [130, 100]) == "same"


def test_samples_on_the_other_side_do_not_agree():
    assert step(130, [70]) == "same"


def test_without_reruns_the_one_measurement_decides():
    assert (step(130, wanted=0), step(100, wanted=0), step(70, wanted=0)) == ("regressed", "same", "improved")


def test_fresh_samples_are_held_against_fresh_samples():
    # Alone in a process the test also loads a library: 140 there, 100 within a session.
    against = base(100, samples=[140, 141, 139, 140, 140])
    assert step(130, [140, 141, 140], against=against) == "same"
    assert step(130, [180, 181, 179, 182, 180], against=against) == "regressed"


STEADY = [99, 100, 100, 101, 102]
JUMPY = [80, 120, 120, 121, 122]  # racing threads: mostly 120, sometimes 80


def test_both_ends_of_the_range_have_to_move():
    jumpy = base(120, samples=JUMPY)
    assert step(150, [106, 150, 150, 151, 152], against=jumpy) == "regressed"
    assert step(122, [120, 121, 122, 120, 121], against=jumpy) == "same"
    assert step(150, [80, 150, 150, 151, 152], against=jumpy) == "same"


def test_a_sample_between_the_ends_of_a_scattering_baseline_leaves_the_suspicion_open():
    two_modes = base(120, samples=[80, 120])  # too few for a rank test
    assert step(150, [106], against=two_modes) == "rerun", "the lowest may still have risen"
    assert step(150, [85], against=two_modes) == "same"
    assert step(50, [95], against=two_modes) == "rerun", "the highest may still have fallen"
    assert step(50, [115], against=two_modes) == "same"


def test_one_outlier_does_not_save_a_regression_that_the_rank_test_is_sure_of():
    steady = base(100, samples=STEADY)
    assert step(130, [130, 105], against=steady) == "rerun"
    assert step(130, [130, 105, 130, 131, 132], against=steady) == "regressed"
    assert step(130, [130, 99, 130, 131, 132], against=steady) == "same"


def test_the_suspicion_ends_when_no_further_samples_could_change_the_answer():
    # One of the baseline's own figures among five: the rank test at 0.5% needs all five above all of the baseline's.
    assert step(130, [100], against=base(100, samples=STEADY)) == "same"
    assert step(130, [104], against=base(100, samples=STEADY)) == "rerun", "above all of them, though within"


def test_half_of_the_samples_may_lie_within_and_the_medians_still_differ():
    steady = base(100, samples=STEADY)
    assert step(130, [104] * 4 + [130] * 5, against=steady, wanted=10) == "rerun"
    assert step(130, [104] * 4 + [130] * 6, against=steady, wanted=10) == "regressed"
    assert step(130, [104] * 6, against=steady, wanted=10) == "same"


def test_a_test_that_scatters_is_suspected_by_its_lowest_figure():
    assert step(105, against=base(120, samples=JUMPY)) == "rerun"
    assert suspicion(base(120, samples=JUMPY), 105 * MIB, TEN_PERCENT_AND_ONE) == "regressed", "not improved"
    # Steady ones are of fresh processes, which lack what a session has loaded: like is compared with like.
    assert step(118, against=base(130, samples=STEADY)) == "same"
    assert step(105, against=base(100, samples=STEADY)) == "same"


def test_a_base_of_nothing_has_the_absolute_tolerance():
    nothing = base(0)
    assert next_step(nothing, MIB, tolerance=Tolerance(0.1, MIB)) == "same"
    assert next_step(nothing, MIB + 1, tolerance=Tolerance(0.1, MIB)) == "rerun"


SIZES = st.integers(0, 2**40)


@given(
    SIZES, st.lists(SIZES, max_size=6), SIZES, st.integers(0, 8), st.lists(SIZES, min_size=10, max_size=10)
)
def test_it_always_comes_to_an_end_within_the_samples_allowed(peak, base_samples, first, wanted, stream):
    against = TestRecord(nodeid="t", outcome="passed", peak_bytes=peak, samples_bytes=tuple(base_samples))
    taken = []
    while (found := next_step(against, first, taken, wanted=wanted)) == "rerun":
        taken.append(stream[len(taken)])
    assert len(taken) <= wanted
    alone = direction(peak, first, TEN_PERCENT_AND_ONE)  # without samples the one measurement decides
    assert found in {"same", suspicion(against, first, TEN_PERCENT_AND_ONE) if wanted else alone}


@given(
    st.lists(st.integers(80, 130), max_size=6),
    st.sampled_from([70, 75, 115, 130]),
    st.integers(1, 7),
    st.lists(st.integers(60, 140), min_size=7, max_size=7),
)
def test_ending_early_never_changes_the_answer(base_samples, first, wanted, stream):
    against = base(100, samples=base_samples)
    taken = []
    while (found := step(first, taken, against=against, wanted=wanted)) == "rerun":
        taken.append(stream[len(taken)])
    if found == "same" and suspicion(against, first * MIB, TEN_PERCENT_AND_ONE) == "same":
        return
    assert found == step(first, stream[:wanted], against=against, wanted=wanted)
