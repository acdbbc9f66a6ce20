"""A differential flame graph as SVG: width is what a frame and all below it held, colour is what it gained or lost.

The outermost frame is at the top. A frame is as wide as the larger of its two peaks, so that what is gone stays visible.
Red gained, blue lost, grey is as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from pytest_membudget.records.comparison import FlameFrame
from pytest_membudget.units import format_size

WIDTH, _ROW = 1000.0, 18
_LETTER = 6.4
_NARROWEST = 0.6
_DEEPEST = 60


def draw_flame_graph(root: FlameFrame, *, title: str, standalone: bool = False) -> str:
    """The graph as one svg element; `standalone` makes it a file of its own, with its colours."""
    rows = list(_rows(root, 0.0, WIDTH, 0, max(1, abs(root.head_bytes - root.base_bytes))))
    depth = 1 + max(row for row, _ in rows)
    height = depth * _ROW + 8
    attributes = ' xmlns="http://www.w3.org/2000/svg"' if standalone else ""
    style = f"<style>{_STYLE}</style>" if standalone else ""
    return (
        f'<svg class="flame"{attributes} viewBox="0 0 {WIDTH:.0f} {height}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{style}<title>{escape(title)}</title>'
        + "".join(element for _, element in rows)
        + "</svg>"
    )


_STYLE = (
    "svg{background:#fff;font:11px ui-monospace,Menlo,Consolas,monospace}"
    ".flame .gained{fill:#c44f00}.flame .lost{fill:#0068a8}.flame .same{fill:#9aa4b0}.flame rect{stroke:#fff;stroke-width:.5}"
    ".flame text{fill:#1b2430}"
)


def _rows(
    frame: FlameFrame, left: float, width: float, depth: int, largest_change: int
) -> Iterator[tuple[int, str]]:
    change = frame.head_bytes - frame.base_bytes
    shade = "gained" if change > 0 else "lost" if change < 0 else "same"
    opacity = 0.15 + 0.75 * min(1.0, abs(change) / largest_change)
    label = f"{frame.name}: {format_size(frame.base_bytes)} → {format_size(frame.head_bytes)}"
    y = depth * _ROW + 4
    text = ""
    letters = int((width - 6) / _LETTER)
    if letters >= 4:
        shown = frame.name if len(frame.name) <= letters else frame.name[: letters - 1] + "…"
        text = f'<text x="{left + 3:.1f}" y="{y + 13}">{escape(shown)}</text>'
    element = (
        f"<g><title>{escape(label)}</title>"
        f'<rect class="{shade}" x="{left:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 1}" fill-opacity="{opacity:.2f}"/>'
        f"{text}</g>"
    )
    yield depth, element
    if depth >= _DEEPEST:
        return
    sizes = [max(child.base_bytes, child.head_bytes) for child in frame.children]
    # Children of both revisions together may hold more than either peak of their parent.
    whole = max(frame.base_bytes, frame.head_bytes, sum(sizes), 1)
    for child, size in zip(frame.children, sizes, strict=True):
        share = width * size / whole
        if share >= _NARROWEST:
            yield from _rows(child, left, share, depth + 1, largest_change)
        left += share
