"""The report on a terminal: failures and one summary line; on request the tables, each within the width."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pytest_membudget.records.report import Report
from pytest_membudget.report.page import Failure, Listing, Page, clean_page, make_page
from pytest_membudget.report.text import FAILING, Column, Paint, Row, Table, shorten, without_commands, wrap

if TYPE_CHECKING:
    from tabulate import TableFormat

_MOST_TESTS = 20


def render_terminal(
    report: Report,
    *,
    width: int = 80,
    verbose: bool = False,
    color: bool = False,
    ascii_only: bool = False,
    tables: bool = True,
    failures: bool = True,
) -> str:
    """Failures and tables where asked for, and one summary line last; no line is wider than `width`.

    `verbose` shows every test and more columns. Whether colours and signs beyond ASCII suit the terminal is
    the caller's to know.
    """
    page = make_page(report, verbose=verbose, most_tests=None if verbose else _MOST_TESTS)
    page = page._replace(
        headline=f"membudget: {page.headline}",
        failures=page.failures if failures else (),
        tables=page.tables if tables else (),
        environment=page.environment if tables and verbose else (),
    )
    return lay_out_page(page, width=width, color=color, ascii_only=ascii_only)


def lay_out_page(page: Page, *, width: int = 80, color: bool = False, ascii_only: bool = False) -> str:
    """Everything that stands on the page, its headline last."""
    paint = Paint(color)
    page = clean_page(page, ascii_only=ascii_only)
    blocks = [
        *(_failure(failure, width, paint) for failure in page.failures),
        *(_table(table, width, paint) for table in page.tables),
        *(_listing(listing, width, paint) for listing in page.listings),
        "\n".join(wrap(f"{title:<11} {text}", width) for title, text in page.environment),
        *(paint(wrap(f"caveat: {caveat}", width, indent=8), "yellow") for caveat in page.caveats),
        paint(wrap(page.headline, width), "red" if page.is_bad else "green"),
    ]
    return without_commands("\n\n".join(filter(None, blocks)) + "\n")


def _failure(failure: Failure, width: int, paint: Paint) -> str:
    first, *rest = failure.message
    blocks = [
        paint(wrap(failure.nodeid, width, indent=0), "bold"),
        paint(wrap(f"  {first}", width), "red"),
        wrap("\n".join(rest), width),
    ]
    return "\n".join(filter(None, blocks))


def _listing(listing: Listing, width: int, paint: Paint) -> str:
    title = paint(wrap(f"{listing.title} {listing.nodeid}", width, indent=2), "bold")
    return "\n".join([title, *(wrap(f"  {line}", width) for line in listing.lines)])


_NARROWEST_NAME = 24
_SHADES = {
    **dict.fromkeys([*FAILING, "over total", "over retained", "over law", "FAIL"], "red"),
    **dict.fromkeys(["over_upper", "inconclusive", "HIGH"], "yellow"),
    **dict.fromkeys(["PASS", "improved", "recommended"], "green"),
}


def _table(table: Table, width: int, paint: Paint) -> str:
    """The table under its title and above its notes.

    Where it is too wide, names are shortened; then columns move together; then each name gets a line of its
    own above its figures; at last each cell does.
    """
    notes = [paint(wrap(f"  {note}", width, indent=4), "yellow") for note in table.notes]
    title = [paint(wrap(table.title, width, indent=2), "bold")] if table.title else []
    return "\n".join([*title, *_body(table, width, paint), *notes])


def _body(table: Table, width: int, paint: Paint) -> list[str]:
    if not table.rows:
        return []
    for gap in (2, 1):
        rows = _shortened(table, width, gap)
        if rows is not None:
            return _side_by_side(table.columns, rows, gap, paint)
    names = [index for index, column in enumerate(table.columns) if column.name]
    if len(names) == 1:
        return _under_names(table, names[0], width, paint)
    return [_stacked(table, width)]


def _shortened(table: Table, width: int, gap: int) -> Sequence[Row] | None:
    """The rows with their names short enough for all columns to fit; None where no shortening suffices."""
    widths = _widths(table.columns, table.rows)
    excess = sum(widths) + gap * (len(widths) - 1) - width
    if excess <= 0:
        return table.rows
    names = [index for index, column in enumerate(table.columns) if column.name]
    if not names or widths[names[0]] - excess < _NARROWEST_NAME:
        return None
    longest = widths[names[0]] - excess
    return [
        tuple(shorten(cell, longest) if index == names[0] else cell for index, cell in enumerate(row))
        for row in table.rows
    ]


def _side_by_side(columns: Sequence[Column[Any]], rows: Sequence[Row], gap: int, paint: Paint) -> list[str]:
    """Lines of the table: headings, which widen no column and so may take several lines, a rule, and the rows."""
    from tabulate import tabulate  # takes 10 ms to import, which a session without tables need not pay

    widths = _widths(columns, rows)
    headings = [
        textwrap.wrap(column.title, max(1, size), break_long_words=False, break_on_hyphens=False) or [""]
        for column, size in zip(columns, widths, strict=True)
    ]
    height = max(map(len, headings))
    above = [
        [heading[line - height] if line >= height - len(heading) else "" for heading in headings]
        for line in range(height)
    ]
    text = tabulate(
        [*above, ["-" * size for size in widths], *([_painted(cell, paint) for cell in row] for row in rows)],
        tablefmt=_format(gap),
        colalign=["right" if column.numeric else "left" for column in columns],
        disable_numparse=True,
    )
    return [line.rstrip() for line in text.split("\n")]


def _under_names(table: Table, names: int, width: int, paint: Paint) -> list[str]:
    """Each name on a line of its own, its figures below it."""
    columns = [column for index, column in enumerate(table.columns) if index != names]
    rows = [tuple(cell for index, cell in enumerate(row) if index != names) for row in table.rows]
    if _shortened(Table("", "", tuple(columns), tuple(rows)), width - 2, 1) is None:
        return [_stacked(table, width)]
    lines = _side_by_side(columns, rows, 1, paint)
    head, figures = lines[: -len(rows)], lines[-len(rows) :]
    named = [f"{shorten(row[names], width)}\n  {line}" for row, line in zip(table.rows, figures, strict=True)]
    return [textwrap.indent("\n".join(head), "  "), *named]


def _stacked(table: Table, width: int) -> str:
    titles = [column.title for column in table.columns]
    longest = max(map(len, titles))
    blocks = [
        "\n".join(wrap(f"{title:<{longest}}  {cell}", width) for title, cell in zip(titles, row, strict=True))
        for row in table.rows
    ]
    return "\n\n".join(blocks)


def _widths(columns: Sequence[Column[Any]], rows: Sequence[Row]) -> list[int]:
    """Of each column: its longest cell, or the longest word of its title."""
    return [
        max([*map(len, column.title.split(" ")), *(len(row[index]) for row in rows)])
        for index, column in enumerate(columns)
    ]


def _painted(cell: str, paint: Paint) -> str:
    shade = _SHADES.get(cell)
    return paint(cell, shade) if shade else cell


def _format(gap: int) -> TableFormat:
    from tabulate import DataRow, TableFormat

    return TableFormat(
        lineabove=None,
        linebelowheader=None,
        linebetweenrows=None,
        linebelow=None,
        headerrow=None,
        datarow=DataRow("", " " * gap, ""),
        padding=0,
        with_header_hide=None,
    )
