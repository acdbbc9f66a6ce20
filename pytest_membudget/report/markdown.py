"""The report as GitHub's Markdown. Names from outside stand in code spans, where markup means nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_membudget.records.report import Report
from pytest_membudget.report.page import Failure, clean_page, make_page
from pytest_membudget.report.text import Column, Row, Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&@])")


def render_markdown(report: Report, *, most_tests: int | None = None) -> str:
    """Headline, failures with their messages, and every table; `most_tests` shortens the table of tests."""
    page = clean_page(make_page(report, verbose=True, most_tests=most_tests), ascii_only=False)
    blocks = ["# Memory report", plain(page.headline)]
    if page.failures:
        blocks.append("## Failures")
        blocks += [_failure(failure) for failure in page.failures]
    blocks += [markdown_table(table) for table in page.tables]
    if page.caveats:
        blocks.append("\n".join(["## Caveats", "", *(f"- {plain(caveat)}" for caveat in page.caveats)]))
    if page.environment:
        blocks.append(
            "\n".join(
                ["## Measured on", "", *(f"- {title}: {plain(text)}" for title, text in page.environment)]
            )
        )
    return "\n\n".join(blocks) + "\n"


def markdown_table(table: Table, *, level: int = 2) -> str:
    """One table under a heading, its notes below it."""
    lines = [f"{'#' * level} {plain(table.title)}", ""]
    if table.rows:
        lines += [
            _row([plain(column.title) for column in table.columns]),
            _row(["---:" if column.numeric else ":---" for column in table.columns]),
            *(_row(_cells(table.columns, row)) for row in table.rows),
        ]
    if table.notes:
        lines += ["", *(f"- {plain(note)}" for note in table.notes)]
    return "\n".join(lines)


def plain(text: str) -> str:
    """`text` with every sign that Markdown could read as markup escaped."""
    return _SPECIAL.sub(r"\\\1", text)


def code(text: str) -> str:
    """`text` as a code span that its own backticks cannot end."""
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def block(text: str) -> str:
    """`text` as a code block that its own backticks cannot end."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _failure(failure: Failure) -> str:
    return f"{code(failure.nodeid)}\n\n{block(failure.message)}"


def _cells(columns: Sequence[Column], row: Row) -> list[str]:
    return [
        code(cell).replace("|", "\\|") if column.name else plain(cell)
        for column, cell in zip(columns, row, strict=True)
    ]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
