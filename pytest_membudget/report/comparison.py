"""Two reports side by side, for a terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pytest_membudget.records.comparison import ReportComparison, Summary, TestChange
from pytest_membudget.records.storage import encodable, encode_json
from pytest_membudget.report.markdown import markdown_table, plain
from pytest_membudget.report.page import clean_table
from pytest_membudget.report.text import (
    NONE,
    Column,
    Paint,
    Row,
    Table,
    name,
    number,
    signed_share,
    without_commands,
    wrap,
)
from pytest_membudget.units import format_size

_MOST_NAMES = 20


def render_comparison_terminal(
    comparison: ReportComparison, *, width: int = 80, color: bool = False, ascii_only: bool = False
) -> str:
    """The table, its footnotes, and one line that sums it up."""
    from pytest_membudget.report.terminal import lay_out

    paint = Paint(color)
    table = clean_table(_table(comparison), ascii_only=ascii_only)
    shade = "red" if comparison.count("regressed") else "green"
    text = f"{lay_out(table, width, paint)}\n\n{paint(wrap(_headline(comparison), width), shade)}\n"
    return without_commands(text)


def render_comparison_markdown(comparison: ReportComparison) -> str:
    """The same as GitHub's Markdown."""
    table = clean_table(_table(comparison), ascii_only=False)
    return f"# Memory comparison\n\n{plain(_headline(comparison))}\n\n{markdown_table(table)}\n"


def render_comparison_json(comparison: ReportComparison) -> bytes:
    """All figures, with the relative change of each test."""
    document = msgspec.to_builtins(comparison)
    for row, change in zip(document["rows"], comparison.rows, strict=True):
        row["change"] = change.change
    return encode_json(encodable(document))


def _headline(comparison: ReportComparison) -> str:
    parts = [
        f"{len(comparison.rows):,} compared",
        f"{comparison.count('regressed'):,} regressed",
        f"{comparison.count('improved'):,} improved",
    ]
    if comparison.geomean_ratio is not None:
        parts.append(f"geomean {signed_share(comparison.geomean_ratio - 1)}")
    return ", ".join(parts)


def _table(comparison: ReportComparison) -> Table:
    columns = (name("test"), number("base"), number("new"), number("delta"), number("p"), Column("finding"))
    rows = [_row(row) for row in comparison.rows]
    if comparison.geomean_ratio is not None:
        rows.append(("geomean", "", "", signed_share(comparison.geomean_ratio - 1), "", ""))
    notes = [
        f"tolerance {comparison.tolerance}; base {comparison.base_path}, new {comparison.new_path}",
        *(f"another environment: {difference}" for difference in comparison.foreign),
        *(f"renamed: {row.renamed_from} is now {row.nodeid}" for row in comparison.rows if row.renamed_from),
        *_named("only in new", comparison.new),
        *_named("only in base", comparison.gone),
        *_named("skipped in new", comparison.skipped),
        *comparison.caveats,
    ]
    return Table("comparison", "Peaks, median and 95% interval", columns, tuple(rows), tuple(notes))


def _row(row: TestChange) -> Row:
    delta = "~" if row.finding == "same" else NONE if row.change is None else signed_share(row.change)
    told = "" if row.finding == "same" else row.finding
    p = NONE if row.p is None else f"{row.p:.3f}"
    return (
        row.nodeid,
        _spread(row.base),
        _spread(row.new),
        delta,
        f"{p} n={row.base.samples}+{row.new.samples}",
        told,
    )


def _spread(summary: Summary) -> str:
    spread = summary.spread
    return format_size(summary.median_bytes) + ("" if spread is None else f" ±{100 * spread:.0f}%")


def _named(title: str, names: Sequence[str]) -> list[str]:
    more = [f"{title}: and {len(names) - _MOST_NAMES:,} more"] if len(names) > _MOST_NAMES else []
    return [f"{title}: {text}" for text in names[:_MOST_NAMES]] + more
