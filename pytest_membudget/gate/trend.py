"""What a history says of each test: steady, jumped or crept, and since which revision.

1. Runs of one revision in one environment become one place on the axis, with the median of their peaks.
2. Logarithms of the peaks are searched for changes (`stats.change_points`), apart from the steps that came with another
   environment (`stats.change_points`).
3. A change counts while the test is still above the level before it. The latest such change gives the verdict:
   a step is a jump, a ramp is creep. What fell back, or was repaired, is steady.

The level at the start is the anchor: it never follows the test, so that no slow rise is ever taken for normal.

`learn_tolerances` gives each test a tolerance of its own, from how much its peaks scattered over the revisions since it last
changed. A quiet test may be held tighter than the default, so that less slips through; one whose peaks jump is given what it
has shown, so that it is run again less often. Only rises count: a test that sometimes uses less must not be allowed more.
"""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from pytest_membudget.errors import UsageError
from pytest_membudget.gate.baseline import environment_differences
from pytest_membudget.gate.history import History, RawSeries, open_history
from pytest_membudget.records.comparison import (
    ChangeKind,
    HistoryRun,
    RevisionPoint,
    TestTrend,
    TrendChange,
    TrendReport,
    TrendVerdict,
)
from pytest_membudget.records.report import Environment
from pytest_membudget.stats.change_points import SIGMA_PER_MAD, Change, Levelled, find_levelled_changes
from pytest_membudget.stats.samples import median
from pytest_membudget.units import Tolerance

#: A smaller change is not worth a line, however certain: 2%, and one page of memory.
TREND_TOLERANCE = Tolerance(share=0.02, absolute_bytes=4096)
#: With fewer revisions nothing is said.
FEWEST_REVISIONS = 6

#: Days, or revisions where days are not known, that a reader calls "this month".
_MONTH = 30

#: With fewer revisions at its present level a test keeps the tolerance of all.
FEWEST_REVISIONS_TO_LEARN = 20
#: Only so many of the newest revisions count.
_MOST_REVISIONS = 200
_SHARE_OF_RISES = 0.95
_MARGIN = 1.5
_LEAST, _MOST = 0.03, 0.5
#: A bound of small figures: allocators grow in steps of a quarter or half a MiB.
_ABSOLUTE_BYTES = 512 * 1024


class Axis(NamedTuple):
    """Where each run of a history stands on the axis of revisions."""

    revisions: tuple[RevisionPoint, ...]
    environments: tuple[Environment, ...]
    position_of_run: list[int]


def find_trends(
    history: History, path: str, *, tolerance: Tolerance = TREND_TOLERANCE, since: str = ""
) -> TrendReport:
    """The verdict on every test, those that got worse first.

    Args:
        history: what to read.
        path: its name in the report.
        tolerance: a change within it is none.
        since: a revision, or a day such as 2026-11-01; earlier changes make no verdict, though they are kept.

    Raises:
        UsageError: `since` is not in the history.
    """
    axis = make_axis(history.runs())
    first = _first_position(axis, since) if since else 0
    tests = [_judge(series, axis, tolerance, first) for series in history.series()]
    tests.sort(key=_worst_first)
    return TrendReport(
        path=path,
        tolerance=str(tolerance),
        since=since,
        month_index=_month_index(axis),
        revisions=axis.revisions,
        environments=axis.environments,
        tests=tuple(tests),
    )


def make_axis(runs: Sequence[HistoryRun]) -> Axis:
    """One place for all runs of one revision in one environment, in the order of their first runs.

    A run without a revision has a place of its own. Environments that differ in nothing that moves a peak are one.
    """
    environments: list[Environment] = []
    seen: dict[bytes, int] = {}
    places: dict[tuple[str, int], int] = {}
    revisions: list[RevisionPoint] = []
    positions = []
    for number, run in enumerate(runs):
        environment = _number_of(run.environment, environments, seen)
        key = (run.revision or f"\0{number}", environment)
        if key not in places:
            places[key] = len(revisions)
            revisions.append(
                RevisionPoint(revision=run.revision, created=run.created, environment=environment)
            )
        positions.append(places[key])
    return Axis(tuple(revisions), tuple(environments), positions)


def _number_of(environment: Environment, known: list[Environment], seen: dict[bytes, int]) -> int:
    text = repr(environment).encode("utf-8", "backslashreplace")
    if text not in seen:
        alike = (n for n, each in enumerate(known) if not environment_differences(each, environment))
        number = next(alike, len(known))
        if number == len(known):
            known.append(environment)
        seen[text] = number
    return seen[text]


def _first_position(axis: Axis, since: str) -> int:
    for position, point in enumerate(axis.revisions):
        if point.revision.startswith(since):
            return position
    for position, point in enumerate(axis.revisions):
        if since[:4].isdigit() and point.created >= since:
            return position
    known = ", ".join(point.label for point in axis.revisions[-3:])
    raise UsageError(
        f"the history has no revision {since!r} and none as late as that; write a revision such as {known}, or a day"
    )


def _month_index(axis: Axis) -> int:
    days = [_day(point.created) for point in axis.revisions]
    newest = max((day for day in days if day is not None), default=None)
    if newest is None:
        return max(0, len(days) - _MONTH)
    begin = newest - datetime.timedelta(days=_MONTH)
    return next(index for index, day in enumerate(days) if day is not None and day >= begin)


def _day(created: str) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(created[:10])
    except ValueError:
        return None


def _judge(series: RawSeries, axis: Axis, tolerance: Tolerance, first: int) -> TestTrend:
    peaks: dict[int, list[int]] = {}
    for run, peak_bytes in zip(series.runs, series.peaks_bytes, strict=True):
        peaks.setdefault(axis.position_of_run[run], []).append(peak_bytes)
    positions = sorted(peaks)
    figures = [round(median(peaks[position])) for position in positions]
    if len(positions) < FEWEST_REVISIONS:
        level_bytes = round(median(figures))
        return TestTrend(
            nodeid=series.nodeid,
            verdict="unknown",
            anchor_bytes=figures[0],
            level_bytes=level_bytes,
            noise=0.0,
            revisions=len(positions),
            positions=tuple(positions),
            peaks_bytes=tuple(figures),
            caveats=(f"{len(positions)} revisions are too few for a verdict; {FEWEST_REVISIONS} are needed",),
        )
    floor_bytes = max(1, tolerance.absolute_bytes)

    def is_material(before: float, after: float) -> bool:
        low, high = sorted((math.exp(before), math.exp(after)))
        return high > tolerance.allowed_bytes(int(low))

    # A test that uses nothing has no logarithm; below the tolerance's absolute part sizes are not distinguished.
    logs = [math.log(max(peak_bytes, floor_bytes)) for peak_bytes in figures]
    environments = [axis.revisions[position].environment for position in positions]
    levelled = find_levelled_changes(logs, environments, is_material=is_material)
    start = levelled.changes[0].before if levelled.changes else median(levelled.values)
    reader = _Reader(series.nodeid, axis, positions, figures, environments, levelled, start, is_material)
    return reader.trend(first)


class _Reader(NamedTuple):
    """Turns the changes of one test's logarithms into bytes, revisions and a verdict."""

    nodeid: str
    axis: Axis
    positions: list[int]
    figures: list[int]
    environments: list[int]
    levelled: Levelled
    #: The level before the first change.
    start: float
    is_material: Callable[[float, float], bool]

    def trend(self, first: int) -> TestTrend:
        """The verdict; changes before the position `first` make none."""
        changes = [self._change(change) for change in self.levelled.changes]
        worse = [
            change
            for change in changes
            if change.in_force and self.positions[change.until_index or change.index] >= first
        ]
        latest = max(worse, key=lambda change: change.index, default=None)
        verdicts: dict[str, TrendVerdict] = {"jump": "jumped", "creep": "crept"}
        shown = sorted([*changes, *self._environment_steps()], key=lambda change: change.index)
        return TestTrend(
            nodeid=self.nodeid,
            verdict="steady" if latest is None else verdicts[latest.kind],
            revision=None if latest is None else latest.revision,
            until_revision=latest.until_revision or None if latest is not None else None,
            change=None if latest is None else latest.change,
            before_bytes=None if latest is None else latest.before_bytes,
            after_bytes=None if latest is None else latest.after_bytes,
            anchor_bytes=self._bytes(self._level_at(0), 0),
            level_bytes=self._bytes(self._now, len(self.figures) - 1),
            noise=self._noise(),
            revisions=len(self.positions),
            changes=tuple(shown),
            positions=tuple(self.positions),
            peaks_bytes=tuple(self.figures),
        )

    @property
    def _now(self) -> float:
        return self._level_at(len(self.figures) - 1)

    def _change(self, change: Change) -> TrendChange:
        rises = change.after > change.before
        kind: ChangeKind = ("creep" if change.is_ramp else "jump") if rises else "drop"
        return TrendChange(
            kind=kind,
            index=change.first,
            revision=self._label(change.first),
            until_index=change.last if change.is_ramp else None,
            until_revision=self._label(change.last) if change.is_ramp else "",
            before_bytes=self._bytes(change.before, change.first),
            after_bytes=self._bytes(change.after, change.first),
            in_force=rises and self._now > change.before and self.is_material(change.before, self._now),
        )

    def _environment_steps(self) -> list[TrendChange]:
        """One for each environment, where it is met first; those that moved this test."""
        steps = []
        seen = {self.environments[0]}
        for index, (old, new) in enumerate(pairwise(self.environments), start=1):
            if new in seen:
                continue
            seen.add(new)
            level = self._level_at(index)
            before, after = (level + self.levelled.offsets.get(each, 0.0) for each in (old, new))
            if self.is_material(before, after):
                steps.append(
                    TrendChange(
                        kind="environment",
                        index=index,
                        revision=self._label(index),
                        before_bytes=round(math.exp(before)),
                        after_bytes=round(math.exp(after)),
                        differences=environment_differences(
                            self.axis.environments[old], self.axis.environments[new]
                        ),
                    )
                )
        return steps

    def _level_at(self, index: int) -> float:
        """The levelled logarithm that the changes leave at `index`."""
        level = self.start
        for change in self.levelled.changes:
            if index < change.first:
                break
            level = change.after
            if change.is_ramp and index < change.last:
                share = (index - change.first + 1) / (change.last - change.first + 1)
                level = change.before + share * (change.after - change.before)
        return level

    def _bytes(self, level: float, index: int) -> int:
        return round(math.exp(level + self.levelled.offsets.get(self.environments[index], 0.0)))

    def _label(self, index: int) -> str:
        return self.axis.revisions[self.positions[index]].label

    def _noise(self) -> float:
        distances = [abs(value - self._level_at(index)) for index, value in enumerate(self.levelled.values)]
        return SIGMA_PER_MAD * median(distances)


def _worst_first(test: TestTrend) -> tuple[int, int, int, str]:
    order = {"jumped": 0, "crept": 0, "unknown": 1, "steady": 2}
    worst = max(
        (change for change in test.changes if change.in_force), key=lambda each: each.index, default=None
    )
    if order[test.verdict] or worst is None:
        return order[test.verdict], 0, 0, test.nodeid
    return (
        0,
        -test.positions[worst.until_index or worst.index],
        worst.before_bytes - worst.after_bytes,
        test.nodeid,
    )


class LearnedTolerance(NamedTuple):
    """How far a test may rise, and over how many revisions that was seen."""

    tolerance: Tolerance
    revisions: int

    def __str__(self) -> str:
        """For a message: "3% + 512 KiB, learned from its last 38 revisions"."""
        return f"{self.tolerance}, learned from its last {self.revisions} revisions"


def learn_tolerances(path: str | os.PathLike[str]) -> Mapping[str, LearnedTolerance]:
    """The tolerance of each test of the history at `path` that has been at one level for long enough.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: it is not a history.
    """
    with open_history(path) as history:
        trends = find_trends(history, os.fspath(path)).tests
    learned = ((trend.nodeid, learn_tolerance(trend)) for trend in trends)
    return {nodeid: found for nodeid, found in learned if found is not None}


def learn_tolerance(trend: TestTrend) -> LearnedTolerance | None:
    """One and a half times the rise above its level that the test kept within in 95% of its revisions."""
    start = max((change.until_index or change.index for change in trend.changes), default=0)
    peaks = trend.peaks_bytes[start:][-_MOST_REVISIONS:]
    if len(peaks) < FEWEST_REVISIONS_TO_LEARN:
        return None
    level = median(peaks)
    rises = sorted(max(0.0, peak / level - 1) if level else 0.0 for peak in peaks)
    usual = rises[math.ceil(_SHARE_OF_RISES * len(rises)) - 1]
    share = min(max(_MARGIN * usual, _LEAST), _MOST)
    return LearnedTolerance(Tolerance(share=round(share, 3), absolute_bytes=_ABSOLUTE_BYTES), len(peaks))
