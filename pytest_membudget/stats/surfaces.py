"""Peak memory as a function of several predictors: which of them help, and the law that they follow together.

A law is a constant and up to two terms (three where all predictors count by themselves), each a product of powers of the predictors: pages, pages², rows·columns,
width·height. Coefficients are not negative, since more work does not take less memory; so the law rises with every
predictor. Terms are chosen by cross-validation: every distinct input is predicted from the others alone, and of all
laws that are as good as the best within the doubt about it, the simplest is taken.

Peaks scatter in proportion to the peak, as in `fitting`, or evenly: blocks that malloc maps or keeps, and tables that double,
make steps of so many bytes whatever the peak. Even scatter is taken where it is clearly likelier, and within what was measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from pytest_membudget.stats.bounds import tolerance_factor
from pytest_membudget.stats.fitting import LEAST_BYTES, LEAST_LEVERAGE, dot, weighted_least_squares

MOST_PREDICTORS = 3
EXTRAPOLATION = 1.25
"""A term beyond this multiple of the largest one that was fitted is extrapolated."""

_MOST_TERMS = 3
_LEAST_INPUTS = 2
_ROUNDS = 3  # of re-weighting
LEAST_SCATTER = 0.005
"""Errors of up to half a percent are as good as none: they are the kernel's pages and the allocator's arenas. Nor is the
scatter taken for less: repeats of a deterministic function hardly differ, and its next input does."""

_CLEARLY = 1.0
"""Even scatter has to be e times as likely. Of simulated calibrations whose scatter follows the peak 11% to 37% seem even then, and
bounds cover 95% of tasks in 94% to 99% of them."""

Values = tuple[float, ...]
Term = tuple[int, ...]
"""The power of each predictor in one product; all zeros are the constant."""


class SurfaceFit(msgspec.Struct, frozen=True, kw_only=True):
    """Fitted peak in bytes: `coefficients` times `terms` of the predictors over `units`, and what its doubt needs."""

    terms: tuple[Term, ...]
    units: Values
    coefficients: tuple[float, ...]
    largest: tuple[float, ...]
    scatter: float
    freedom: int
    inverse: tuple[tuple[float, ...], ...]
    #: where the scatter is even, the law whose scatter follows the peak: nothing says that it stays even beyond what was measured
    beyond: SurfaceFit | None = None

    @property
    def used(self) -> tuple[int, ...]:
        """The places of the predictors that the law depends on."""
        return _used(self.terms)

    def expect(self, values: Values) -> float:
        """The central estimate, never below 0."""
        return max(0.0, dot(self.coefficients, _row(self.terms, values, self.units)))

    def bound(self, values: Values, *, content: float, confidence: float) -> float:
        """The one-sided tolerance bound: at least the share `content` of new peaks lies below, with `confidence`."""
        if self.beyond is not None and self.is_extrapolated(values):
            least = self.beyond.bound(values, content=content, confidence=confidence)
            return max(least, self._bound(values, content=content, confidence=confidence))
        return self._bound(values, content=content, confidence=confidence)

    def _bound(self, values: Values, *, content: float, confidence: float) -> float:
        center = self.expect(values)
        noise = _noise(center, even=self.beyond is not None)
        row = _row(self.terms, values, self.units)
        variance = sum(dot(line, row) * term for line, term in zip(self.inverse, row, strict=True))
        leverage = max(variance / noise**2, LEAST_LEVERAGE)
        if self.scatter == 0:
            return center
        factor = tolerance_factor(leverage, self.freedom, content=content, confidence=confidence)
        return center + factor * self.scatter * noise

    def is_extrapolated(self, values: Values) -> bool:
        """Whether a term is beyond 1.25 times the largest one that was fitted."""
        row = _row(self.terms, values, self.units)
        return any(term > EXTRAPOLATION * most for term, most in zip(row, self.largest, strict=True))


class _Judged(NamedTuple):
    """A law, and of each distinct input, predicted without it, the squared error over the noise, and that noise."""

    terms: tuple[Term, ...]
    errors: list[float]
    noise: list[float]

    @property
    def error(self) -> float:
        return sum(self.errors) / len(self.errors)

    @property
    def log_likelihood(self) -> float:
        """Of normal errors with the scatter that suits them best, but for a constant."""
        exact = LEAST_SCATTER**2
        return -0.5 * len(self.errors) * math.log(max(self.error, exact)) - sum(map(math.log, self.noise))

    @property
    def simplicity(self) -> tuple[int, int, int, float]:
        """Fewer predictors, then fewer terms, then lower powers, then the smaller error."""
        return len(_used(self.terms)), len(self.terms), sum(map(sum, self.terms)), self.error


def choose_terms(values: Sequence[Values], peaks: Sequence[float]) -> tuple[Term, ...]:
    """The terms of the simplest law that predicts inputs it has not seen about as well as any.

    Args:
        values: the predictors of each run, all finite and not negative, as many in each.
        peaks: what each run took, in bytes.

    Raises:
        ValueError: no runs.
    """
    if not values:
        raise ValueError("no runs: there is nothing to choose a law for")
    line = ((0,), (1,))
    if len(values[0]) == 1 and len(set(values)) == _LEAST_INPUTS and _rises(line, values, peaks):
        return line  # as for sizes: with two inputs nothing can be left out to judge it by
    judged = [found for terms in _laws(len(values[0])) if (found := _judge(terms, values, peaks))]
    if not judged:
        return (_constant(len(values[0])),)
    best = min(judged, key=lambda law: law.error)
    enough = [law for law in judged if _is_as_good(law, best)]
    return min(enough, key=lambda law: law.simplicity).terms


def fit_surface(values: Sequence[Values], peaks: Sequence[float], terms: tuple[Term, ...]) -> SurfaceFit:
    """The weighted law of these terms. Its scatter is that of inputs it has not seen, where that is larger.

    Its degrees of freedom are then the distinct inputs less the terms.

    Raises:
        ValueError: the runs are too few or too much alike for these terms.
    """
    follows, even = (_judge(terms, values, peaks, even=even) for even in (False, True))
    fit = _fit(values, peaks, terms, follows)
    if follows is None or even is None or even.log_likelihood < follows.log_likelihood + _CLEARLY:
        return fit
    return msgspec.structs.replace(_fit(values, peaks, terms, even, even=True), beyond=fit)


def _fit(
    values: Sequence[Values],
    peaks: Sequence[float],
    terms: tuple[Term, ...],
    judged: _Judged | None,
    *,
    even: bool = False,
) -> SurfaceFit:
    units = _units(values)
    rows = [_row(terms, each, units) for each in values]
    fitted = _solve(rows, peaks, even=even)
    if fitted is None:
        raise ValueError(
            f"{len(values)} runs cannot separate {len(terms)} terms; measure more different inputs"
        )
    coefficients, inverse, noise = fitted
    freedom, copies = len(values) - len(terms), 1.0
    residuals = [
        (peak - dot(coefficients, row)) / scale for peak, row, scale in zip(peaks, rows, noise, strict=True)
    ]
    scatter = math.sqrt(sum(residual**2 for residual in residuals) / freedom) if freedom else 0.0
    if judged and math.sqrt(judged.error) > scatter:
        # What varies is the input. Its repeats are copies then, and say nothing more of the next input.
        distinct = len(set(values))
        scatter, freedom, copies = math.sqrt(judged.error), distinct - len(terms), len(values) / distinct
    return SurfaceFit(
        terms=terms,
        units=units,
        coefficients=coefficients,
        largest=tuple(max(row[place] for row in rows) for place in range(len(terms))),
        scatter=max(LEAST_SCATTER, scatter) if freedom else 0.0,
        freedom=freedom,
        inverse=tuple(tuple(copies * each for each in line) for line in inverse),
    )


def _laws(width: int) -> Iterator[tuple[Term, ...]]:
    """The constant with up to two terms: squares, products of two, and of all. And all three predictors by themselves."""
    constant = _constant(width)
    powers = itertools.product(range(3), repeat=width)
    terms = [power for power in powers if 1 <= sum(power) <= 2 or power == (1,) * width]
    yield (constant,)
    for count in range(1, _MOST_TERMS):
        for chosen in itertools.combinations(terms, count):
            yield (constant, *chosen)
    if width == _MOST_TERMS:
        yield (constant, *(term for term in terms if sum(term) == 1))


def _judge(
    terms: tuple[Term, ...], values: Sequence[Values], peaks: Sequence[float], *, even: bool = False
) -> _Judged | None:
    """The law without each distinct input in turn; `None` where it cannot be fitted, or falls with a predictor."""
    units = _units(values)
    rows = [_row(terms, each, units) for each in values]
    fitted = _solve(rows, peaks, even=even)
    if fitted is None or min(fitted[0][1:], default=0.0) < 0:
        return None
    noise = fitted[2]
    errors, noise_of_inputs = [], []
    for left_out in dict.fromkeys(values):
        kept = [place for place, each in enumerate(values) if each != left_out]
        solved = (
            weighted_least_squares(
                [rows[place] for place in kept],
                [peaks[place] for place in kept],
                [noise[place] for place in kept],
            )
            if len(kept) >= len(terms)
            else None
        )
        if solved is None:
            return None
        expected = max(0.0, dot(solved[0], _row(terms, left_out, units)))
        theirs = [peak for each, peak in zip(values, peaks, strict=True) if each == left_out]
        scales = [_noise(peak, even=even) for peak in theirs]
        squares = [((peak - expected) / scale) ** 2 for peak, scale in zip(theirs, scales, strict=True)]
        errors.append(sum(squares) / len(squares))
        noise_of_inputs.append(sum(scales) / len(scales))
    return _Judged(terms, errors, noise_of_inputs)


def _rises(terms: tuple[Term, ...], values: Sequence[Values], peaks: Sequence[float]) -> bool:
    units = _units(values)
    fitted = _solve([_row(terms, each, units) for each in values], peaks)
    return fitted is not None and min(fitted[0][1:]) >= 0


def _is_as_good(law: _Judged, best: _Judged) -> bool:
    """Whether its error is within one standard error of the best law's, or too small to matter.

    The rule of L. Breiman, J. Friedman, R. Olshen and C. Stone, "Classification and Regression Trees" (1984), section 3.4.3: of two laws
    the one that errs less is never the one that is refused.
    """
    if law.error <= LEAST_SCATTER**2:
        return True
    spread = sum((each - best.error) ** 2 for each in best.errors) / max(1, len(best.errors) - 1)
    doubt = math.sqrt(spread / len(best.errors))
    return law.error <= min(best.error + doubt, 4 * best.error)


def _solve(
    rows: Sequence[tuple[float, ...]], peaks: Sequence[float], *, even: bool = False
) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...], list[float]] | None:
    """Coefficients, (XᵀWX)⁻¹ and the noise of each run, by re-weighting with 1 / noise²."""
    if len(rows) < len(rows[0]):
        return None
    noise = [_noise(peak, even=even) for peak in peaks]
    for _ in range(_ROUNDS - 1):
        solved = weighted_least_squares(rows, peaks, noise)
        if solved is None:
            return None
        noise = [_noise(dot(solved[0], row), even=even) for row in rows]
    solved = weighted_least_squares(rows, peaks, noise)
    return None if solved is None else (*solved, noise)


def _noise(peak_bytes: float, *, even: bool) -> float:
    """What the scatter at that peak is a multiple of."""
    return LEAST_BYTES if even else max(peak_bytes, LEAST_BYTES)


def _units(values: Sequence[Values]) -> Values:
    return tuple(max(column) or 1.0 for column in zip(*values, strict=True))


def _row(terms: tuple[Term, ...], values: Values, units: Values) -> tuple[float, ...]:
    scaled = [value / unit for value, unit in zip(values, units, strict=True)]
    return tuple(math.prod(x**power for x, power in zip(scaled, term, strict=True)) for term in terms)


def _constant(width: int) -> Term:
    return (0,) * width


def _used(terms: Sequence[Term]) -> tuple[int, ...]:
    return tuple(place for place in range(len(terms[0])) if any(term[place] for term in terms))
