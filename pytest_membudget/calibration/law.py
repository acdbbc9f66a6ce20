"""The law behind a calibration: chosen and fitted, never below what was seen, and judged on inputs it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from pytest_membudget.errors import UsageError
from pytest_membudget.records.calibration import CalibrationFile, CalibrationQuality
from pytest_membudget.stats.bounds import rate_interval
from pytest_membudget.stats.fitting import RUN_TO_RUN_BYTES, PeakFit, fit_peaks
from pytest_membudget.stats.surfaces import (
    EXTRAPOLATION,
    LEAST_SCATTER,
    Term,
    Values,
    choose_terms,
    fit_surface,
)
from pytest_membudget.units import format_count, parse_share, parse_size

T = TypeVar("T")

LEAST_POINTS = 3
_LEAST_SIZES = 3  # to predict one from the others and still separate growth from overhead
_MOST_PARTS, _LEAST_PARTS = 25, 5
_POINTS_FITTED = 2_500
"""Of all fits together in which a part is left out: recorded runs come by the thousand, each with a size of its own."""


class Run(NamedTuple):
    """One measured run: the values of its predictors, and the peak in bytes."""

    values: Values
    peak_bytes: int


class Law(Protocol):
    """What a fitted law answers, in bytes."""

    def expect(self, values: Values) -> float:
        """The central estimate."""

    def bound(self, values: Values, *, content: float, confidence: float) -> float:
        """The one-sided tolerance bound."""

    def is_extrapolated(self, values: Values) -> bool:
        """Whether nothing was measured near there."""


class SizeLaw(NamedTuple):
    """A law of one predictor, such as the size in bytes: a line, or a bend."""

    fit: PeakFit
    largest: float

    def expect(self, values: Values) -> float:
        """The central estimate."""
        return self.fit.expect(values[0])

    def bound(self, values: Values, *, content: float, confidence: float) -> float:
        """The one-sided tolerance bound."""
        return self.fit.bound(values[0], content=content, confidence=confidence)

    def is_extrapolated(self, values: Values) -> bool:
        """Whether the value is beyond 1.25 × the largest one that was run."""
        return values[0] > EXTRAPOLATION * self.largest


def used_predictors(file: CalibrationFile) -> tuple[str, ...]:
    """Names of the predictors that the law depends on; none where the peak is constant."""
    if not file.predictors:
        return ("bytes",)
    return tuple(
        name for place, name in enumerate(file.predictors) if any(term[place] for term in file.terms)
    )


def runs_of(file: CalibrationFile) -> list[Run]:
    """The points as the law sees them: with the values of the predictors that it depends on."""
    if not file.predictors:
        return [Run((float(point.size_bytes),), point.peak_bytes) for point in file.points]
    used = used_predictors(file)
    places = [place for place, name in enumerate(file.predictors) if name in used]
    return [
        Run(tuple(values[place] for place in places), point.peak_bytes)
        for values, point in zip(file.values, file.points, strict=True)
    ]


def with_terms(file: CalibrationFile) -> CalibrationFile:
    """The file with the law chosen that its predictors follow."""
    if not file.predictors or file.terms:
        return file
    peaks = [point.peak_bytes for point in file.points]
    return msgspec.structs.replace(file, terms=choose_terms(file.values, peaks))


def fit_law(file: CalibrationFile) -> Law:
    """The law of the file's points. Its scatter is that of sizes it has not seen, where that is larger."""
    return _fit(runs_of(file), _terms_of_used(file), _least_scatter(file))


def proven_bound(
    law: Law,
    runs: Sequence[Run],
    values: Values,
    *,
    content: float,
    confidence: float,
    least_margin_bytes: int = 0,
) -> int:
    """The tolerance bound of the law, but never below a peak that was seen with no predictor larger.

    `least_margin_bytes` is what it lies above the central estimate at least: see `least_margin_bytes`.
    """
    seen = max((run.peak_bytes for run in runs if _is_no_larger(run.values, values)), default=0)
    bound = law.bound(values, content=content, confidence=confidence)
    return max(seen, round(max(bound, law.expect(values) + least_margin_bytes)))


def least_margin_bytes(file: CalibrationFile) -> int:
    """What a peak may lie above the estimate where runs were measured here: exact repeats promise nothing below that.

    That is what two runs of one input may differ by, and half of it again, as allocators ask for memory in steps and a law
    through few inputs meets few of them. Figures that the user gives are taken as they are.
    """
    is_measured = file.peak_of == "task" and bool(file.function)
    return RUN_TO_RUN_BYTES * 3 // 2 if file.predictors or is_measured else 0


def leave_one_out(file: CalibrationFile) -> CalibrationQuality | None:
    """How the others predict each size, or each distinct input; `None` with fewer than three."""
    runs, terms = runs_of(file), _terms_of_used(file)
    distinct = sorted({run.values for run in runs})
    if len(distinct) < _LEAST_SIZES:
        return None
    errors: list[float] = []
    bounds = peaks = under = extrapolated = 0
    for part in _parts(distinct, len(runs)):
        rest = [run for run in runs if run.values not in part]
        try:
            law = _fit(rest, terms, _least_scatter(file))
        except ValueError:  # without this one the others cannot separate the terms
            continue
        for values, peak in (run for run in runs if run.values in part):
            bound = proven_bound(
                law,
                rest,
                values,
                content=file.content,
                confidence=file.confidence,
                least_margin_bytes=least_margin_bytes(file),
            )
            errors.append(abs(law.expect(values) - peak) / max(1, peak))
            under += peak > bound
            extrapolated += peak > bound and law.is_extrapolated(values)
            bounds, peaks = bounds + bound, peaks + peak
    if not errors:
        return None
    low, high = rate_interval(under, len(errors))
    return CalibrationQuality(
        error=sum(errors) / len(errors),
        judged=len(errors),
        under_predicted=under,
        under_extrapolated=extrapolated,
        under_low=low,
        under_high=high,
        over_allocation=bounds / max(1, peaks) - 1,
    )


def proven_content(runs: int, confidence: float) -> float:
    """The share of tasks that the largest of so many runs covers, with `confidence`, however peaks scatter: α^(1/n)."""
    return float((1 - confidence) ** (1 / runs))


def runs_to_prove(content: float, confidence: float) -> int:
    """The fewest runs whose largest covers `content` of all tasks with `confidence`: α^(1/n) ≥ content (Wilks 1941)."""
    return math.ceil(round(math.log(1 - confidence) / math.log(content), 9))


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
    """Checks all that a fit relies on.

    Raises:
        ValueError: what is wrong with it.
    """
    if len(file.points) < LEAST_POINTS:
        raise UsageError(
            f"{format_count(len(file.points), 'point')} cannot show how much peaks scatter; measure at least {LEAST_POINTS} tasks"
        )
    for name, share in (("content", file.content), ("confidence", file.confidence)):
        checked_share(name, share)
    for point in file.points:
        parse_size(point.size_bytes), parse_size(point.peak_bytes)
    if file.durations_s and len(file.durations_s) != len(file.points):
        raise UsageError(f"{len(file.durations_s)} durations do not belong to {len(file.points)} points")
    _check_predictors(file)


def _check_predictors(file: CalibrationFile) -> None:
    width = len(file.predictors)
    if (file.version == 2) != bool(width):
        raise UsageError(
            f"it is version {file.version}, which {'has predictors' if file.version == 2 else 'has none'}"
        )
    if not width:
        if file.values or file.terms:
            raise UsageError("it has values or terms of predictors, but names none")
        return
    if len(set(file.predictors)) != width:
        raise UsageError(f"a predictor stands twice in {', '.join(file.predictors)}")
    if len(file.values) != len(file.points) or any(len(values) != width for values in file.values):
        raise UsageError(
            f"not every one of the {len(file.points)} points has values for {', '.join(file.predictors)}"
        )
    if any(not 0 <= value < math.inf for values in file.values for value in values):
        raise UsageError("a value of a predictor is no finite number of 0 or more")
    if file.terms and (
        (0,) * width not in file.terms
        or any(len(term) != width or any(not 0 <= power <= 2 for power in term) for term in file.terms)
    ):
        raise UsageError(f"its terms are no powers of {', '.join(file.predictors)}")


def _terms_of_used(file: CalibrationFile) -> tuple[Term, ...] | None:
    """The terms without the predictors that are not used; `None` for a law of one."""
    used = used_predictors(file)
    if len(used) == 1:
        return None
    places = [place for place, name in enumerate(file.predictors) if name in used]
    return tuple(tuple(term[place] for place in places) for term in file.terms)


def _least_scatter(file: CalibrationFile) -> float:
    """That of a law of one predictor; of sizes in bytes alone the observed scatter counts."""
    return LEAST_SCATTER if file.predictors else 0.0


def _fit(runs: Sequence[Run], terms: tuple[Term, ...] | None, least_scatter: float) -> Law:
    """The law of these runs.

    Raises:
        ValueError: they are too few, or too much alike.
    """
    if terms is not None:
        return fit_surface([run.values for run in runs], [run.peak_bytes for run in runs], terms)
    points = [(run.values[0], float(run.peak_bytes)) for run in runs]
    fit = fit_peaks(points)
    largest = max(size for size, _ in points)
    between = _scatter_between_sizes(points, fit_peaks)
    if not least_scatter:
        return SizeLaw(msgspec.structs.replace(fit, scatter=max(fit.scatter, between)), largest)
    if between > fit.scatter:
        # What varies is the input, not the run: see `fit_surface`.
        distinct = len({size for size, _ in points})
        copies = len(points) / distinct
        fit = msgspec.structs.replace(
            fit,
            scatter=between,
            freedom=max(1, distinct - len(fit.powers)),
            inverse=tuple(tuple(copies * each for each in line) for line in fit.inverse),
        )
    scatter = max(fit.scatter, least_scatter) if fit.freedom else fit.scatter
    return SizeLaw(msgspec.structs.replace(fit, scatter=scatter), largest)


def _scatter_between_sizes(
    points: Sequence[tuple[float, float]], fit: Callable[[Sequence[tuple[float, float]]], PeakFit]
) -> float:
    """How far peaks scatter about the law of the other sizes, in units of one new peak's noise.

    Repeats of one size hardly differ where a function is deterministic. What matters then is how far the law strays
    between sizes, which its residuals show too little of when it has few sizes to go through.
    """
    sizes = sorted({size for size, _ in points})
    squares: list[float] = []
    for part in _parts(sizes, len(points)) if len(sizes) >= _LEAST_SIZES else []:
        rest = [point for point in points if point[0] not in part]
        if len(rest) < LEAST_POINTS:
            continue
        known = EXTRAPOLATION * max(size for size, _ in rest)
        judged = [(size, peak) for size, peak in points if size in part and size <= known]
        if judged:
            law = fit(rest)
            squares += [law.deviation(size, peak) ** 2 for size, peak in judged]
    return math.sqrt(sum(squares) / len(squares)) if squares else 0.0


def _parts(inputs: Sequence[T], points: int) -> list[frozenset[T]]:
    """What is left out at a time: each input, or where there are many a part of them that is spread over all."""
    most = max(_LEAST_PARTS, min(_MOST_PARTS, _POINTS_FITTED // points))
    count = min(len(inputs), most)
    return [frozenset(inputs[first::count]) for first in range(count)]


def _is_no_larger(values: Values, others: Values) -> bool:
    return all(value <= other for value, other in zip(values, others, strict=True))
