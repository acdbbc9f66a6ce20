"""The figures of a measurement that a budget speaks of."""

from __future__ import annotations

from typing import NamedTuple

from pytest_membudget.records.judgement import Budget
from pytest_membudget.records.measurement import Measurement


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
