"""What every format shows: a headline, the failures, and tables of finished text.

A renderer lays this out and computes nothing; sizes, shares and rounding become text here and nowhere else.
"""

from __future__ import annotations

from typing import NamedTuple

from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.report import batch_tables, job_tables, monitor_tables, test_tables
from pytest_membudget.report.headline import render_headline
from pytest_membudget.report.tables import Table
from pytest_membudget.report.wording import FAILING, is_failure
from pytest_membudget.units import format_size

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
                test_tables.comparison_table(report.tests),
                test_tables.baseline_table(report.baseline),
                *(job_tables.scale_table(table) for table in report.scales),
                *(job_tables.breakdown_table(table) for table in report.scales),
                *(job_tables.in_flight_table(table) for table in report.in_flight),
                batch_tables.batch_table(report.batches, verbose=verbose),
                batch_tables.host_table(report.batches),
                monitor_tables.monitor_table(report.monitors),
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
