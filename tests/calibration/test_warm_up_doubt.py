"""Which scales run again before a law is told: scripted peaks in MB, with 30 MB that the first run pays for."""

import pytest
from msgspec.structs import replace

from pytest_membudget.calibration.growth_law import scales_in_doubt
from pytest_membudget.calibration.scales import default_scales
from pytest_membudget.errors import UsageError
from pytest_membudget.records.scale import ScaleRow

MB = 1_000_000
ALL = ("micro", "small", "medium")


def in_doubt(peaks_mb, law, at_most=None, first=(), again=()):
    rows = [
        ScaleRow(
            scale=default_scales()[name],
            peak_bytes=round(peak * MB),
            limit_bytes=1000 * MB,
            budget_bytes=None,
            duration_s=1.0,
            status="PASS",
        )
        for name, peak in zip(ALL, peaks_mb, strict=False)
    ]
    return scales_in_doubt(rows, law, at_most, first=set(first), again=set(again))


def test_a_broken_law_is_told_once_every_scale_ran_again():
    assert in_doubt((32, 8, 32), "linear", first=["micro"]) == ALL
    assert in_doubt((0.5, 2, 32), "linear", first=["micro"], again=["micro"]) == ("small", "medium")
    assert in_doubt((0.5, 2, 32), "linear", again=ALL) == ()


def test_a_law_that_holds_whatever_the_first_run_took_costs_nothing():
    assert in_doubt((2, 8, 32), "linear", first=["micro"]) == ()
    assert in_doubt((0.2, 0.2, 0.2), "flat", first=["micro"]) == ()


def test_growth_below_the_first_runs_own_memory_is_looked_for():
    assert in_doubt((32, 32, 32), "flat", first=["micro"]) == ("micro",)
    assert in_doubt((32, 32, 32), "linear", first=["micro", "small"]) == ("micro", "small")
    assert in_doubt((40, 40, 40), None, "8 B/B", first=["micro"]) == ("micro",)


def test_rows_that_nothing_was_loaded_in_are_believed():
    assert in_doubt((32, 32, 32), "flat") == ()
    assert in_doubt((32, 32, 32), "flat", first=["micro"], again=["micro"]) == ()


def test_two_sizes_are_the_least():
    with pytest.raises(UsageError, match="at least two scales"):
        in_doubt((2,), "flat", first=["micro"])


def test_with_many_first_rows_all_are_in_doubt():
    shape = default_scales()["micro"]
    rows = [
        ScaleRow(
            scale=replace(shape, name=str(size), size_bytes=size * MB),
            peak_bytes=50 * MB,
            limit_bytes=1000 * MB,
            budget_bytes=None,
            duration_s=1.0,
            status="PASS",
        )
        for size in range(1, 31)
    ]
    names = tuple(row.scale.name for row in rows)
    assert scales_in_doubt(rows, "flat", first=set(names), again=()) == names
