"""The figures of a measurement that a budget speaks of."""

from __future__ import annotations

from typing import NamedTuple

from pytest_membudget.records.judgement import Budget
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.units import BYTES_PER_UNIT

_HEADROOM = 1.25
_STEPS = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
_SMALLEST_BYTES = 1024**2


class Figure(NamedTuple):
    """One judged size: proven and upper figure, its budget, the marker argument that set it, and its meaning."""

    name: str
    argument: str
    meaning: str
    proven_bytes: int
    upper_bytes: int
    budget_bytes: int


def figures_of(measurement: Measurement, budget: Budget) -> list[Figure]:
    """One figure for each part of `budget` that is given."""
    doubt_bytes = measurement.peak_upper_bytes - measurement.peak_bytes
    total_bytes, retained_bytes = measurement.total_peak_bytes, measurement.retained_bytes
    parts = [
        (
            "peak",
            "",
            "peak of the whole process tree above its start",
            measurement.peak_bytes,
            measurement.peak_upper_bytes,
            budget.peak_bytes,
        ),
        (
            "total peak",
            "total=",
            "absolute peak of the whole process tree",
            total_bytes,
            total_bytes + doubt_bytes,
            budget.total_bytes,
        ),
        (
            "retained",
            "retained=",
            "what the process tree holds at the end above its start",
            retained_bytes,
            retained_bytes,
            budget.retained_bytes,
        ),
    ]
    return [Figure(*part[:5], part[5]) for part in parts if part[5] is not None]


def suggested_budget(peak_bytes: int) -> str:
    """A budget that would fit, as one writes it: a quarter above the peak, rounded up, at least "1 MiB"."""
    wanted = max(peak_bytes * _HEADROOM, _SMALLEST_BYTES)
    unit = "MiB" if wanted <= 1000 * 1024**2 else "GiB"
    in_unit = wanted / BYTES_PER_UNIT[unit]
    decade = 1
    while in_unit > 10 * decade:
        decade *= 10
    return f"{next(step * decade for step in _STEPS if in_unit <= step * decade):g} {unit}"
