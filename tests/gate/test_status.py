import pytest

from pytest_membudget.gate.budgets import status_of


@pytest.mark.parametrize(
    ("share", "status"),
    [(43.6, "PASS"), (45.6, "PASS"), (70.0, "PASS"), (86, "HIGH"), (89, "HIGH"), (101, "FAIL")],
)
def test_the_reference_scales_get_their_grades(share, status):
    limit = 32_000_000_000
    assert status_of(round(share / 100 * limit), limit) == status


def test_over_budget_fails_and_exactly_at_it_passes():
    assert status_of(101, 1000, budget_bytes=100) == "FAIL"
    assert status_of(100, 1000, budget_bytes=100) == "PASS"


def test_a_budget_does_not_hide_a_high_share():
    assert status_of(750, 1000, budget_bytes=900) == "HIGH"
    assert status_of(750, 1000, budget_bytes=900, target=0.8) == "PASS"
