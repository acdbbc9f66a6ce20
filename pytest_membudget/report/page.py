"""What every format shows: a headline, the failures, and tables of finished text.

A renderer lays this out and computes nothing; sizes, shares and rounding become text here and nowhere else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from pytest_membudget.records.judgement import HeldByFixture, RetainedByTest
from pytest_membudget.records.report import BaselineCheck, Report, TestRecord
from pytest_membudget.records.run import BatchSummary
from pytest_membudget.report import job_tables
from pytest_membudget.report.text import (
    FAILING,
    NONE,
    RANGE,
    Column,
    Row,
    Table,
    clean_text,
    is_failure,
    name,
    number,
    peak_text,
    signed_share,
    size_or_none,
    source_text,
    used_text,
    verdict_text,
)
from pytest_membudget.units import format_count, format_duration, format_share, format_size

_MOST_LEFT = 5

_FIGURES = re.compile(r"\d[\d.,]*(?: [kKMGT]?i?B)?")
_MOST_NAMES = 20
MOST_CAVEATS = 20


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
                tests_table(report.tests, verbose=verbose, most_tests=most_tests),
                left_behind_table(report.left_behind, most_tests=None if verbose else _MOST_LEFT),
                fixtures_table(report.fixtures, most_fixtures=None if verbose else _MOST_LEFT),
                comparison_table(report.tests),
                baseline_table(report.baseline),
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


def tests_table(tests: Sequence[TestRecord], *, verbose: bool, most_tests: int | None) -> Table | None:
    """Failing tests first, then by falling peak."""
    measured = sorted(
        (test for test in tests if test.peak_bytes is not None or test.verdict in FAILING),
        key=lambda test: (test.verdict not in FAILING, -(test.peak_bytes or 0), test.nodeid),
    )
    if not measured:
        return None
    failing = sum(test.verdict in FAILING for test in measured)
    shown = measured if most_tests is None else measured[: max(most_tests, failing)]
    left_out = len(measured) - len(shown)
    notes = [f"{format_count(left_out, 'smaller test')} not shown"] if left_out else []
    if any(RANGE in peak_text(test) for test in shown):
        notes.append("a range is: lower bound .. upper bound, where the peak is not known exactly")
    if verbose:
        notes += _caveats(shown)
    columns = (name("test"), number("peak"), number("budget"), number("used"), Column("verdict"))
    more = (number("total"), number("retained"), number("time"), number("procs"), Column("how"))
    return Table(
        key="tests",
        title="Memory by test (peak of the process tree above its start)",
        columns=(*columns, *more) if verbose else columns,
        rows=tuple(_test_row(test, verbose) for test in shown),
        notes=tuple(notes),
    )


def comparison_table(tests: Sequence[TestRecord]) -> Table | None:
    """The tests that were compared with a baseline, those that changed."""
    rows = [
        (
            test.nodeid,
            format_size(found.base_bytes),
            format_size(found.new_bytes),
            signed_share(found.change) if found.finding in {"regressed", "improved"} else "~",
            format_size(found.allowed_bytes),
            f"{len(found.samples_bytes)}",
            NONE if found.p is None else f"{found.p:.3f}",
            found.finding,
        )
        for test in tests
        if (found := test.comparison) is not None
        and (found.finding in {"regressed", "improved"} or found.samples_bytes)
    ]
    if not rows:
        return None
    columns = (
        name("test"),
        number("baseline"),
        number("now"),
        number("change"),
        number("allowed"),
        number("reruns"),
        number("p"),
        Column("finding"),
    )
    note = (
        "of a test that was run again, baseline and now are medians of runs in fresh processes: they include what earlier tests "
        "of a session would have loaded, which its peak in this session does not"
    )
    reran = any(test.comparison is not None and test.comparison.samples_bytes for test in tests)
    return Table("comparison", "Against the baseline", columns, tuple(rows), (note,) if reran else ())


def baseline_table(check: BaselineCheck | None) -> Table | None:
    """What the baseline has that this run has not, and the other way round."""
    if check is None:
        return None
    groups: list[tuple[str, Sequence[str]]] = [
        ("new", check.new),
        ("gone", check.gone),
        ("renamed", [f"{old} -> {new}" for old, new in check.renamed]),
        ("skipped", check.skipped),
        ("not run", check.not_run),
    ]
    rows: list[Row] = []
    for title, names in groups:
        rows += [(title, text) for text in names[:_MOST_NAMES]]
        if len(names) > _MOST_NAMES:
            rows.append((title, f"and {len(names) - _MOST_NAMES:,} more"))
    if not rows:
        return None
    notes = (f"accept the present figures: {check.accept_command}",)
    return Table(
        "baseline",
        f"Baseline {check.path}, tolerance {check.tolerance}",
        (Column(""), name("test")),
        tuple(rows),
        notes,
    )


def fixtures_table(fixtures: Sequence[HeldByFixture], *, most_fixtures: int | None = None) -> Table | None:
    """What fixtures of a wider scope than one test hold, the largest first."""
    if not fixtures:
        return None
    shown = fixtures if most_fixtures is None else fixtures[:most_fixtures]
    rows = tuple((each.name, each.scope, format_size(each.held_bytes), each.nodeid) for each in shown)
    columns = (name("fixture"), Column("scope"), number("holds"), name("set up for"))
    left_out = len(fixtures) - len(shown)
    notes = (f"{format_count(left_out, 'smaller fixture')} not shown",) if left_out else ()
    return Table("fixtures", "Memory that fixtures hold (in no test's figures)", columns, rows, notes)


def left_behind_table(left: Sequence[RetainedByTest], *, most_tests: int | None = None) -> Table | None:
    """The tests after which the process holds more than before, the largest first."""
    if not left:
        return None
    shown = left if most_tests is None else left[:most_tests]
    rows = tuple((each.nodeid, format_size(each.retained_bytes), format_share(each.share)) for each in shown)
    columns = (name("test"), number("retained"), number("% of total"))
    left_out = len(left) - len(shown)
    notes = (f"{format_count(left_out, 'smaller test')} not shown",) if left_out else ()
    return Table("left-behind", "Memory that tests retained", columns, rows, notes)


def _test_row(test: TestRecord, verbose: bool) -> Row:
    used = NONE
    if test.budget_bytes and test.peak_bytes is not None:
        used = used_text(test.peak_bytes / test.budget_bytes)
    row = (test.nodeid, peak_text(test), size_or_none(test.budget_bytes), used, verdict_text(test))
    if not verbose:
        return row
    return (
        *row,
        size_or_none(test.total_peak_bytes),
        size_or_none(test.retained_bytes),
        NONE if test.duration_s is None else format_duration(test.duration_s),
        NONE if test.processes is None else str(test.processes),
        source_text(test),
    )


def _caveats(tests: Sequence[TestRecord]) -> list[str]:
    seen = caveat_counts(tests)
    shown = [f"{caveat} ({format_count(count, 'test')})" for caveat, count in seen[:MOST_CAVEATS]]
    return shown + ([f"and {len(seen) - MOST_CAVEATS:,} more caveats"] if len(seen) > MOST_CAVEATS else [])


def caveat_counts(tests: Sequence[TestRecord]) -> list[tuple[str, int]]:
    """Each caveat once with the number of tests it goes with, the most frequent first.

    Those that differ by their figures alone are one, with the figures of the first.
    """
    kinds = Counter(_FIGURES.sub("#", caveat) for test in tests for caveat in set(test.caveats))
    first: dict[str, str] = {}
    for test in tests:
        for caveat in test.caveats:
            first.setdefault(_FIGURES.sub("#", caveat), caveat)
    return [(first[kind], count) for kind, count in kinds.most_common()]
