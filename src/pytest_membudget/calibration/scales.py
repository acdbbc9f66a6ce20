"""The same job at several scales: one table, its law of growth, and each larger scale foretold before it runs."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_membudget.calibration.growth_law import (
    assert_law,
    check_law,
    fit_law,
    parse_slope,
    predict_next,
)
from pytest_membudget.calibration.shapes import PRESETS, chosen_scales, configured_scales, default_scales
from pytest_membudget.gate import TARGET_SHARE, status_of
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.records.run import BatchResult
from pytest_membudget.records.scale import Scale, ScaleRow
from pytest_membudget.units import Size, parse_share, parse_size

__all__ = [
    "PRESETS",
    "assert_law",
    "check_law",
    "chosen_scales",
    "configured_scales",
    "default_scales",
    "fit_law",
    "parse_slope",
    "predict_next",
    "scale_row",
]


def scale_row(
    scale: Scale,
    measurement: Measurement,
    *,
    limit_bytes: int,
    budget: Size | None = None,
    target: float | str = TARGET_SHARE,
    smaller: Sequence[ScaleRow] = (),
    batch: BatchResult | None = None,
    processed_rows: int | None = None,
) -> ScaleRow:
    """The row of one scale.

    `smaller` are the rows that were there before it ran: they alone give its prediction. `batch` is the run's own
    account, where it has one, and gives the breakdown.
    """
    budget_bytes = None if budget is None else parse_size(budget)
    foretold = predict_next(smaller, scale)
    return ScaleRow(
        scale=scale,
        peak_bytes=measurement.peak_bytes,
        peak_upper_bytes=measurement.peak_upper_bytes,
        limit_bytes=limit_bytes,
        budget_bytes=budget_bytes,
        duration_s=measurement.duration_s,
        status=status_of(measurement.peak_bytes, limit_bytes, budget_bytes, parse_share(target)),
        processed_rows=processed_rows,
        predicted_bytes=foretold.expected_bytes if foretold else None,
        predicted_bound_bytes=foretold.bound_bytes if foretold and len(smaller) > 2 else None,
        timeline=measurement.timeline,
        breakdown=batch.breakdown if batch else None,
        caveats=measurement.caveats,
    )
