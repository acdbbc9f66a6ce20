"""The larger pictures of the page: which lines, points and limits each of them shows, and in which unit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from pytest_membudget.records.report import CalibrationPicture
from pytest_membudget.records.scale import CurvePoint, ScaleTable
from pytest_membudget.report.charts import Band, Chart, Dots, Limit, Line, render_chart
from pytest_membudget.units import format_size

_SERIES = tuple(f"series-{number}" for number in range(1, 7))
_LIMIT_IN_SIGHT = 1.6
"""A limit further above the highest figure than this would press everything else to the ground."""


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
