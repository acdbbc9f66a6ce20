"""The report as GitHub's Markdown, and what a CI service shows of it.

That is a comment that can be found again, a badge, and what GitHub Actions reads: a step's summary, annotations of lines, and
figures for github-action-benchmark. Names from outside stand in code spans, where markup means nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.records.storage import encodable, encode_json
from pytest_membudget.report.page import Failure, Page, clean_page, make_page
from pytest_membudget.report.text import FAILING, Column, Row, Table, clean_text, is_failure
from pytest_membudget.units import format_count, format_size

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&@])")

#: The first line of each comment, invisible where it is shown: by it the next run finds and replaces it.
MARKER = "<!-- pytest-membudget -->"
_LARGEST_COMMENT = 60_000
"""GitHub refuses a comment of more than 65,536 letters; the trend follows this part."""
_LARGEST_SUMMARY_BYTES = 1_000_000
"""GitHub refuses a step's summary above 1 MiB."""
_MOST_TESTS = 30
_MOST_FAILURES = 50


def render_markdown(report: Report, *, most_tests: int | None = None) -> str:
    """Headline, failures with their messages, and every table; `most_tests` shortens the table of tests."""
    return markdown_page(make_page(report, verbose=True, most_tests=most_tests))


def markdown_page(page: Page) -> str:
    """Everything that stands on the page, its headline first."""
    page = clean_page(page)
    blocks = [f"# {page.title}", plain(page.headline)]
    if page.failures:
        blocks.append("## Failures")
        blocks += [_failure(failure) for failure in page.failures]
    blocks += [_table(table) for table in page.tables]
    for listing in page.listings:
        blocks.append(_list(f"{listing.title} {code(listing.nodeid)}", map(code, listing.lines)))
    blocks.append(_list("Caveats", map(plain, page.caveats)))
    blocks.append(_list("Measured on", (f"{title}: {plain(text)}" for title, text in page.environment)))
    return "\n\n".join(filter(None, blocks)) + "\n"


def _list(title: str, items: Iterable[str]) -> str:
    lines = [f"- {item}" for item in items]
    return "\n".join([f"## {title}", "", *lines]) if lines else ""


def _table(table: Table, *, level: int = 2) -> str:
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


def _block(lines: Sequence[str]) -> str:
    """A code block that backticks in it cannot end."""
    text = "\n".join(lines)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _failure(failure: Failure) -> str:
    return f"{code(failure.nodeid)}\n\n{_block(failure.message)}"


def _cells(columns: Sequence[Column[Any]], row: Row) -> list[str]:
    return [
        code(cell).replace("|", "\\|") if column.name else plain(cell)
        for column, cell in zip(columns, row, strict=True)
    ]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def render_comment(report: Report) -> str:
    """The summary of a step as a comment, cut at the end of a line where a service would refuse it."""
    text = f"{MARKER}\n{render_step_summary(report)}"
    if len(text) > _LARGEST_COMMENT:
        text = text[:_LARGEST_COMMENT].rpartition("\n")[0] + "\n\nThe rest is in the reports of this run.\n"
    return text


def render_badge(report: Report) -> bytes:
    """The format of shields.io's endpoint badge (https://shields.io/badges/endpoint-badge)."""
    failing = [test for test in report.tests if is_failure(test)]
    measured = [test.peak_bytes for test in report.tests if test.peak_bytes is not None]
    if failing:
        counts = (
            (name, sum(test.verdict == verdict for test in failing)) for verdict, name in FAILING.items()
        )
        message, color = ", ".join(f"{count:,} {name}" for name, count in counts if count), "red"
    elif measured:
        message, color = (
            f"{format_count(len(measured), 'test')}, {format_size(max(measured))} at most",
            "brightgreen",
        )
    else:
        message, color = "not measured", "lightgrey"
    return encode_json({"schemaVersion": 1, "label": "memory", "message": message, "color": color})


def render_step_summary(report: Report) -> str:
    """A short page for `$GITHUB_STEP_SUMMARY`: failures unfold, the largest tests and all other tables follow."""
    page = clean_page(make_page(report, most_tests=_MOST_TESTS))
    mark = "❌" if page.failures else "✅"
    blocks = [f"## {mark} Memory", plain(page.headline)]
    blocks += [
        f"<details><summary>{_escaped(failure.nodeid)}: {_escaped(failure.message[0])}</summary>\n\n"
        f"{_block(failure.message)}\n\n</details>"
        for failure in page.failures[:_MOST_FAILURES]
    ]
    left_out = len(page.failures) - _MOST_FAILURES
    if left_out > 0:
        blocks.append(f"and {left_out:,} more failures")
    blocks += [_table(table, level=3) for table in page.tables]
    blocks += [f"> {plain(caveat)}" for caveat in page.caveats]
    return _within("\n\n".join(blocks) + "\n")


def render_annotations(report: Report, *, folder: str = "") -> str:
    """One `::error` line for each failed test and one `::warning` for each doubtful one, at the test's own line.

    `folder` is where the tests' files lie below the repository's root.
    """
    lines = [line for test in report.tests if (line := _annotation(test, folder))]
    return "".join(f"{line}\n" for line in lines)


def render_benchmark_json(report: Report) -> bytes:
    """`customSmallerIsBetter` of github-action-benchmark: the peak of each test and each scale, in bytes."""
    rows: list[dict[str, object]] = [
        {
            "name": test.nodeid,
            "unit": "bytes",
            "value": test.peak_bytes,
            **_range(test),
            "extra": test.verdict,
        }
        for test in report.tests
        if test.peak_bytes is not None
    ]
    rows += [
        {
            "name": f"{table.title}: {row.scale.name.upper()}",
            "unit": "bytes",
            "value": row.peak_bytes,
            "extra": row.status,
        }
        for table in report.scales
        for row in table.rows
    ]
    return encode_json(encodable(rows))


def _range(test: TestRecord) -> dict[str, object]:
    if len(test.samples_bytes) < 2:
        return {}
    return {"range": f"{min(test.samples_bytes)}..{max(test.samples_bytes)}"}


def _annotation(test: TestRecord, folder: str) -> str:
    if test.outcome == "xfailed":
        return ""
    if test.verdict in FAILING:
        level = "warning" if test.outcome == "passed" else "error"  # passed: --membudget-warn
        title, message = FAILING[test.verdict], test.message or FAILING[test.verdict]
    elif test.verdict in {"over_upper", "inconclusive"}:
        level, title, message = "warning", "memory in doubt", "\n".join(test.caveats) or test.verdict
    else:
        return ""
    file = f"{folder}/{test.file}" if folder and test.file else test.file
    properties = {"file": file, "line": str(test.line or ""), "title": f"{title}: {test.nodeid}"}
    given = ",".join(f"{key}={_property(value)}" for key, value in properties.items() if value)
    return f"::{level} {given}::{_data(message)}"


def _data(text: str) -> str:
    """As GitHub's own toolkit escapes the message of a workflow command."""
    lines = [clean_text(line) for line in text.split("\n")]
    return "\n".join(lines).replace("%", "%25").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _escaped(text: str) -> str:
    signs = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "@": "&#64;", "`": "&#96;"}
    return "".join(signs.get(sign, sign) for sign in text)


def _within(text: str) -> str:
    """`text`, cut at a line's end where GitHub would refuse it."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= _LARGEST_SUMMARY_BYTES:
        return data.decode()
    kept = data[:_LARGEST_SUMMARY_BYTES].rpartition(b"\n")[0].decode("utf-8", "ignore")
    return f"{kept}\n\n{code('cut here: GitHub shows at most 1 MiB')}\n"
