import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget.stats.samples import mann_whitney_p, samples_needed, smallest_p

SAMPLES = st.lists(st.integers(0, 6), min_size=1, max_size=5)


def by_hand(base, new):
    """One-sided p by listing every way to deal out the pooled samples."""

    def wins(group, others):
        return sum((a > b) + (a == b) / 2 for a in group for b in others)

    pooled = [*base, *new]
    observed = wins(new, base)
    deals = list(itertools.combinations(range(len(pooled)), len(new)))
    as_far = sum(
        wins([pooled[i] for i in deal], [pooled[i] for i in range(len(pooled)) if i not in deal]) >= observed
        for deal in deals
    )
    return as_far / len(deals)


@given(SAMPLES, SAMPLES)
def test_it_counts_every_deal_ties_included(base, new):
    assert mann_whitney_p(base, new, "greater") == pytest.approx(by_hand(base, new))


@given(SAMPLES, SAMPLES)
def test_less_is_greater_the_other_way_round(base, new):
    assert mann_whitney_p(base, new, "less") == pytest.approx(mann_whitney_p(new, base, "greater"))
    assert mann_whitney_p(base, new) == pytest.approx(mann_whitney_p(new, base))


def test_it_agrees_with_scipy_without_ties():
    scipy_stats = pytest.importorskip("scipy.stats")
    base, new = [1, 4, 6, 9, 12], [3, 8, 10, 14, 15, 17]
    expected = scipy_stats.mannwhitneyu(new, base, alternative="greater", method="exact").pvalue
    assert mann_whitney_p(base, new, "greater") == pytest.approx(expected)


def test_many_samples_use_the_normal_approximation():
    scipy_stats = pytest.importorskip("scipy.stats")
    base, new = list(range(0, 200, 2)), list(range(5, 155, 3))
    expected = scipy_stats.mannwhitneyu(new, base, alternative="two-sided", method="asymptotic").pvalue
    assert mann_whitney_p(base, new) == pytest.approx(expected, rel=1e-6)


def test_equal_samples_never_differ():
    assert mann_whitney_p([5] * 4, [5] * 4) == 1
    assert mann_whitney_p([5] * 100, [5] * 100) == 1


def test_how_many_samples_are_enough():
    assert smallest_p(5, 5) == pytest.approx(1 / 252)
    assert samples_needed(5, 0.05) == 2
    assert samples_needed(3, 0.05) == 3
    assert samples_needed(1, 0.05) == 19
    assert samples_needed(0, 0.05) is None
    with pytest.raises(ValueError, match="both sides, got 0 and 1"):
        mann_whitney_p([], [1])
