"""Peak memory as a function of size: a weighted line, or a law that bends where the data do.

The scatter of a peak grows with the peak, so each point is weighted by 1 / fitted². Below `LEAST_BYTES` the scatter
no longer shrinks: page tables, arenas and read buffers are as large for a tiny file as for a small one.

How the peak follows the size of a job (`judge_law`: flat, linear, or worse) is judged from few scales: by confidence bounds of a
weighted line through them, and by whether each scale stays near the line through the smaller ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from pytest_membudget.records.scale import LawShape
from pytest_membudget.stats.bounds import curvature_p, t_quantile, tolerance_factor
from pytest_membudget.units import format_count

LEAST_BYTES = 1_000_000.0
RUN_TO_RUN_BYTES = 512 * 1024
"""Two runs of one input may differ by so much: the kernel counts pages in batches for each core, malloc and Python ask for
128 KiB to 1 MiB at a time, and a freed block fits the next request or does not. Ten functions that follow their
predictors exactly differed by up to 0.22 MB between inputs, whatever their peak."""

CURVATURE_P = 0.10
"""A law with a bend replaces the line when the F-test for its bending term falls below this and the term is positive."""

MATERIAL_SHARE = 0.10
"""And when it makes up at least this share of the peak at the largest size, and `LEAST_BYTES`: with little scatter the
test alone finds the bends that every allocator has (small inputs fit into memory that is free already), and a parabola
through those goes astray beyond the data. pandas' bend of 5% predicted 128 MB at four times the size, where 96 were taken."""

_CONSTANT, _LINE, _RISING_FASTER, _FLATTENING, _ROOT = (
    (0.0,),
    (0.0, 1.0),
    (0.0, 1.0, 2.0),
    (0.0, 1.0, 0.5),
    (0.0, 0.5),
)
"""The powers of the size in each law. Buffers that fill up make the square root: readers that work ahead in blocks on
several threads take much for a small file, and little more for a larger one."""

_ROUNDS = 4  # of re-weighting; the weights hardly change after two or three
LEAST_LEVERAGE = 1e-9  # a leverage of 0 cannot happen, rounding apart

_LEAST_NEWS = 1e-7  # a column that differs less than this from the others is their copy

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


class PeakFit(msgspec.Struct, frozen=True, kw_only=True):
    """Fitted peak: a sum of `coefficients` times `powers` of the size over `unit_bytes`, and what its doubt needs.

    A law that flattens keeps the `line` it replaced: that sums the points up in two figures, and its bound holds on.
    """

    coefficients: tuple[float, ...]
    powers: tuple[float, ...]
    unit_bytes: float
    scatter: float
    freedom: int
    inverse: tuple[tuple[float, ...], ...]
    line: PeakFit | None = None

    @property
    def curved(self) -> bool:
        """Whether the peak grows faster than the size."""
        return self.powers == _RISING_FASTER

    @property
    def flattens(self) -> bool:
        """Whether the peak grows less the larger the size."""
        return self.line is not None

    @property
    def slope(self) -> float:
        """Bytes per byte of size: of the line, or of a curve at size 0."""
        if self.line is not None:
            return self.line.slope
        return self.coefficients[1] / self.unit_bytes if len(self.coefficients) > 1 else 0.0

    @property
    def intercept_bytes(self) -> float:
        """The peak of an empty input, by the line where the law flattens."""
        return self.coefficients[0] if self.line is None else self.line.coefficients[0]

    @property
    def slope_error(self) -> float:
        """The standard error of a line's `slope`; 0 for a constant."""
        return (
            self.scatter * math.sqrt(self.inverse[1][1]) / self.unit_bytes if len(self.inverse) > 1 else 0.0
        )

    def expect(self, size_bytes: float) -> float:
        """The central estimate, never below 0."""
        return max(0.0, dot(self.coefficients, self._terms(size_bytes)))

    def bound(self, size_bytes: float, *, content: float, confidence: float) -> float:
        """The one-sided tolerance bound: at least the share `content` of new peaks lies below, with `confidence`.

        Where flattening begins and ends is not known: the bound is never below that of the line.
        """
        least = 0.0
        if self.line is not None:
            least = self.line.bound(size_bytes, content=content, confidence=confidence)
        center = self.expect(size_bytes)
        if self.scatter == 0:
            return max(center, least)
        factor = tolerance_factor(
            self._leverage(size_bytes), self.freedom, content=content, confidence=confidence
        )
        return max(center + factor * self.scatter * self._noise(size_bytes), least)

    def prediction_bound(self, size_bytes: float, *, confidence: float) -> float:
        """What one new peak stays below with `confidence`: t·s·√(1 + h) above the centre; the centre without freedom."""
        center = self.expect(size_bytes)
        if not self.freedom:
            return center
        reach = t_quantile(confidence, self.freedom) * math.sqrt(1 + self._leverage(size_bytes))
        return center + reach * self.scatter * self._noise(size_bytes)

    def deviation(self, size_bytes: float, peak_bytes: float) -> float:
        """How far a peak that was not fitted lies from the estimate, over the noise of both: (y − ŷ) / (noise·√(1 + h))."""
        reach = self._noise(size_bytes) * math.sqrt(1 + self._leverage(size_bytes))
        return (peak_bytes - self.expect(size_bytes)) / reach

    def _noise(self, size_bytes: float) -> float:
        return max(self.expect(size_bytes), LEAST_BYTES)

    def _leverage(self, size_bytes: float) -> float:
        """The variance of the fitted value over the variance of one new peak there."""
        terms = self._terms(size_bytes)
        variance = sum(dot(row, terms) * term for row, term in zip(self.inverse, terms, strict=True))
        return max(variance / self._noise(size_bytes) ** 2, LEAST_LEVERAGE)

    def _terms(self, size_bytes: float) -> tuple[float, ...]:
        x = size_bytes / self.unit_bytes
        return tuple(x**power for power in self.powers)


def fit_peaks(points: Points) -> PeakFit:
    """The line through (size, peak) in bytes, or the law with a bend where the points bend significantly.

    Upwards that is a parabola, downwards a square root beside the line. Points of a single size give a constant, and so
    do points that fall: see `fit_rising`.

    Raises:
        ValueError: fewer than three points.
    """
    if len(points) < 3:
        raise ValueError(f"{format_count(len(points), 'point')} cannot be fitted; 3 or more are needed")
    line = fit_rising(points)
    if len(points) < 4 or len({size for size, _ in points}) < 3:
        return line
    parabola = _fit(points, _RISING_FASTER)
    if parabola and _bends(parabola) and sum(parabola.coefficients[1:]) > 0:
        return parabola
    root = _fit(points, _FLATTENING)
    if root and line.slope > 0 and _bends(root):
        if root.coefficients[1] < 0:  # it would fall in the end
            root = _fit(points, _ROOT) or root
        return msgspec.structs.replace(root, line=line)
    return line


def fit_rising(points: Points) -> PeakFit:
    """The weighted line where it rises, else the constant.

    Larger inputs do not take less: a line that falls is scatter, and beyond the data it would promise nothing at all.

    Raises:
        ValueError: no points.
    """
    line = fit_line(points)
    return line if line.slope >= 0 else fit_constant(points)


def fit_line(points: Points) -> PeakFit:
    """The weighted line through (size, peak) points; the constant where all sizes are one.

    Raises:
        ValueError: no points.
    """
    return _fit(points, _LINE) or fit_constant(points)


def fit_constant(points: Points) -> PeakFit:
    """The same peak at every size: the weighted mean.

    Raises:
        ValueError: no points.
    """
    fit = _fit(points, _CONSTANT)
    if fit is None:
        raise ValueError("nothing can be fitted to no points")
    return fit


def _bends(law: PeakFit) -> bool:
    """Whether the law's last term is positive, matters, and is no chance."""
    term = law.coefficients[2]
    error = law.scatter * math.sqrt(law.inverse[2][2])
    # At the largest size x is 1, and so is every power of it: the peak there is the sum of the coefficients.
    if term < max(LEAST_BYTES, MATERIAL_SHARE * sum(law.coefficients)):
        return False
    return error == 0 or curvature_p((term / error) ** 2, law.freedom) < CURVATURE_P


def _fit(points: Points, powers: tuple[float, ...]) -> PeakFit | None:
    """The weighted sum of these powers, or `None` where the sizes are too few or too close together."""
    if len(points) < len(powers):
        return None
    unit = float(max(size for size, _ in points)) or 1.0
    rows = [tuple((size / unit) ** power for power in powers) for size, _ in points]
    peaks = [float(peak) for _, peak in points]
    fitted = peaks
    for _ in range(_ROUNDS):
        noise = [max(value, LEAST_BYTES) for value in fitted]
        solved = weighted_least_squares(rows, peaks, noise)
        if solved is None:
            return None
        coefficients, inverse = solved
        fitted = [dot(coefficients, row) for row in rows]
    freedom = len(points) - len(powers)
    residuals = [(peak - value) / scale for peak, value, scale in zip(peaks, fitted, noise, strict=True)]
    scatter = math.sqrt(sum(residual**2 for residual in residuals) / freedom) if freedom else 0.0
    return PeakFit(
        coefficients=coefficients,
        powers=powers,
        unit_bytes=unit,
        scatter=scatter,
        freedom=freedom,
        inverse=inverse,
    )


def weighted_least_squares(
    rows: Sequence[tuple[float, ...]], peaks: Sequence[float], noise: Sequence[float]
) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]] | None:
    """Coefficients β and (XᵀWX)⁻¹ with W = 1 / noise², by Gram-Schmidt; `None` where a column adds nothing."""
    target = [peak / scale for peak, scale in zip(peaks, noise, strict=True)]
    width = len(rows[0])
    basis: list[list[float]] = []  # orthonormal columns
    mixtures: list[list[float]] = []  # each of them as a combination of the original columns
    for index in range(width):
        column = [row[index] / scale for row, scale in zip(rows, noise, strict=True)]
        mixture = [float(index == other) for other in range(width)]
        length = math.sqrt(dot(column, column))
        for _ in range(2):  # a second pass removes what rounding left
            for known, recipe in zip(basis, mixtures, strict=True):
                share = dot(known, column)
                column = [value - share * part for value, part in zip(column, known, strict=True)]
                mixture = [value - share * part for value, part in zip(mixture, recipe, strict=True)]
        left = math.sqrt(dot(column, column))
        if left <= _LEAST_NEWS * length:
            return None
        basis.append([value / left for value in column])
        mixtures.append([value / left for value in mixture])
    shares = [dot(known, target) for known in basis]
    coefficients = tuple(dot(shares, [recipe[i] for recipe in mixtures]) for i in range(width))
    inverse = tuple(
        tuple(sum(recipe[i] * recipe[j] for recipe in mixtures) for j in range(width)) for i in range(width)
    )
    return coefficients, inverse


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    """The sum of the products."""
    return sum(a * b for a, b in zip(left, right, strict=True))


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
