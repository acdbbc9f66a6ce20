"""How good is a fit? Each size is predicted from the others alone."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_membudget.calibration.checks import LEAST_POINTS
from pytest_membudget.records.calibration import CalibrationPoint, CalibrationQuality
from pytest_membudget.stats.bounds import rate_interval
from pytest_membudget.stats.fitting import PeakFit, fit_peaks


def proven_bound(
    fit: PeakFit, points: Sequence[CalibrationPoint], size_bytes: int, *, content: float, confidence: float
) -> int:
    """The tolerance bound of the fit, but never below a peak that was seen at that size or a smaller one."""
    seen = max((point.peak_bytes for point in points if point.size_bytes <= size_bytes), default=0)
    return max(seen, round(fit.bound(size_bytes, content=content, confidence=confidence)))


def leave_one_size_out(
    points: Sequence[CalibrationPoint], content: float, confidence: float
) -> CalibrationQuality | None:
    """How the others foretell each size; `None` with fewer than three sizes."""
    sizes = sorted({point.size_bytes for point in points})
    if len(sizes) < LEAST_POINTS:
        return None
    errors: list[float] = []
    bounds = peaks = under = 0
    for left_out in sizes:
        rest = [point for point in points if point.size_bytes != left_out]
        if len(rest) < LEAST_POINTS:
            continue
        fit = fit_peaks(rest)
        bound = proven_bound(fit, rest, left_out, content=content, confidence=confidence)
        for peak in (point.peak_bytes for point in points if point.size_bytes == left_out):
            errors.append(abs(fit.expect(left_out) - peak) / max(1, peak))
            under += peak > bound
            bounds, peaks = bounds + bound, peaks + peak
    if not errors:
        return None
    low, high = rate_interval(under, len(errors))
    return CalibrationQuality(
        error=sum(errors) / len(errors),
        judged=len(errors),
        under_predicted=under,
        under_low=low,
        under_high=high,
        over_allocation=bounds / max(1, peaks) - 1,
    )
