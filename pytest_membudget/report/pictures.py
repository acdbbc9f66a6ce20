"""The pictures of the page: which lines, points and limits each chart shows, in which unit; then the small ones.

Those are coordinates which the template draws: memory over time, and tests against their baseline. Last, the flame graph of
two revisions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from pytest_membudget.records.comparison import FlameFrame
from pytest_membudget.records.measurement import TimelinePoint
from pytest_membudget.records.report import CalibrationPicture, Comparison, TestRecord
from pytest_membudget.records.scale import CurvePoint, ScaleTable
from pytest_membudget.report.charts import Band, Chart, Dots, Limit, Line, render_chart
from pytest_membudget.report.text import FAILING, signed_share, size_or_none
from pytest_membudget.units import format_duration, format_size

MOST_POINTS = 32
MOST_TIMELINES = 200
WIDTH, HEIGHT = 320.0, 84.0

_TOP = 10.0
_NEARLY = 1.05
_SERIES = tuple(f"series-{number}" for number in range(1, 7))
_LIMIT_IN_SIGHT = 1.6
"""A limit further above the highest figure than this would press everything else to the ground."""

_FLAME_WIDTH, _FLAME_ROW_HEIGHT = 1000.0, 18
_FLAME_LETTER_WIDTH = 6.4
_NARROWEST_FRAME = 0.6
_DEEPEST_FRAME = 60
_FLAME_STYLE = (
    "svg{background:#fff;font:11px ui-monospace,Menlo,Consolas,monospace}"
    ".flame .gained{fill:#c44f00}.flame .lost{fill:#0068a8}.flame .same{fill:#9aa4b0}.flame rect{stroke:#fff;stroke-width:.5}"
    ".flame text{fill:#1b2430}"
)


class _Unit(NamedTuple):
    name: str
    size_bytes: int

    def of(self, size_bytes: float) -> float:
        return size_bytes / self.size_bytes


_UNITS = (
    _Unit("TiB", 1024**4),
    _Unit("GiB", 1024**3),
    _Unit("MiB", 1024**2),
    _Unit("KiB", 1024),
    _Unit("B", 1),
)


def draw_scale_curve(table: ScaleTable) -> str:
    """Peak against size: measured scales, the fitted law with its bound, and the limit; "" without a law."""
    law = table.law
    if law is None or not law.curve:
        return ""
    rows = table.rows
    across = _unit_of([*(row.scale.size_bytes for row in rows), *(point.size_bytes for point in law.curve)])
    highest_bytes = max([*(row.peak_bytes for row in rows), *(point.bound_bytes for point in law.curve)])
    up = _unit_of([highest_bytes])
    limit_bytes = rows[-1].limit_bytes
    limits = (
        [Limit("limit", "bad", up.of(limit_bytes))]
        if 0 < limit_bytes < _LIMIT_IN_SIGHT * highest_bytes
        else []
    )
    chart = Chart(
        across=f"input, {across.name}",
        up=f"peak, {up.name}",
        spoken="; ".join(
            f"{row.scale.name.upper()}: {format_size(row.scale.size_bytes)} of input, peak {format_size(row.peak_bytes)}"
            for row in rows
        ),
        marks=(
            *_curve(law.curve, across, up),
            Dots(
                "measured",
                "series-2",
                tuple((across.of(row.scale.size_bytes), up.of(row.peak_bytes)) for row in rows),
                tuple(row.scale.name.upper() for row in rows),
            ),
            *limits,
        ),
    )
    return render_chart(chart)


def draw_scale_timelines(table: ScaleTable) -> str:
    """Memory over time, one line a scale; "" where none was recorded."""
    rows = [row for row in table.rows if len(row.timeline) > 1]
    if not rows:
        return ""
    up = _unit_of([point.tree_bytes for row in rows for point in row.timeline])
    lines = tuple(
        Line(
            row.scale.name.upper(),
            color,
            tuple((max(0.0, point.at_s), up.of(point.tree_bytes)) for point in row.timeline),
        )
        for color, row in zip(itertools.cycle(_SERIES), rows, strict=False)
    )
    highest = [max(point.tree_bytes for point in row.timeline) for row in rows]
    spoken = "; ".join(
        f"{row.scale.name.upper()}: up to {format_size(most)}"
        for row, most in zip(rows, highest, strict=True)
    )
    return render_chart(Chart("seconds", f"memory, {up.name}", spoken, lines))


def draw_calibration(fit: CalibrationPicture) -> str:
    """Measured points, the fit and its bound; "" where there is no curve."""
    if not fit.curve:
        return ""
    across = _unit_of([point.size_bytes for point in fit.curve])
    up = _unit_of([*(peak for _, peak in fit.points), *(point.bound_bytes for point in fit.curve)])
    last = fit.curve[-1]
    chart = Chart(
        across=f"file, {across.name}",
        up=f"peak above an idle worker, {up.name}",
        spoken=(
            f"{len(fit.points)} measured; fitted {format_size(last.expected_bytes)} and at most "
            f"{format_size(last.bound_bytes)} for a file of {format_size(last.size_bytes)}"
        ),
        marks=(
            *_curve(fit.curve, across, up),
            Dots("measured", "series-2", tuple((across.of(size), up.of(peak)) for size, peak in fit.points)),
        ),
    )
    return render_chart(chart)


def _unit_of(sizes_bytes: Sequence[int]) -> _Unit:
    """The unit in which the largest of `sizes_bytes` has one to four digits."""
    largest = max(sizes_bytes, default=0)
    return next((unit for unit in _UNITS if largest >= unit.size_bytes), _UNITS[-1])


def _curve(curve: Sequence[CurvePoint], across: _Unit, up: _Unit) -> tuple[Band, Line]:
    expected = tuple((across.of(point.size_bytes), up.of(max(0, point.expected_bytes))) for point in curve)
    bound = tuple((across.of(point.size_bytes), up.of(max(0, point.bound_bytes))) for point in curve)
    return Band("up to the upper bound", "series-1", expected, bound), Line("fitted", "series-1", expected)


class Timeline(NamedTuple):
    """One small picture: coordinates as SVG reads them, and what stands beside it as text."""

    number: int
    nodeid: str
    verdict: str
    line: str
    area: str
    budget_y: str
    peak_y: str
    over: bool
    peak: str
    budget: str
    duration: str
    spoken: str


def timelines_of(tests: Sequence[TestRecord]) -> list[Timeline]:
    """Those of the failing tests and of the largest others, at most `MOST_TIMELINES` of these."""
    drawn = [(index, test) for index, test in enumerate(tests) if len(test.timeline) > 1]
    failing = [pair for pair in drawn if pair[1].verdict in FAILING]
    others = sorted(
        (pair for pair in drawn if pair[1].verdict not in FAILING),
        key=lambda pair: (-(pair[1].peak_bytes or 0), pair[1].nodeid),
    )
    return [_timeline(index, test) for index, test in [*failing, *others[:MOST_TIMELINES]]]


def thin(points: Sequence[TimelinePoint], most: int = MOST_POINTS) -> list[TimelinePoint]:
    """At most `most` of `points`, in order: the ends, and from each stretch between them the highest."""
    if len(points) <= most:
        return list(points)
    inner, stretches = points[1:-1], most - 2
    cuts = [round(position * len(inner) / stretches) for position in range(stretches + 1)]
    highest = [
        max(inner[start:end], key=lambda point: point.tree_bytes)
        for start, end in itertools.pairwise(cuts)
        if end > start
    ]
    return [points[0], *highest, points[-1]]


def _timeline(index: int, test: TestRecord) -> Timeline:
    points = thin(sorted(test.timeline, key=lambda point: point.at_s))
    start_s, end_s = points[0].at_s, points[-1].at_s
    span_s = max(end_s - start_s, 1e-9)
    seen_bytes = max(point.tree_bytes for point in points)
    highest = max(1, test.budget_bytes or 0, test.peak_bytes or 0, seen_bytes)
    # The peak lay between two samples: it has a line of its own, at no moment.
    is_missed = (test.peak_bytes or 0) > seen_bytes * _NEARLY

    def across(at_s: float) -> float:
        return WIDTH * (at_s - start_s) / span_s

    def down(size_bytes: float) -> float:
        return HEIGHT - (HEIGHT - _TOP) * max(0.0, size_bytes) / highest

    line = " ".join(f"{across(point.at_s):.1f},{down(point.tree_bytes):.1f}" for point in points)
    duration = format_duration(test.duration_s if test.duration_s is not None else span_s)
    peak, budget = size_or_none(test.peak_bytes), size_or_none(test.budget_bytes)
    return Timeline(
        number=index,
        nodeid=test.nodeid,
        verdict=test.verdict,
        line=line,
        area=f"0,{HEIGHT:.0f} {line} {WIDTH:.0f},{HEIGHT:.0f}",
        budget_y="" if test.budget_bytes is None else f"{down(test.budget_bytes):.1f}",
        peak_y=f"{down(test.peak_bytes or 0):.1f}" if is_missed else "",
        over=test.verdict in FAILING,
        peak=peak,
        budget=budget,
        duration=duration,
        spoken=_spoken(points, peak, budget, duration),
    )


def _spoken(points: Sequence[TimelinePoint], peak: str, budget: str, duration: str) -> str:
    """The picture in words, for those who hear the page."""
    top = max(points, key=lambda point: point.tree_bytes)
    reached = format_duration(max(0.0, top.at_s)) if math.isfinite(top.at_s) else ""
    against = "" if budget == size_or_none(None) else f", budget {budget}"
    return (
        f"memory over {duration}: highest {format_size(top.tree_bytes)} after {reached}, peak {peak}{against}"
    )


_MOST_TESTS = 50
_ROOM = 1.04
"""The longest bar ends before the edge, so that a tick at its end is seen."""


class Lane(NamedTuple):
    """A bar and its ticks, in percent of the picture's width."""

    title: str
    width: float
    ticks: tuple[float, ...]
    size: str


class Change(NamedTuple):
    """One test: its two lanes, and where the tolerance ends."""

    nodeid: str
    finding: str
    spoken: str
    lanes: tuple[Lane, Lane]
    allowed_at: float
    allowed: str


def changes(tests: Sequence[TestRecord]) -> tuple[Change, ...]:
    """Regressed tests first, then improved ones, then those that were run again; each to its own scale."""
    found = [
        (test.nodeid, test.comparison)
        for test in tests
        if test.comparison is not None
        and (test.comparison.finding in {"regressed", "improved"} or test.comparison.samples_bytes)
    ]
    order = {"regressed": 0, "improved": 1}
    found.sort(key=lambda each: (order.get(each[1].finding, 2), -abs(each[1].change), each[0]))
    return tuple(_change(nodeid, comparison) for nodeid, comparison in found[:_MOST_TESTS])


def _change(nodeid: str, found: Comparison) -> Change:
    sizes = (found.base_bytes, found.new_bytes, found.allowed_bytes)
    most_bytes = _ROOM * max(*sizes, *found.samples_bytes, *found.base_samples_bytes, 1)

    def lane(title: str, size_bytes: int, samples: Sequence[int]) -> Lane:
        ticks = tuple(round(100 * sample / most_bytes, 2) for sample in samples)
        return Lane(title, round(100 * size_bytes / most_bytes, 2), ticks, format_size(size_bytes))

    base, now, allowed = map(format_size, sizes)
    return Change(
        nodeid=nodeid,
        finding=found.finding,
        spoken=f"baseline {base}, now {now} ({signed_share(found.change)}), allowed {allowed}",
        lanes=(
            lane("baseline", found.base_bytes, found.base_samples_bytes),
            lane("now", found.new_bytes, found.samples_bytes),
        ),
        allowed_at=round(100 * found.allowed_bytes / most_bytes, 2),
        allowed=allowed,
    )


def draw_flame_graph(root: FlameFrame, *, title: str, standalone: bool = False) -> str:
    """A differential flame graph as one svg element; `standalone` makes it a file of its own, with its colours.

    Width is what a frame and all below it held, colour is what it gained (red) or lost (blue); grey is as it was. A frame is as
    wide as the larger of its two peaks, so that what is gone stays visible. The outermost frame is at the top.
    """
    rows = list(_flame_rows(root, 0.0, _FLAME_WIDTH, 0, max(1, abs(root.head_bytes - root.base_bytes))))
    depth = 1 + max(row for row, _ in rows)
    height = depth * _FLAME_ROW_HEIGHT + 8
    attributes = ' xmlns="http://www.w3.org/2000/svg"' if standalone else ""
    style = f"<style>{_FLAME_STYLE}</style>" if standalone else ""
    return (
        f'<svg class="flame"{attributes} viewBox="0 0 {_FLAME_WIDTH:.0f} {height}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{style}<title>{escape(title)}</title>'
        + "".join(element for _, element in rows)
        + "</svg>"
    )


def _flame_rows(
    frame: FlameFrame, left: float, width: float, depth: int, largest_change: int
) -> Iterator[tuple[int, str]]:
    change = frame.head_bytes - frame.base_bytes
    shade = "gained" if change > 0 else "lost" if change < 0 else "same"
    opacity = 0.15 + 0.75 * min(1.0, abs(change) / largest_change)
    label = f"{frame.name}: {format_size(frame.base_bytes)} → {format_size(frame.head_bytes)}"
    y = depth * _FLAME_ROW_HEIGHT + 4
    text = ""
    letters = int((width - 6) / _FLAME_LETTER_WIDTH)
    if letters >= 4:
        shown = frame.name if len(frame.name) <= letters else frame.name[: letters - 1] + "…"
        text = f'<text x="{left + 3:.1f}" y="{y + 13}">{escape(shown)}</text>'
    element = (
        f"<g><title>{escape(label)}</title>"
        f'<rect class="{shade}" x="{left:.1f}" y="{y}" width="{width:.1f}" height="{_FLAME_ROW_HEIGHT - 1}" fill-opacity="{opacity:.2f}"/>'
        f"{text}</g>"
    )
    yield depth, element
    if depth >= _DEEPEST_FRAME:
        return
    sizes = [max(child.base_bytes, child.head_bytes) for child in frame.children]
    # Children of both revisions together may hold more than either peak of their parent.
    whole = max(frame.base_bytes, frame.head_bytes, sum(sizes), 1)
    for child, size in zip(frame.children, sizes, strict=True):
        share = width * size / whole
        if share >= _NARROWEST_FRAME:
            yield from _flame_rows(child, left, share, depth + 1, largest_change)
        left += share
