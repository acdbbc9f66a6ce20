"""One margin for the hint of a failure and for --membudget-suggest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget.gate.budgets import suggested_budget
from pytest_membudget.units import parse_size

MIB = 1024**2


@pytest.mark.parametrize(
    ("peak_bytes", "suggested"),
    [
        (0, "1 MiB"),
        (MIB, "1.5 MiB"),
        (35 * MIB, "50 MiB"),
        (800 * MIB, "1000 MiB"),
        (900 * MIB, "1.5 GiB"),
        (14 * MIB // 10, "2 MiB"),
        (2 * MIB, "3 MiB"),
    ],
)
def test_it_is_a_figure_that_is_easily_read(peak_bytes, suggested):
    assert suggested_budget(peak_bytes) == suggested


@given(st.integers(0, 2**45))
def test_it_is_a_quarter_above_the_peak_and_at_most_twice_that(peak_bytes):
    size = parse_size(suggested_budget(peak_bytes))
    wanted = max(1.25 * peak_bytes, MIB)
    assert wanted <= size <= 2 * wanted
