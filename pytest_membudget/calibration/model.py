"""A calibration: measured points, what they predict, and how sure that is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_membudget.errors import UsageError
from pytest_membudget.records.calibration import CalibrationFile, CalibrationPoint, CalibrationQuality
from pytest_membudget.records.report import CalibrationPicture
from pytest_membudget.records.scale import CurvePoint
from pytest_membudget.stats.bounds import rate_interval
from pytest_membudget.stats.fitting import PeakFit, fit_peaks
from pytest_membudget.units import Size, format_count, parse_share, parse_size

if TYPE_CHECKING:
    from pytest_membudget.runtime.prediction.estimator import MemoryEstimator
    from pytest_membudget.stats.learning import Aim


EXTRAPOLATION = 1.25
"""A size beyond this multiple of the largest calibrated size is extrapolated."""

_CURVE_POINTS = 24


class Calibration:
    """What one task adds to a warm worker, at any size: a central estimate and a tolerance bound.

    All figures are bytes. `base_bytes`, the warm worker itself, is in none of the estimates.
    """

    def __init__(self, file: CalibrationFile) -> None:
        check_file(file)
        self.file = file
        self._fit = fit_peaks(file.points)

    @property
    def points(self) -> tuple[CalibrationPoint, ...]:
        """What was measured, as (size_bytes, peak_bytes)."""
        return self.file.points

    @property
    def content(self) -> float:
        """The share of tasks that the bound covers, with `confidence`."""
        return self.file.content

    @property
    def confidence(self) -> float:
        """How often, over repeated calibrations, the bound covers that share."""
        return self.file.confidence

    @property
    def base_bytes(self) -> int:
        """A warm worker less a bare interpreter: charged once per worker, from its start."""
        return self.file.base_bytes

    @property
    def overhead_bytes(self) -> int:
        """The fitted peak of an empty input, never below 0."""
        return round(max(0.0, self._fit.intercept_bytes))

    @property
    def gamma(self) -> float:
        """Bytes of peak per byte of input; where the fit is curved, its mean slope over the calibrated sizes."""
        if not self.curved:
            return max(0.0, self._fit.slope)
        smallest = min(point.size_bytes for point in self.points)
        rise = self._fit.expect(self.max_size_bytes) - self._fit.expect(smallest)
        return max(0.0, rise / (self.max_size_bytes - smallest))

    @property
    def curved(self) -> bool:
        """Whether the peak grows faster than the size."""
        return self._fit.curved

    @property
    def max_size_bytes(self) -> int:
        """The largest calibrated size."""
        return max(point.size_bytes for point in self.points)

    @property
    def seconds_per_mb(self) -> float | None:
        """Time per 10⁶ bytes, total over total; `None` where no times were taken."""
        size_bytes = sum(point.size_bytes for point in self.points)
        return sum(self.file.durations_s) / size_bytes * 1e6 if self.file.durations_s and size_bytes else None

    @property
    def caveats(self) -> tuple[str, ...]:
        """Plain sentences of doubt, empty where there is none."""
        fitted = []
        if len({point.size_bytes for point in self.points}) == 1:
            fitted.append("all points have one size, so nothing is known of how the peak grows with size")
        if self.curved:
            fitted.append("the peak grows faster than the size: no single γ describes it, ask bound(size)")
        if self._fit.flattens:
            fitted.append(
                "the peak grows less the larger the size: expect(size) follows that, while γ and bound(size) keep to the "
                "line, as nobody knows where it ends"
            )
        return (*self.file.caveats, *fitted)

    def expect(self, size: Size) -> int:
        """The central estimate for an input of `size`."""
        return round(self._fit.expect(parse_size(size)))

    def bound(self, size: Size, *, content: float | None = None) -> int:
        """The tolerance bound for an input of `size`, never below a peak seen at that size or a smaller one."""
        return proven_bound(
            self._fit,
            self.points,
            parse_size(size),
            content=self.content if content is None else checked_share("content", content),
            confidence=self.confidence,
        )

    def is_extrapolated(self, size: Size) -> bool:
        """Whether `size` is beyond 1.25 × the largest calibrated size."""
        return parse_size(size) > EXTRAPOLATION * self.max_size_bytes

    @cached_property
    def quality(self) -> CalibrationQuality | None:
        """Each size predicted from the others alone; `None` with fewer than three sizes."""
        return leave_one_size_out(self.points, self.content, self.confidence)

    def estimator(self, aim: Aim = "safe") -> MemoryEstimator:
        """An estimator that starts from these points and learns from every task it is told of.

        "safe" allocates so that few tasks run out; "cheap" so that the expected waste, failed attempts
        included, is least, which is for callers who can retry.
        """
        from pytest_membudget.runtime.prediction.estimator import MemoryEstimator
        from pytest_membudget.stats.learning import AllocationLearner

        if aim not in ("safe", "cheap"):
            raise UsageError(f'aim={aim!r} is neither "safe" nor "cheap"')
        learner = AllocationLearner(aim=aim)
        for point, duration_s in zip(self.points, self._durations(), strict=True):
            learner.observe(*point, duration_s)
        return MemoryEstimator(self.gamma, self.overhead_bytes, self.base_bytes, learner=learner)

    def picture(self, name: str = "") -> CalibrationPicture:
        """The calibration as a report shows it."""
        last = EXTRAPOLATION * self.max_size_bytes
        sizes = [round(last * step / _CURVE_POINTS) for step in range(_CURVE_POINTS + 1)]
        return CalibrationPicture(
            name=name or self.file.function,
            gamma=self.gamma,
            overhead_bytes=self.overhead_bytes,
            base_bytes=self.base_bytes,
            curved=self.curved,
            points=tuple((point.size_bytes, point.peak_bytes) for point in self.points),
            curve=tuple(CurvePoint(size, self.expect(size), self.bound(size)) for size in sizes),
            caveats=self.caveats,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the calibration as JSON, whole or not at all.

        Raises:
            OSError: the folder is missing, not writable or full.
        """
        from pytest_membudget.records.storage import encode_json, write_atomically

        write_atomically(path, encode_json(self.file))

    def _durations(self) -> Sequence[float | None]:
        return self.file.durations_s or (None,) * len(self.points)

    def __repr__(self) -> str:
        return (
            f"<Calibration of {self.file.function or 'given points'}: γ={self.gamma:.3g}, "
            f"overhead_bytes={self.overhead_bytes}, {format_count(len(self.points), 'point')}>"
        )


def proven_bound(
    fit: PeakFit, points: Sequence[CalibrationPoint], size_bytes: int, *, content: float, confidence: float
) -> int:
    """The tolerance bound of the fit, but never below a peak that was seen at that size or a smaller one."""
    seen = max((point.peak_bytes for point in points if point.size_bytes <= size_bytes), default=0)
    return max(seen, round(fit.bound(size_bytes, content=content, confidence=confidence)))


def leave_one_size_out(
    points: Sequence[CalibrationPoint], content: float, confidence: float
) -> CalibrationQuality | None:
    """How the others predict each size; `None` with fewer than three sizes."""
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


LEAST_POINTS = 3


def checked_share(name: str, share: float | str) -> float:
    """A share that leaves room for doubt.

    Raises:
        ValueError: not a share, or all of it.
    """
    try:
        fraction = parse_share(share)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
    if fraction >= 1:
        raise UsageError(f"{name}={share!r} promises too much; write a share below 100%, such as 0.95")
    return fraction


def check_file(file: CalibrationFile) -> None:
    """Looks at all that a fit relies on.

    Raises:
        ValueError: what is wrong with it.
    """
    if len(file.points) < LEAST_POINTS:
        raise UsageError(
            f"{format_count(len(file.points), 'point')} cannot tell how much peaks scatter; measure at least {LEAST_POINTS} tasks"
        )
    for name, share in (("content", file.content), ("confidence", file.confidence)):
        checked_share(name, share)
    for point in file.points:
        parse_size(point.size_bytes), parse_size(point.peak_bytes)
    if file.durations_s and len(file.durations_s) != len(file.points):
        raise UsageError(f"{len(file.durations_s)} durations do not belong to {len(file.points)} points")
