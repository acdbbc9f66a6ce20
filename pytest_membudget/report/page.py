"""What every format shows: a headline, the failures, and tables of finished text.

A renderer lays this out and computes nothing; sizes, shares and rounding become text here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.records.run import BatchSummary
from pytest_membudget.report import job_tables, test_tables
from pytest_membudget.report.text import FAILING, Table, clean_text, is_failure
from pytest_membudget.units import format_count, format_size

_MOST_LEFT = 5


class Failure(NamedTuple):
    """One failed test: its name, and the message that explains it."""

    nodeid: str
    message: str


class Page(NamedTuple):
    """A report as finished text."""

    headline: str
    failures: tuple[Failure, ...]
    tables: tuple[Table, ...]
    caveats: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]


def make_page(report: Report, *, verbose: bool = False, most_tests: int | None = None) -> Page:
    """The page of `report`; `most_tests` leaves the smallest tests out of the table and says how many."""
    return Page(
        headline=render_headline(report),
        failures=tuple(_failure(test) for test in report.tests if is_failure(test)),
        tables=tuple(
            table
            for table in (
                test_tables.tests_table(report.tests, verbose=verbose, most_tests=most_tests),
                test_tables.left_behind_table(report.left_behind, most_tests=None if verbose else _MOST_LEFT),
                test_tables.fixtures_table(report.fixtures, most_fixtures=None if verbose else _MOST_LEFT),
                test_tables.comparison_table(report.tests),
                test_tables.baseline_table(report.baseline),
                *(job_tables.scale_table(table) for table in report.scales),
                *(job_tables.breakdown_table(table) for table in report.scales),
                *(job_tables.in_flight_table(table) for table in report.in_flight),
                job_tables.batch_table(report.batches, verbose=verbose),
                job_tables.host_table(report.batches),
                job_tables.monitor_table(report.monitors),
                job_tables.calibration_table(report.calibrations),
            )
            if table is not None
        ),
        caveats=report.caveats,
        environment=environment_rows(report),
    )


def environment_rows(report: Report) -> tuple[tuple[str, str], ...]:
    """Where the figures were taken, as pairs of a title and its text."""
    found = report.environment
    rows = [
        ("system", " ".join(part for part in (found.system, found.kernel, found.machine) if part)),
        ("Python", found.python),
        ("libc", found.libc),
        ("allocator", found.allocator),
        ("page size", format_size(found.page_size_bytes) if found.page_size_bytes else ""),
        ("huge pages", found.transparent_hugepages),
        ("cores", str(found.cores) if found.cores else ""),
        ("limit", f"{format_size(found.limit_bytes)} ({found.limit_source})" if found.limit_bytes else ""),
        ("packages", ", ".join(f"{name} {version}" for name, version in sorted(found.packages.items()))),
        ("hosts", ", ".join(found.hosts)),
        ("created", report.created),
    ]
    return tuple((title, text) for title, text in rows if text)


def _failure(test: TestRecord) -> Failure:
    return Failure(test.nodeid, test.message or FAILING[test.verdict])


def render_headline(report: Report) -> str:
    """One line: how many tests were measured, how they were judged, and the largest."""
    measured = [test for test in report.tests if test.peak_bytes is not None]
    if not report.tests and report.batches:
        return _headline_of_batches(report.batches)
    counts = [
        f"{len(found)} {words}{_expected(found)}"
        for verdict, words in FAILING.items()
        if (found := [test for test in report.tests if _has(test, verdict)])
    ]
    doubtful = sum(test.verdict in {"over_upper", "inconclusive"} for test in report.tests)
    parts = [f"{format_count(len(measured), 'test')} measured", *counts]
    if not counts:
        judged = sum(test.verdict not in {"none", "over_upper", "inconclusive"} for test in report.tests)
        parts.append(f"{judged:,} checked, none failed" if judged else "none checked")
    if doubtful:
        parts.append(f"{doubtful:,} in doubt")
    if measured:
        largest = max(measured, key=lambda test: test.peak_bytes or 0)
        parts.append(f"largest peak {format_size(largest.peak_bytes or 0)}")
    return ", ".join(parts)


def _has(test: TestRecord, verdict: str) -> bool:
    """Whether that is the test's verdict; a regression counts beside a graver one, which hides it there."""
    is_regressed = test.comparison is not None and test.comparison.finding == "regressed"
    return test.verdict == verdict or (verdict == "regressed" and is_regressed)


def _headline_of_batches(batches: Sequence[BatchSummary]) -> str:
    """What a report of a script's batches, without tests, has to say first."""
    inputs, failed = sum(batch.inputs for batch in batches), sum(batch.failed for batch in batches)
    peak_bytes = max(batch.peak_bytes for batch in batches)
    return (
        f"{format_count(len(batches), 'batch')}, {format_count(inputs, 'input')}, "
        f"{f'{failed:,}' if failed else 'none'} failed, largest peak {format_size(peak_bytes)}"
    )


def _expected(found: Sequence[TestRecord]) -> str:
    """How many of the tests that went wrong were marked to do so."""
    expected = sum(test.outcome == "xfailed" for test in found)
    if not expected:
        return ""
    return " (expected)" if expected == len(found) else f" ({expected} expected)"


def clean_page(page: Page, *, ascii_only: bool) -> Page:
    """The page without control characters; each stands as its escape."""

    def clean(text: str) -> str:
        return clean_text(text, ascii_only=ascii_only)

    return Page(
        headline=clean(page.headline),
        failures=tuple(
            Failure(
                clean(failure.nodeid),
                "\n".join(clean(line) for line in failure.message.split("\n")),
            )
            for failure in page.failures
        ),
        tables=tuple(clean_table(table, ascii_only=ascii_only) for table in page.tables),
        caveats=tuple(map(clean, page.caveats)),
        environment=tuple((clean(title), clean(text)) for title, text in page.environment),
    )


def clean_table(table: Table, *, ascii_only: bool) -> Table:
    """The table without control characters."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return clean_text(value, ascii_only=ascii_only)
        return tuple(clean(item) for item in value)

    return table._replace(title=clean(table.title), rows=clean(table.rows), notes=clean(table.notes))
