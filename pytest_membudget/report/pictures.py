"""The larger pictures of the page, drawn by matplotlib as SVG that takes its colours from the page's style."""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_membudget.errors import MissingExtraError
from pytest_membudget.records.report import CalibrationPicture
from pytest_membudget.records.scale import CurvePoint, ScaleTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins that the page's style replaces, so that one picture suits light and dark alike.
_INK, _FAINT, _LINE, _BOUND, _POINT, _LIMIT = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_SERIES = ("#070707", "#080808", "#090909", "#0a0a0a", "#0b0b0b", "#0c0c0c")
_NAMES = {
    _INK: "ink",
    _FAINT: "faint",
    _LINE: "series-1",
    _BOUND: "series-1",
    _POINT: "series-2",
    _LIMIT: "bad",
    **{color: f"series-{number}" for number, color in enumerate(_SERIES, start=1)},
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "membudget",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


class _Unit(NamedTuple):
    name: str
    size_bytes: int


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
    across = _unit_of(
        [*(row.scale.size_bytes for row in table.rows), *(point.size_bytes for point in law.curve)]
    )
    up = _unit_of([*(row.peak_bytes for row in table.rows), *(point.bound_bytes for point in law.curve)])

    def draw(axes: Axes) -> None:
        _curve(axes, law.curve, across, up)
        points = [
            (row.scale.size_bytes / across.size_bytes, row.peak_bytes / up.size_bytes) for row in table.rows
        ]
        axes.plot(*zip(*points, strict=True), "o", color=_POINT, label="measured")
        for row, point in zip(table.rows, points, strict=True):
            # Below the rising curve, and away from the axes at both ends.
            is_last = row is table.rows[-1]
            axes.annotate(
                row.scale.name.upper(),
                point,
                textcoords="offset points",
                xytext=(-6, -11) if is_last else (7, -5),
                ha="right" if is_last else "left",
                va="center",
            )
        limit = table.rows[-1].limit_bytes / up.size_bytes
        if 0 < limit < 1.6 * axes.get_ylim()[1]:
            axes.axhline(limit, color=_LIMIT, linestyle="--", linewidth=1, label="limit")
        _finish(axes, f"input, {across.name}", f"peak, {up.name}")

    return _picture(draw)


def draw_scale_timelines(table: ScaleTable) -> str:
    """Memory over time, one line a scale; "" where none was recorded."""
    rows = [row for row in table.rows if len(row.timeline) > 1]
    if not rows:
        return ""
    up = _unit_of([point.tree_bytes for row in rows for point in row.timeline])

    def draw(axes: Axes) -> None:
        for color, row in zip(itertools.cycle(_SERIES), rows, strict=False):
            seconds = [point.at_s for point in row.timeline]
            sizes = [point.tree_bytes / up.size_bytes for point in row.timeline]
            axes.plot(seconds, sizes, color=color, linewidth=1.6, label=row.scale.name.upper())
        _finish(axes, "seconds", f"memory, {up.name}")

    return _picture(draw)


def draw_calibration(fit: CalibrationPicture) -> str:
    """Measured points, the fit and its bound; "" where there is no curve."""
    if not fit.curve:
        return ""
    across = _unit_of([point.size_bytes for point in fit.curve])
    up = _unit_of([*(peak for _, peak in fit.points), *(point.bound_bytes for point in fit.curve)])

    def draw(axes: Axes) -> None:
        _curve(axes, fit.curve, across, up)
        sizes = [size / across.size_bytes for size, _ in fit.points]
        axes.plot(
            sizes, [peak / up.size_bytes for _, peak in fit.points], "o", color=_POINT, label="measured"
        )
        _finish(axes, f"file, {across.name}", f"peak above a warm worker, {up.name}")

    return _picture(draw)


def _unit_of(sizes_bytes: Sequence[int]) -> _Unit:
    """The unit in which the largest of `sizes_bytes` has one to four digits."""
    largest = max(sizes_bytes, default=0)
    return next((unit for unit in _UNITS if largest >= unit.size_bytes), _UNITS[-1])


def _curve(axes: Axes, curve: Sequence[CurvePoint], across: _Unit, up: _Unit) -> None:
    sizes = [point.size_bytes / across.size_bytes for point in curve]
    expected = [point.expected_bytes / up.size_bytes for point in curve]
    bound = [point.bound_bytes / up.size_bytes for point in curve]
    axes.fill_between(sizes, expected, bound, color=_BOUND, alpha=0.18, linewidth=0, label="up to the bound")
    axes.plot(sizes, expected, color=_LINE, linewidth=1.6, label="fitted")


def _finish(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    axes.grid(visible=True, axis="y", color=_FAINT, alpha=0.35, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="best", fontsize=8)


def _picture(draw: Any) -> str:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("the pictures of an HTML report", "matplotlib", "html") from None
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A scale's name may hold signs that the measuring font lacks; the browser's has them.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(5.4, 3.0), layout="constrained")
        draw(figure.add_subplot())
        return _as_svg(figure)


def _as_svg(figure: Figure) -> str:
    """The figure as an svg element alone: no prolog, no metadata, no ids but those referred to, page colours."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*pt"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*pt"', r"\1", text)
    )
    return re.sub(r"#0[0-9a-c]0[0-9a-c]0[0-9a-c]", lambda match: f"var(--{_NAMES[match[0]]})", text)
