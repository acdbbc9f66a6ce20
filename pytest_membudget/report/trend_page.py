"""The trends of a history as one self-contained page: first what got worse this month, with its picture.

A picture is a small SVG: each run a dot, the level a line, each change a mark. It shows the range in which the test moved, not zero,
since a rise of 3% has to be seen; its labels say so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from pytest_membudget.records.comparison import TestTrend, TrendChange, TrendReport
from pytest_membudget.report.history import (
    WORSE,
    describe,
    describe_change,
    page_of_trend,
    render_trend_json,
    short_revision,
    trend_headline,
)
from pytest_membudget.report.html import Tile, render_page
from pytest_membudget.report.text import NONE, signed_share
from pytest_membudget.report.writing import write_in_format
from pytest_membudget.units import format_size

WIDTH, HEIGHT = 760, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 26, 22
_SPARK_WIDTH, _SPARK_HEIGHT = 160, 28
_MOST_SPARK_POINTS = 80
#: A letter of 12 px text.
_LETTER = 6.6
_SHADES = {"jump": "bad", "creep": "bad", "drop": "good", "environment": "soft"}

Point = tuple[float, float]


class Card(NamedTuple):
    """A test whose level changed, with its chart."""

    nodeid: str
    verdict: str
    text: str
    picture: str
    changes: tuple[str, ...]


class Section(NamedTuple):
    """Cards under a heading."""

    key: str
    title: str
    cards: tuple[Card, ...]


def write_trend(report: TrendReport, path: str | os.PathLike[str]) -> None:
    """Writes the trends as a page, Markdown or JSON, by the ending of `path`; whole or not at all.

    Raises:
        OSError: the folder is missing, not writable or full.
    """
    write_in_format(
        path,
        html=lambda: render_trend_page(report),
        page=lambda: page_of_trend(report),
        as_json=lambda: render_trend_json(report),
    )


def render_trend_page(report: TrendReport) -> str:
    """The page. Text from outside passes through autoescaping; there is no script, and no network."""
    quiet = [test for test in report.tests if not test.changes]
    return render_page(
        "trend.html",
        title="Memory trend",
        headline=trend_headline(report),
        tiles=_tiles(report),
        sections=_sections(report),
        rows=[_row(test, report) for test in sorted(quiet, key=lambda test: -test.level_bytes)],
        tolerance=report.tolerance,
        month=_month(report),
    )


def _new(report: TrendReport) -> list[TestTrend]:
    """The tests that got worse this month."""
    return [
        test
        for test in report.tests
        if test.verdict in WORSE and _latest_position(test) >= report.month_index
    ]


def _sections(report: TrendReport) -> list[Section]:
    worse = [test for test in report.tests if test.verdict in WORSE]
    new = _new(report)
    changed = [test for test in report.tests if test.verdict not in WORSE and test.changes]
    older = [test for test in worse if test not in new]
    sections = [
        Section("new", f"Got worse {_month(report)}", _cards(new, report)),
        Section("older", "Got worse before", _cards(older, report)),
        Section("changed", "Changed, and no worse now", _cards(changed, report)),
    ]
    return [section for section in sections if section.cards or section.key == "new"]


def _month(report: TrendReport) -> str:
    if not report.revisions:
        return "this month"
    first = report.revisions[report.month_index]
    return f"since {first.created[:10] or first.label}"


def _latest_position(test: TestTrend) -> int:
    return max(
        test.positions[change.index if change.until_index is None else change.until_index]
        for change in test.changes
        if change.in_force
    )


def _cards(tests: Sequence[TestTrend], report: TrendReport) -> tuple[Card, ...]:
    return tuple(
        Card(
            nodeid=test.nodeid,
            verdict=test.verdict,
            text=describe(test),
            picture=draw_trend(test, report),
            changes=tuple(map(describe_change, test.changes)) if len(test.changes) > 1 else (),
        )
        for test in tests
    )


def _tiles(report: TrendReport) -> list[Tile]:
    tones = {"jumped": "bad", "crept": "bad", "steady": "good", "unknown": "doubt"}
    counts = {verdict: sum(test.verdict == verdict for test in report.tests) for verdict in tones}
    new = len(_new(report))
    first = Tile(f"{new:,}", f"got worse {_month(report)}", "bad" if new else "good")
    return [first] + [
        Tile(f"{count:,}", verdict, tones[verdict] if count else "") for verdict, count in counts.items()
    ]


def _row(test: TestTrend, report: TrendReport) -> dict[str, str]:
    return {
        "nodeid": test.nodeid,
        "verdict": test.verdict,
        "level": format_size(test.level_bytes),
        "noise": NONE if test.verdict == "unknown" else f"±{signed_share(test.noise)[1:]}",
        "revisions": f"{test.revisions:,}",
        "spark": draw_spark(test, len(report.revisions)),
    }


class _Frame:
    """Where revisions and bytes lie in the picture."""

    def __init__(self, test: TestTrend, revisions: int) -> None:
        levels = [size for change in test.changes for size in (change.before_bytes, change.after_bytes)]
        sizes = [*test.peaks_bytes, *levels, test.level_bytes]
        low, high = min(sizes), max(sizes)
        margin = max((high - low) * 0.06, high * 0.005, 1.0)
        self.low_bytes, self.high_bytes = max(0.0, low - margin), high + margin
        self.last = max(1, revisions - 1)

    def x(self, position: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * position / self.last

    def y(self, size_bytes: float) -> float:
        share = (size_bytes - self.low_bytes) / (self.high_bytes - self.low_bytes)
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share


def draw_trend(test: TestTrend, report: TrendReport) -> str:
    """The chart of one test, 760 by 170 units and as wide as its place."""
    frame = _Frame(test, len(report.revisions))
    points = zip(test.positions, test.peaks_bytes, strict=True)
    dots = "".join(f"M{frame.x(position):.1f},{frame.y(peak):.1f}h0" for position, peak in points)
    level = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in _level_line(test))
    anchor = frame.y(test.anchor_bytes)
    parts = [
        f'<svg class="trend" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(_spoken(test), quote=True)}">',
        _axes(frame, report),
        f'<line class="anchor" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{anchor:.1f}" y2="{anchor:.1f}"/>',
        *_marks(test, frame),
        f'<path class="dots" d="{dots}"/>',
        f'<polyline class="level" points="{level}"/>',
        "</svg>",
    ]
    return "".join(parts)


def draw_spark(test: TestTrend, revisions: int) -> str:
    """The same without text, for a row of a table."""
    frame = _Frame(test, revisions)
    across, down = _SPARK_WIDTH / WIDTH, _SPARK_HEIGHT / HEIGHT
    points = _thinned(list(zip(test.positions, test.peaks_bytes, strict=True)))
    line = " ".join(f"{frame.x(x) * across:.0f},{frame.y(y) * down:.1f}" for x, y in points)
    return (
        f'<svg class="spark" viewBox="0 0 {_SPARK_WIDTH} {_SPARK_HEIGHT}" aria-hidden="true">'
        f'<polyline points="{line}"/></svg>'
    )


def _thinned(points: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    if len(points) <= _MOST_SPARK_POINTS:
        return points
    stride = len(points) / _MOST_SPARK_POINTS
    return [points[int(number * stride)] for number in range(_MOST_SPARK_POINTS)]


def _level_line(test: TestTrend) -> list[Point]:
    """Corners of the level: flat between changes, a slope where it creeps."""
    corners: list[Point] = [(test.positions[0], test.anchor_bytes)]
    for change in test.changes:
        here = test.positions[change.index]
        if change.until_index is not None:
            before = test.positions[change.index - 1]
            corners += [
                (before, change.before_bytes),
                (test.positions[change.until_index], change.after_bytes),
            ]
        else:
            corners += [(here - 0.5, change.before_bytes), (here - 0.5, change.after_bytes)]
    return [*corners, (test.positions[-1], test.level_bytes)]


def _axes(frame: _Frame, report: TrendReport) -> str:
    bottom = HEIGHT - _BOTTOM
    first, last = report.revisions[0], report.revisions[-1]
    texts = [
        (_LEFT - 8, bottom + 4, "end", format_size(frame.low_bytes)),
        (_LEFT - 8, _TOP + 4, "end", format_size(frame.high_bytes)),
        (_LEFT, HEIGHT - 6, "start", _when(first.revision, first.created)),
        (WIDTH - _RIGHT, HEIGHT - 6, "end", _when(last.revision, last.created)),
    ]
    rules = "".join(
        f'<line class="rule" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>' for y in (_TOP, bottom)
    )
    labels = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>' for x, y, anchor, text in texts
    )
    return rules + labels


def _when(revision: str, created: str) -> str:
    return " · ".join(filter(None, [created[:10], short_revision(revision)]))


def _marks(test: TestTrend, frame: _Frame) -> list[str]:
    """A line at each change with its size above, as far as there is room."""
    marks = []
    free_from = 0.0
    for change in test.changes:
        x = frame.x(test.positions[change.index] - (0.5 if change.until_index is None else 1))
        marks.append(
            f'<line class="mark {_SHADES[change.kind]}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
        )
        label = _label(change)
        half = _LETTER * len(label) / 2
        middle = min(max(x, _LEFT + half), WIDTH - _RIGHT - half)
        if middle - half >= free_from:
            marks.append(
                f'<text class="{_SHADES[change.kind]}" x="{middle:.1f}" y="{_TOP - 10}" text-anchor="middle">{escape(label)}</text>'
            )
            free_from = middle + half + _LETTER
    return marks


def _label(change: TrendChange) -> str:
    what = "environment" if change.kind == "environment" else short_revision(change.revision)
    return f"{signed_share(change.change)} {what}"


def _spoken(test: TestTrend) -> str:
    marks = ", ".join(
        f"{change.kind} of {signed_share(change.change)} at {change.revision}" for change in test.changes
    )
    return (
        f"peaks over {test.revisions} revisions, at first {format_size(test.anchor_bytes)}, "
        f"now {format_size(test.level_bytes)}" + (f": {marks}" if marks else "")
    )
