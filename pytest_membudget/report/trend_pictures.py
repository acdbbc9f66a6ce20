"""A test's peaks over the revisions as a small SVG: each run a dot, the level a line, each change a mark.

A chart shows the range in which the test moved, not zero, since a rise of 3% has to be seen; its labels say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pytest_membudget.records.history import TestTrend, TrendChange, TrendReport
from pytest_membudget.report.history import short_revision
from pytest_membudget.report.wording import signed_share
from pytest_membudget.units import format_size

WIDTH, HEIGHT = 760, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 26, 22
_SPARK_WIDTH, _SPARK_HEIGHT = 160, 28
_MOST_SPARK_POINTS = 80
#: A letter of 12 px text.
_LETTER = 6.6
_SHADES = {"jump": "bad", "creep": "bad", "drop": "good", "environment": "soft"}

Point = tuple[float, float]


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
