"""How does the peak follow the size of the job: flat, linear, or worse?

Scales are few, so a law is judged by confidence bounds of a weighted line through them, and by whether each scale
stays near the line through the smaller ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pytest_membudget.records.scale import LawShape
from pytest_membudget.stats.bounds import t_quantile
from pytest_membudget.stats.fitting import PeakFit, fit_line, fit_peaks, fit_rising

CONFIDENCE = 0.90
"""Of the slope's one-sided bounds and of predictions; with three scales more would ask for a miracle."""

FLAT_SHARE = 0.10
FLAT_BYTES = 1024 * 1024
"""A rise over all scales within this share of the peak plus these bytes counts as flat."""

WORSE_SHARE = 0.25
"""A peak this far above the line through the smaller scales is growth beyond linear."""

SCATTER_SHARE = 0.10
SCATTER_BYTES = 1024 * 1024
"""By how much a peak may differ from one run to the next: the tolerance that a test has where it names none."""

Points = Sequence[tuple[float, float]]

Range = tuple[float, float, float]
"""A size, and the least and the most that the peak may have been there."""


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """The shape of growth and the fit behind it. Slopes are bytes per byte; `None` where two points give no bound."""

    shape: LawShape
    slope: float
    slope_low: float | None
    slope_high: float | None
    base_bytes: float
    fit: PeakFit


def judge_law(points: Points) -> Law:
    """The law of (size, peak) points in bytes.

    Raises:
        ValueError: fewer than two sizes.
    """
    ordered = sorted(points)
    if len({size for size, _ in ordered}) < 2:
        raise ValueError("a law of growth needs at least two scales of different size")
    line = fit_line(ordered)
    low = high = None
    if line.freedom:
        reach = t_quantile(CONFIDENCE, line.freedom) * line.slope_error
        low, high = line.slope - reach, line.slope + reach
    return Law(
        shape=_shape(ordered, line),
        slope=line.slope,
        slope_low=low,
        slope_high=high,
        base_bytes=max(0.0, line.coefficients[0]),
        fit=fit_peaks(ordered) if len(ordered) > 4 else fit_rising(ordered),
    )


def steepest_rise(first: Range, second: Range, size_bytes: float) -> float:
    """The most that two readings allow at a larger size: the line from the least of one to the most of the other.

    Two points leave no residual to judge their scatter by. Theirs is what each reading leaves open, and what a peak may
    differ from run to run.
    """
    (size, low, _), (larger, _, high) = sorted((first, second))
    low = max(0.0, low * (1 - SCATTER_SHARE) - SCATTER_BYTES)
    high = high * (1 + SCATTER_SHARE) + SCATTER_BYTES
    return high + max(0.0, high - low) / (larger - size) * max(0.0, size_bytes - larger)


def allowed_rise(points: Points) -> float:
    """The rise in bytes, from the smallest to the largest size, that still counts as flat."""
    return FLAT_SHARE * min(peak for _, peak in points) + FLAT_BYTES


def _shape(ordered: Points, line: PeakFit) -> LawShape:
    span = ordered[-1][0] - ordered[0][0]
    if line.slope * span <= allowed_rise(ordered):
        return "flat"
    return "worse" if _outgrows_the_line(ordered) else "linear"


def _outgrows_the_line(ordered: Points) -> bool:
    """Whether some scale lies far above what the smaller ones predict, and the larger ones do not take it back."""
    if len(ordered) > 4 and fit_peaks(ordered).curved:
        return True
    if len(ordered) < 3:
        return False
    (first, _), (before, _), (size, peak) = ordered[0], ordered[-2], ordered[-1]
    if before == first:
        return False
    predicted = fit_line(ordered[:-1]).expect(size)
    reach = (size - before) / (before - first)  # how many times a small error of the line grows on the way
    return peak > predicted * (1 + WORSE_SHARE) + FLAT_BYTES * (1 + reach)
