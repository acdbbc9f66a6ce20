"""How memory grows with the scale of a job: fitted, used to predict the next scale, and compared with the law it should follow.

A row with figures of its tasks is predicted from its parts: ``M = M_coordinator(size) + P·(base of a worker + peak of a
task) + rest``. A task's peak follows the size of its input, the coordinator's memory the size of the whole job, and the
number of workers P is known beforehand. The total of a row is a poorer guide: whether two short peaks met in it is chance,
and a line through totals takes that for growth.

A job's first run in a process also pays for what it loads once and keeps: modules, caches, pools. The peak of such a
first ("cold") run is only an upper bound for its scale, which by itself takes anything from nothing to that. So
`scales_in_doubt` names the scales that have to run again:

- A law that does not hold is reported only when every scale has run a second time in its process.
- A law that holds is believed where it would hold whatever the cold rows took by themselves, from nothing to their peak.
  Where it would not, those scales run again first.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from pytest_membudget.errors import OverBudgetError, UsageError
from pytest_membudget.records.run import BatchResult, Breakdown, Feature, Outcome
from pytest_membudget.records.scale import CurvePoint, LawFit, Scale, ScaleRow, TaskFigures, TaskPeak
from pytest_membudget.stats.fitting import (
    CONFIDENCE,
    Law,
    PeakFit,
    allowed_rise,
    fit_constant,
    fit_rising,
    judge_law,
    steepest_rise,
)
from pytest_membudget.units import format_size, parse_size

if TYPE_CHECKING:
    from pytest_membudget.calibration.model import Calibration

_CURVE_POINTS = 16
_SLOPE = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{0,12})?)\s*([A-Za-z]+)\s*/\s*([A-Za-z]+)\s*", re.ASCII)


def predict_next(
    rows: Sequence[ScaleRow], scale: Scale, features: Sequence[Feature] = ()
) -> CurvePoint | None:
    """What `scale` would take, by what the rows so far took; `None` with fewer than two sizes.

    Rows with figures of each of their tasks are combined for the workers of `scale`. Others are joined by
    the law of their totals, with a bound for one run: 90% confidence from three sizes on, and with two the most that
    the doubt about each allows.

    Args:
        rows: of smaller scales.
        scale: to come.
        features: the predictors of `scale`; laws use them in place of the size where the rows have the same. Several need
            three rows.
    """
    together = predict_concurrent(rows, scale, features)
    if together is not None:
        return together
    by_features = bool(features) and all(
        _named(row.features).keys() == _named(features).keys() for row in rows
    )
    if by_features and len(features) > 1:
        return _by_several(rows, scale, features)

    def place(of: Scale, known: Sequence[Feature]) -> float:
        return known[0].value if by_features else of.size_bytes

    points = [(place(row.scale, row.features), float(row.peak_bytes)) for row in rows]
    if len({x for x, _ in points}) < 2:
        return None
    x = place(scale, features)
    law = judge_law(points)
    expected = law.fit.expect(x)
    bound = max(expected, law.fit.prediction_bound(x, confidence=CONFIDENCE))
    if len(rows) == 2:
        uppers = [max(row.peak_bytes, row.peak_upper_bytes or 0) for row in rows]
        first, second = ((at, peak, upper) for (at, peak), upper in zip(points, uppers, strict=True))
        bound = max(bound, steepest_rise(first, second, x))
    return CurvePoint(scale.size_bytes, round(expected), round(bound))


def _by_several(rows: Sequence[ScaleRow], scale: Scale, features: Sequence[Feature]) -> CurvePoint | None:
    """By a law of the totals in several predictors."""
    points: list[tuple[Place, int]] = [(_named(row.features), row.peak_bytes) for row in rows]
    law = _law(points)
    if law is None or _is_beyond_one(points, _named(features)):
        return None
    expected = law.expect(_named(features))
    return CurvePoint(scale.size_bytes, expected, max(expected, law.bound(_named(features))))


def fit_law(rows: Sequence[ScaleRow]) -> LawFit | None:
    """The law of growth through the rows, with its curve from 0 to the largest size; `None` with fewer than two."""
    points = _points(rows)
    if len({size for size, _ in points}) < 2:
        return None
    law = judge_law(points)
    largest = max(size for size, _ in points)
    sizes = [round(largest * step / _CURVE_POINTS) for step in range(_CURVE_POINTS + 1)]
    caveats = (
        ()
        if law.slope_high is not None
        else ("two scales give a slope but no bound for it; run a third to have one",)
    )
    return LawFit(
        shape=law.shape,
        slope=law.slope,
        slope_bound=law.slope if law.slope_high is None else law.slope_high,
        base_bytes=round(law.base_bytes),
        curve=tuple(_curve_point(law, size) for size in sizes),
        caveats=caveats,
    )


def parse_slope(text: str) -> float:
    """Bytes per byte from "8 B/B", "2 MB/MB" or "8 kB/B".

    Raises:
        UsageError: not of that form.
    """
    match = _SLOPE.fullmatch(text)
    wrong = UsageError(f'{text!r} is not a slope; write bytes per byte of size, such as "8 B/B"')
    if match is None:
        raise wrong
    number, above, below = match.groups()
    try:
        return float(number) * parse_size(f"1 {above}") / parse_size(f"1 {below}")
    except ValueError:
        raise wrong from None


def check_law(law: str | None, at_most: str | None) -> None:
    """Checks the arguments of a law before anything runs.

    Raises:
        UsageError: an unknown law, or a slope that cannot be read.
    """
    if law not in (None, "flat", "linear"):
        raise UsageError(f'law={law!r} is not a law; write law="flat" or law="linear"')
    if at_most is not None:
        parse_slope(at_most)


def assert_law(rows: Sequence[ScaleRow], law: str | None = None, at_most: str | None = None) -> LawFit | None:
    """Judges the law that the rows follow against the one they should: "flat", or "linear" (with a largest slope).

    "flat" allows a slope whose bound keeps the rise over all scales within 10% + 1 MiB, or within `at_most`.

    Raises:
        OverBudgetError: the slope's bound is above what is allowed, or growth is worse than linear.
        UsageError: unknown law, unreadable slope, or fewer than two sizes.
    """
    check_law(law, at_most)
    found = fit_law(rows)
    if law is None and at_most is None:
        return found
    if found is None:
        raise UsageError("a law of growth needs at least two scales of different size; name more scales")
    points = _points(rows)
    span = max(size for size, _ in points) - min(size for size, _ in points)
    allowed = parse_slope(at_most) if at_most else allowed_rise(points) / span if law == "flat" else None
    _raise_if_worse(found, law, allowed, points)
    return found


def _raise_if_worse(
    found: LawFit, law: str | None, allowed: float | None, points: list[tuple[float, float]]
) -> None:
    seen = ", ".join(f"{format_size(peak)} at {format_size(size)}" for size, peak in points)
    wanted = f'law="{law}"' if law else "the slope"
    if found.shape == "worse" and law is not None:
        raise OverBudgetError(
            f"{wanted} does not hold: the peak grows faster than the size ({seen}); "
            "look for what is kept of every row, or is compared with every other"
        )
    if allowed is not None and found.slope_bound > allowed:
        raise OverBudgetError(
            f"{wanted} does not hold: the peak grows by {found.slope:.3g} B/B, at most {found.slope_bound:.3g} B/B, "
            f"where {allowed:.3g} B/B is allowed ({seen}); process in smaller pieces, or allow more with at_most="
        )


def _points(rows: Sequence[ScaleRow]) -> list[tuple[float, float]]:
    return [(row.scale.size_bytes, row.peak_bytes) for row in rows]


def _curve_point(law: Law, size_bytes: float) -> CurvePoint:
    expected = law.fit.expect(size_bytes)
    bound = law.fit.prediction_bound(size_bytes, confidence=CONFIDENCE)
    return CurvePoint(round(size_bytes), round(expected), round(max(bound, expected)))


_MOST_TRIED = 8
"""First rows whose every combination is tried; with more of them, all are in doubt."""


def scales_in_doubt(
    rows: Sequence[ScaleRow],
    law: str | None,
    at_most: str | None = None,
    *,
    first: Collection[str],
    again: Collection[str],
) -> tuple[str, ...]:
    """The names of the scales to run again, the smallest first; none when the law can be judged.

    `first` ran first in their processes; `again` were measured again, by a second run in a process of their own.

    Raises:
        UsageError: see `assert_law`.
    """
    ordered = sorted(rows, key=lambda row: row.scale.size_bytes)
    names = [row.scale.name for row in ordered]
    if not _holds(ordered, law, at_most):
        return tuple(name for name in names if name not in again)
    doubtful = tuple(name for name in names if name in first and name not in again)
    if len(doubtful) > _MOST_TRIED:
        return doubtful
    for kept in product((True, False), repeat=len(doubtful)):
        nothing = {name for name, keeps in zip(doubtful, kept, strict=True) if not keeps}
        supposed = [replace(row, peak_bytes=0) if row.scale.name in nothing else row for row in ordered]
        if not _holds(supposed, law, at_most):
            return doubtful
    return ()


def _holds(rows: Sequence[ScaleRow], law: str | None, at_most: str | None) -> bool:
    try:
        assert_law(rows, law, at_most)
    except OverBudgetError:
        return False
    return True


MOST_PEAKS = 64
"""Kept of a scale's tasks: enough for a line and its scatter."""

_LEAST_ROWS = 2
_LEAST_TASKS = 3
_CONTENT = 0.95
"""Of tasks that the bound of one task covers; P of them are added up, and are not all at their bound at once."""

_AS_PLANNED = 0.1
"""The files of a row may differ this much from its scale's size; else its batches are not what the job is cut into."""

_BEYOND = 1.25
"""Tasks of one size alone say nothing of tasks larger than this multiple of it."""


def task_figures(batch: BatchResult) -> TaskFigures | None:
    """What the batch's tasks took; `None` where the size and predictors, or the peak, of one are not known, or it was repeated."""
    outcomes = batch.outcomes
    if not outcomes or not all(map(_is_plain, outcomes)):
        return None
    largest = max(outcomes, key=_peak_bytes)
    kept = [largest, *(one for one in outcomes[:: -(-len(outcomes) // MOST_PEAKS)] if one is not largest)]
    levels = {outcome.level for outcome in outcomes}
    return TaskFigures(
        level=levels.pop() if len(levels) == 1 else "mixed",
        count=len(outcomes),
        size_bytes=sum(outcome.size_bytes or 0 for outcome in outcomes),
        workers=batch.workers,
        peaks=tuple(
            TaskPeak(outcome.size_bytes or 0, _peak_bytes(outcome), outcome.features) for outcome in kept
        ),
    )


def _is_plain(outcome: Outcome) -> bool:
    is_known = outcome.size_bytes is not None or bool(outcome.features)
    return outcome.ok and outcome.attempts == 1 and is_known and outcome.peak_bytes is not None


def _peak_bytes(outcome: Outcome) -> int:
    return outcome.peak_bytes or 0


Place = int | dict[str, float]
"""Where a law is asked: at a size in bytes, or at predictors by name."""


def predict_concurrent(
    rows: Sequence[ScaleRow], scale: Scale, features: Sequence[Feature] = ()
) -> CurvePoint | None:
    """What `scale` would take: at most, with all workers at their highest at once; and as near to that as a row came.

    `features` are those of one of its tasks. `None` where fewer than two rows have an account of their tasks, or those are
    not cut as their scales say.
    """
    accounts = [_Account(row, row.tasks, row.breakdown) for row in rows if row.tasks and row.breakdown]
    if len({one.row.scale.size_bytes for one in accounts}) < _LEAST_ROWS or len(accounts) < len(rows):
        return None
    by_features = bool(features) and all(one.has(features) for one in accounts)
    if not scale.batches or not all(one.is_as_planned(by_features) for one in accounts):
        return None
    points: list[tuple[Place, int]] = [
        (_named(peak.features) if by_features else peak.size_bytes, peak.peak_bytes)
        for one in accounts
        for peak in one.tasks.peaks
    ]
    one_task: Place = _named(features) if by_features else round(scale.size_bytes / scale.batches)
    law = _law(points)
    if law is None or _is_beyond_one(points, one_task):
        return None
    workers = min(scale.workers, scale.in_flight, scale.batches)
    held = [(one.row.scale.size_bytes, one.coordinator_bytes) for one in accounts]
    rising = fit_rising(held)
    parts = _Parts(
        coordinator=rising if judge_law(held).shape != "flat" else fit_constant(held),
        base_bytes=max(one.base_bytes for one in accounts),
        task=law,
    )
    together = parts.together(scale.size_bytes, workers, one_task)
    # By so much a row's upper figure exceeds its parts. The closest of them is believed, the widest bounds.
    sums = [parts.of(one, by_features) for one in accounts]
    rests = [one.upper_bytes - total for one, total in zip(accounts, sums, strict=True)]
    nearness = max(
        one.row.peak_bytes / max(1.0, one.row.peak_bytes, total + min(rests))
        for one, total in zip(accounts, sums, strict=True)
    )
    doubts = (
        workers * (law.bound(one_task) - law.expect(one_task)),
        rising.expect(scale.size_bytes) - parts.coordinator.expect(scale.size_bytes),
    )
    # A row whose tasks never met has an upper figure that is low too; but what less of a job took, this one will.
    less = [one.row.peak_bytes for one, total in zip(accounts, sums, strict=True) if total <= together]
    expected = max(max(less, default=0), max(0.0, together + min(rests)) * nearness)
    at_most = together + max(rests) + sum(max(0.0, doubt) for doubt in doubts)
    return CurvePoint(scale.size_bytes, round(expected), round(max(expected, at_most)))


def _law(points: Sequence[tuple[Place, int]]) -> Calibration | None:
    from pytest_membudget.calibration.store import fit_points  # what no scale needs loads nothing

    return fit_points(points, _CONTENT, CONFIDENCE) if len(points) >= _LEAST_TASKS else None


def _is_beyond_one(points: Sequence[tuple[Place, int]], wanted: Place) -> bool:
    """Whether all points are at one place, and that says nothing of the one that is asked for."""
    first = points[0][0]
    if any(place != first for place, _ in points):
        return False
    if isinstance(first, dict) and isinstance(wanted, dict):
        return any(value > _BEYOND * first[name] for name, value in wanted.items())
    return not isinstance(first, dict) and not isinstance(wanted, dict) and wanted > _BEYOND * first


def _named(features: Sequence[Feature]) -> dict[str, float]:
    return {feature.name: feature.value for feature in features}


class _Account(NamedTuple):
    """A row and its own account of where its peak went."""

    row: ScaleRow
    tasks: TaskFigures
    parts: Breakdown

    def has(self, features: Sequence[Feature]) -> bool:
        """Whether all of its tasks have these predictors."""
        return all(_named(peak.features).keys() == _named(features).keys() for peak in self.tasks.peaks)

    def is_as_planned(self, by_features: bool) -> bool:
        """Whether the job was cut as the scale says."""
        scale = self.row.scale
        strayed = 0 if by_features else abs(self.tasks.size_bytes - scale.size_bytes)
        return self.tasks.count == scale.batches and strayed <= _AS_PLANNED * scale.size_bytes

    def one_task(self, by_features: bool) -> Place:
        """The mean of its tasks."""
        if not by_features:
            return round(self.tasks.size_bytes / self.tasks.count)
        every = [_named(peak.features) for peak in self.tasks.peaks]
        return {name: sum(each[name] for each in every) / len(every) for name in every[0]}

    @property
    def base_bytes(self) -> float:
        """A worker's memory beside that of its task."""
        return self.parts.workers_base_bytes / max(1, self.tasks.workers)

    @property
    def coordinator_bytes(self) -> int:
        """What the process that hands out the tasks held, results that had not been read yet included."""
        return self.parts.coordinator_bytes + self.parts.waiting_results_bytes

    @property
    def upper_bytes(self) -> int:
        """The most that the row's peak may have been."""
        return max(self.row.peak_bytes, self.row.peak_upper_bytes or 0)


class _Parts(NamedTuple):
    """The laws of the parts of a peak: of the coordinator by the job's size, of a task by its own, or by its predictors."""

    coordinator: PeakFit
    base_bytes: float
    task: Calibration

    def together(self, size_bytes: float, workers: int, one_task: Place) -> float:
        """The coordinator and all workers at their highest."""
        return self.coordinator.expect(size_bytes) + workers * (self.base_bytes + self.task.expect(one_task))

    def of(self, one: _Account, by_features: bool) -> float:
        """The same of a row that has run."""
        return self.together(one.row.scale.size_bytes, one.tasks.workers, one.one_task(by_features))
