"""Line charts as SVG: what a `Chart` holds, in data units, is laid out here once for every picture of a page.

Colours are names of the page's own palette (`series-1`, `bad`), so that one picture suits light and dark alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 480, 280
_RIGHT, _TOP, _BOTTOM = 14, 10, 44
_LINE_HEIGHT, _CHARACTER = 17, 6.6
"""A row of the legend, and the usual width of a character of 12 px text: no font can be asked here."""

Point = tuple[float, float]


class Line(NamedTuple):
    """A named line through `points`."""

    name: str
    color: str
    points: tuple[Point, ...]


class Band(NamedTuple):
    """A named area between two lines over the same positions."""

    name: str
    color: str
    lower: tuple[Point, ...]
    upper: tuple[Point, ...]


class Dots(NamedTuple):
    """Named single points, each with a label or ""."""

    name: str
    color: str
    points: tuple[Point, ...]
    labels: tuple[str, ...] = ()


class Limit(NamedTuple):
    """A dashed line across the whole chart."""

    name: str
    color: str
    height: float


class Chart(NamedTuple):
    """Two axes with their titles, and what is drawn on them in this order; `spoken` is the picture in words."""

    across: str
    up: str
    spoken: str
    marks: tuple[Line | Band | Dots | Limit, ...]


class _Frame(NamedTuple):
    """Where data lies in the picture: the ends of both axes in data units, and the plot's edges in pixels."""

    x_ends: tuple[float, float]
    y_ends: tuple[float, float]
    left: float
    top: float

    def x(self, value: float) -> float:
        start, end = self.x_ends
        return self.left + (WIDTH - _RIGHT - self.left) * (value - start) / (end - start)

    def y(self, value: float) -> float:
        start, end = self.y_ends
        return HEIGHT - _BOTTOM - (HEIGHT - _BOTTOM - self.top) * (value - start) / (end - start)

    def path(self, points: Sequence[Point]) -> str:
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)


def render_chart(chart: Chart) -> str:
    """`chart` as one svg element, 480 by 280 units and as wide as its place; y starts at zero."""
    legend = _legend_rows(chart)
    frame = _frame(chart, len(legend))
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.spoken)}">',
        *_axes(chart, frame),
        *(element for mark in chart.marks for element in _mark(mark, frame)),
        *_labels(chart, frame),
        *_legend(legend),
        "</svg>",
    ]
    return "".join(parts)


_SMALLEST_END = 1e-300


def ticks(end: float, most: int = 6) -> tuple[float, ...]:
    """Round positions from 0 to at least `end`, at most `most` + 1 of them: steps of 1, 2 or 5 times a power of ten."""
    if not end > _SMALLEST_END:  # a power of ten that small is no float any more
        return (0.0, 1.0)
    rough = end / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return tuple(step * index for index in range(math.ceil(end / step - 1e-9) + 1))


def _frame(chart: Chart, legend_rows: int) -> _Frame:
    points = [point for mark in chart.marks for point in _points(mark)]
    heights = [y for _, y in points] + [mark.height for mark in chart.marks if isinstance(mark, Limit)]
    positions = [x for x, _ in points]
    up = ticks(max(heights, default=1.0))
    across = ticks(max(positions, default=1.0))
    left = 26 + _CHARACTER * max(len(_number(tick)) for tick in up)
    # The axis ends with the data; its last round position may lie beyond.
    x_end = max(positions, default=1.0)
    return _Frame(
        (0.0, x_end if x_end > 0 else across[-1]), (0.0, up[-1]), left, _TOP + _LINE_HEIGHT * legend_rows
    )


def _points(mark: Line | Band | Dots | Limit) -> tuple[Point, ...]:
    if isinstance(mark, Limit):
        return ()
    return mark.lower + mark.upper if isinstance(mark, Band) else mark.points


def _axes(chart: Chart, frame: _Frame) -> Iterator[str]:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    for tick in ticks(frame.y_ends[1]):
        y = frame.y(tick)
        yield f'<line class="rule" x1="{frame.left:.1f}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{frame.left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
    for tick in ticks(frame.x_ends[1]):
        if tick <= frame.x_ends[1] * (1 + 1e-9):
            yield f'<text x="{frame.x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{_number(tick)}</text>'
    middle_x, middle_y = (frame.left + right) / 2, (frame.top + bottom) / 2
    yield f'<text class="title" x="{middle_x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(chart.across)}</text>'
    yield (
        f'<text class="title" transform="translate(12 {middle_y:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(chart.up)}</text>"
    )


def _mark(mark: Line | Band | Dots | Limit, frame: _Frame) -> Iterator[str]:
    color = f"var(--{mark.color})"
    if isinstance(mark, Band):
        outline = frame.path([*mark.upper, *reversed(mark.lower)])
        yield f'<polygon points="{outline}" fill="{color}" opacity="0.18"/>'
    elif isinstance(mark, Line):
        yield f'<polyline points="{frame.path(mark.points)}" stroke="{color}"/>'
    elif isinstance(mark, Limit):
        y = frame.y(mark.height)
        yield (
            f'<line class="limit" x1="{frame.left:.1f}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="{color}"/>'
        )
    else:
        for x, y in mark.points:
            yield f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3.6" fill="{color}"/>'


def _labels(chart: Chart, frame: _Frame) -> Iterator[str]:
    """Names of single points, from the right to the left: one that would cover another is left out."""
    taken: list[tuple[float, float, float, float]] = []
    for mark in chart.marks:
        if not isinstance(mark, Dots):
            continue
        for (x, y), label in sorted(zip(mark.points, mark.labels, strict=False), reverse=True):
            at_x, at_y = frame.x(x), frame.y(y)
            width = _CHARACTER * 1.1 * len(label)
            start = at_x + 7 if at_x + 7 + width < WIDTH - _RIGHT else at_x - 7 - width
            # Below the point, since curves rise, save where the axis is.
            baseline = at_y + 16 if at_y + 18 < HEIGHT - _BOTTOM else at_y - 8
            box = (start, baseline - 11, start + width, baseline + 3)
            if any(_overlap(box, other) for other in taken):
                continue
            taken.append(box)
            yield f'<text class="label" x="{start:.1f}" y="{baseline:.1f}">{escape(label)}</text>'


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _legend_rows(chart: Chart) -> list[list[tuple[float, Line | Band | Dots | Limit]]]:
    """The marks' keys with their positions, in as many rows as their names need."""
    rows: list[list[tuple[float, Line | Band | Dots | Limit]]] = [[]]
    x = 4.0
    for mark in chart.marks:
        width = 30 + _CHARACTER * len(mark.name)
        if rows[-1] and x + width > WIDTH:
            rows.append([])
            x = 4.0
        rows[-1].append((x, mark))
        x += width + 8
    return rows


def _legend(rows: Sequence[Sequence[tuple[float, Line | Band | Dots | Limit]]]) -> Iterator[str]:
    for number, row in enumerate(rows):
        middle = _TOP - 2 + _LINE_HEIGHT * number
        for x, mark in row:
            color = f"var(--{mark.color})"
            if isinstance(mark, Band):
                yield f'<rect x="{x}" y="{middle - 5}" width="18" height="10" fill="{color}" opacity="0.3"/>'
            elif isinstance(mark, Dots):
                yield f'<circle cx="{x + 9}" cy="{middle}" r="3.6" fill="{color}"/>'
            else:
                dashed = ' class="limit"' if isinstance(mark, Limit) else ""
                yield (
                    f'<line{dashed} x1="{x}" x2="{x + 18}" y1="{middle}" y2="{middle}" stroke="{color}" '
                    'stroke-width="2"/>'
                )
            yield f'<text x="{x + 23}" y="{middle + 4}">{escape(mark.name)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
