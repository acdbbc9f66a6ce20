"""Peak memory as a function of size: a weighted line, or a parabola where the data are curved.

The scatter of a peak grows with the peak, so each point is weighted by 1 / fitted². Below `LEAST_BYTES` the scatter
no longer shrinks: page tables, arenas and read buffers are as large for a tiny file as for a small one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from pytest_membudget.stats.bounds import curvature_p, t_quantile, tolerance_factor

LEAST_BYTES = 1_000_000.0
CURVATURE_P = 0.10
"""A parabola replaces the line when the F-test for its square term falls below this and the term is positive."""

MATERIAL_SHARE = 0.05
"""And when it makes up at least this share of the peak at the largest size, and `LEAST_BYTES`: with little scatter the
test alone finds the bends that every allocator has (small inputs fit into memory that is free already), and a parabola
through those goes astray beyond the data."""

_ROUNDS = 4  # of re-weighting; the weights settle after two or three
_LEAST_LEVERAGE = 1e-9  # a leverage of 0 cannot happen, rounding apart
_LEAST_NEWS = 1e-7  # a column that differs less than this from the others is their copy

Points = Sequence[tuple[float, float]]


class PeakFit(msgspec.Struct, frozen=True, kw_only=True):
    """Fitted peak: ``a + b·x + c·x²`` with x the size over `unit_bytes`, and what its uncertainty needs."""

    coefficients: tuple[float, ...]
    unit_bytes: float
    scatter: float
    freedom: int
    inverse: tuple[tuple[float, ...], ...]

    @property
    def curved(self) -> bool:
        """Whether a square term is part of the fit."""
        return len(self.coefficients) == 3

    @property
    def slope(self) -> float:
        """Bytes per byte of size at size 0; the same everywhere on a line."""
        return self.coefficients[1] / self.unit_bytes if len(self.coefficients) > 1 else 0.0

    @property
    def slope_error(self) -> float:
        """The standard error of `slope`; 0 where there is none to tell."""
        return (
            self.scatter * math.sqrt(self.inverse[1][1]) / self.unit_bytes if len(self.inverse) > 1 else 0.0
        )

    def expect(self, size_bytes: float) -> float:
        """The central estimate, never below 0."""
        return max(0.0, _dot(self.coefficients, self._terms(size_bytes)))

    def bound(self, size_bytes: float, *, content: float, confidence: float) -> float:
        """The one-sided tolerance bound: at least the share `content` of new peaks lies below, with `confidence`."""
        center = self.expect(size_bytes)
        if self.scatter == 0:
            return center
        factor = tolerance_factor(
            self._leverage(size_bytes), self.freedom, content=content, confidence=confidence
        )
        return center + factor * self.scatter * self._noise(size_bytes)

    def prediction_bound(self, size_bytes: float, *, confidence: float) -> float:
        """What one new peak stays below with `confidence`: t·s·√(1 + h) above the centre; the centre without freedom."""
        center = self.expect(size_bytes)
        if not self.freedom:
            return center
        reach = t_quantile(confidence, self.freedom) * math.sqrt(1 + self._leverage(size_bytes))
        return center + reach * self.scatter * self._noise(size_bytes)

    def _noise(self, size_bytes: float) -> float:
        return max(self.expect(size_bytes), LEAST_BYTES)

    def _leverage(self, size_bytes: float) -> float:
        """The variance of the fitted value over the variance of one new peak there."""
        terms = self._terms(size_bytes)
        variance = sum(_dot(row, terms) * term for row, term in zip(self.inverse, terms, strict=True))
        return max(variance / self._noise(size_bytes) ** 2, _LEAST_LEVERAGE)

    def _terms(self, size_bytes: float) -> tuple[float, ...]:
        x = size_bytes / self.unit_bytes
        return tuple(x**power for power in range(len(self.coefficients)))


def fit_peaks(points: Points) -> PeakFit:
    """The line through (size, peak) in bytes, or the parabola where the points are significantly convex.

    Points of a single size give a constant, and so do points that fall: see `fit_rising`.

    Raises:
        ValueError: fewer than three points.
    """
    if len(points) < 3:
        raise ValueError(f"{len(points)} points cannot be fitted; 3 or more are needed")
    line = fit_rising(points)
    if len(points) < 4 or len({size for size, _ in points}) < 3:
        return line
    parabola = _fit(points, degree=2)
    return parabola if parabola and _is_convex(parabola) else line


def fit_rising(points: Points) -> PeakFit:
    """The weighted line where it rises, else the constant.

    Larger inputs do not take less: a line that falls is scatter, and beyond the data it would promise nothing at all.

    Raises:
        ValueError: no points.
    """
    line = fit_line(points)
    return line if line.slope >= 0 else _fit(points, degree=0) or line


def fit_line(points: Points) -> PeakFit:
    """The weighted line through (size, peak) points; the constant where all sizes are one.

    Raises:
        ValueError: no points.
    """
    fit = _fit(points, degree=1) or _fit(points, degree=0)
    if fit is None:
        raise ValueError("nothing can be fitted to no points")
    return fit


def _is_convex(parabola: PeakFit) -> bool:
    square = parabola.coefficients[2]
    error = parabola.scatter * math.sqrt(parabola.inverse[2][2])
    # At the largest size x is 1: the square term is then c, the peak a + b + c, and the rise up to it b + c.
    if square < max(LEAST_BYTES, MATERIAL_SHARE * sum(parabola.coefficients)):
        return False
    if sum(parabola.coefficients[1:]) <= 0:
        return False
    return error == 0 or curvature_p((square / error) ** 2, parabola.freedom) < CURVATURE_P


def _fit(points: Points, degree: int) -> PeakFit | None:
    """The weighted polynomial, or `None` where the sizes are too few or too close together to tell it."""
    if len(points) <= degree:
        return None
    unit = float(max(size for size, _ in points)) or 1.0
    rows = [tuple((size / unit) ** power for power in range(degree + 1)) for size, _ in points]
    peaks = [float(peak) for _, peak in points]
    fitted = peaks
    for _ in range(_ROUNDS):
        noise = [max(value, LEAST_BYTES) for value in fitted]
        solved = _weighted_least_squares(rows, peaks, noise)
        if solved is None:
            return None
        coefficients, inverse = solved
        fitted = [_dot(coefficients, row) for row in rows]
    freedom = len(points) - degree - 1
    residuals = [(peak - value) / scale for peak, value, scale in zip(peaks, fitted, noise, strict=True)]
    scatter = math.sqrt(sum(residual**2 for residual in residuals) / freedom) if freedom else 0.0
    return PeakFit(
        coefficients=coefficients, unit_bytes=unit, scatter=scatter, freedom=freedom, inverse=inverse
    )


def _weighted_least_squares(
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
        length = math.sqrt(_dot(column, column))
        for _ in range(2):  # a second pass removes what rounding left
            for known, recipe in zip(basis, mixtures, strict=True):
                share = _dot(known, column)
                column = [value - share * part for value, part in zip(column, known, strict=True)]
                mixture = [value - share * part for value, part in zip(mixture, recipe, strict=True)]
        left = math.sqrt(_dot(column, column))
        if left <= _LEAST_NEWS * length:
            return None
        basis.append([value / left for value in column])
        mixtures.append([value / left for value in mixture])
    shares = [_dot(known, target) for known in basis]
    coefficients = tuple(_dot(shares, [recipe[i] for recipe in mixtures]) for i in range(width))
    inverse = tuple(
        tuple(sum(recipe[i] * recipe[j] for recipe in mixtures) for j in range(width)) for i in range(width)
    )
    return coefficients, inverse


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))
