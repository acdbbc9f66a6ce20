"""What every format shows: a headline, the failures, and tables of finished text.

A renderer lays this out and computes nothing; sizes, shares and rounding become text here and nowhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pytest_membudget.records.judgement import HeldByFixture, RetainedByTest
from pytest_membudget.records.report import BaselineCheck, Comparison, Report, TestRecord
from pytest_membudget.records.run import BatchSummary
from pytest_membudget.report import job_tables
from pytest_membudget.report.text import (
    FAILING,
    NONE,
    RANGE,
    Column,
    Table,
    clean_text,
    is_failure,
    make_table,
    name,
    number,
    peak_text,
    signed_share,
    size_or_none,
    source_text,
    used_text,
    verdict_text,
    without_figures,
)
from pytest_membudget.units import format_count, format_duration, format_share, format_size

_MOST_LEFT = 5

_MOST_NAMES = 20
MOST_CAVEATS = 20


class Failure(NamedTuple):
    """One failed test: its name, and the lines of the message that explains it."""

    nodeid: str
    message: tuple[str, ...]


class Listing(NamedTuple):
    """Lines about one test under a title that ends with its name."""

    title: str
    nodeid: str
    lines: tuple[str, ...]


class Page(NamedTuple):
    """A report, a comparison or a history as finished text; what is empty is not shown."""

    title: str
    headline: str
    #: Whether the headline is bad news.
    is_bad: bool = False
    failures: tuple[Failure, ...] = ()
    tables: tuple[Table, ...] = ()
    listings: tuple[Listing, ...] = ()
    caveats: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


def make_page(report: Report, *, verbose: bool = False, most_tests: int | None = None) -> Page:
    """The page of `report`; `most_tests` leaves the smallest tests out of the table and says how many."""
    failures = tuple(_failure(test) for test in report.tests if is_failure(test))
    return Page(
        title="Memory report",
        headline=render_headline(report),
        is_bad=bool(failures),
        failures=failures,
        tables=tuple(table for table in _tables(report, verbose=verbose, most_tests=most_tests) if table),
        caveats=report.caveats,
        environment=environment_rows(report),
    )


def _tables(report: Report, *, verbose: bool, most_tests: int | None) -> Iterator[Table]:
    """Those of what the session had; most have tests alone."""
    most_left = None if verbose else _MOST_LEFT
    yield tests_table(report.tests, verbose=verbose, most_tests=most_tests)
    if report.left_behind:
        yield left_behind_table(report.left_behind, most_tests=most_left)
    if report.fixtures:
        yield fixtures_table(report.fixtures, most_fixtures=most_left)
    yield comparison_table(report.tests)
    if report.baseline is not None:
        yield baseline_table(report.baseline)
    yield from map(job_tables.scale_table, report.scales)
    yield from map(job_tables.breakdown_table, report.scales)
    yield from map(job_tables.in_flight_table, report.in_flight)
    if report.batches:
        yield job_tables.batch_table(report.batches, verbose=verbose)
        yield job_tables.host_table(report.batches)
    if report.monitors:
        yield job_tables.monitor_table(report.monitors)
    if report.calibrations:
        yield job_tables.calibration_table(report.calibrations)


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
    return Failure(test.nodeid, tuple((test.message or FAILING[test.verdict]).split("\n")))


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


def clean_page(page: Page, *, ascii_only: bool = False) -> Page:
    """The page without control characters; each stands as its escape."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return clean_text(value, ascii_only=ascii_only)
        if not isinstance(value, tuple):
            return value
        make: Any = type(value)
        return make(map(clean, value)) if make is tuple else make(*map(clean, value))

    return Page._make(map(clean, page))


def tests_table(tests: Sequence[TestRecord], *, verbose: bool, most_tests: int | None) -> Table:
    """Failing tests first, then by falling peak."""
    measured = failing_first(
        [test for test in tests if test.peak_bytes is not None or test.verdict in FAILING]
    )
    failing = sum(test.verdict in FAILING for test in measured)
    shown = measured if most_tests is None else measured[: max(most_tests, failing)]
    notes = _left_out(len(measured) - len(shown), "smaller test")
    if any(RANGE in peak_text(test) for test in shown):
        notes.append("a range is: lower bound .. upper bound, where the peak is not known exactly")
    if verbose:
        notes += _caveats(shown)
    elif doubtful := sum(bool(test.caveats) for test in shown):
        notes.append(
            f"{format_count(doubtful, 'figure')} in doubt: -v says why, and so do the files of a report"
        )
    title = "Memory by test (peak of the process tree above its start)"
    columns = TEST_COLUMNS if verbose else TEST_COLUMNS[:_FEW_COLUMNS]
    return make_table("tests", title, columns, shown, notes)


def failing_first(tests: Sequence[TestRecord]) -> list[TestRecord]:
    """The tests in the order of a table: those that failed, then the largest."""
    return sorted(tests, key=lambda test: (test.verdict not in FAILING, -(test.peak_bytes or 0), test.nodeid))


def _used(test: TestRecord) -> str:
    if not test.budget_bytes or test.peak_bytes is None:
        return NONE
    return used_text(test.peak_bytes / test.budget_bytes)


_FEW_COLUMNS = 5
TEST_COLUMNS: tuple[Column[TestRecord], ...] = (
    name("test", lambda test: test.nodeid),
    number("peak", peak_text),
    number("budget", lambda test: size_or_none(test.budget_bytes)),
    number("used", _used),
    Column("verdict", verdict_text),
    number("total", lambda test: size_or_none(test.total_peak_bytes)),
    number("retained", lambda test: size_or_none(test.retained_bytes)),
    number("time", lambda test: NONE if test.duration_s is None else format_duration(test.duration_s)),
    number("procs", lambda test: NONE if test.processes is None else str(test.processes)),
    Column("how", source_text),
)


def comparison_table(tests: Sequence[TestRecord]) -> Table:
    """The tests that were compared with a baseline, those that changed."""
    rows = [
        (test.nodeid, found)
        for test in tests
        if (found := test.comparison) is not None and (found.finding in _CHANGED or found.samples_bytes)
    ]
    note = (
        "of a test that was run again, baseline and now are medians of runs in fresh processes: they include what earlier tests "
        "of a session would have loaded, which its peak in this session does not"
    )
    notes = (note,) if any(found.samples_bytes for _, found in rows) else ()
    return make_table("comparison", "Against the baseline", _COMPARISON_COLUMNS, rows, notes)


_CHANGED = frozenset({"regressed", "improved"})
_COMPARISON_COLUMNS: tuple[Column[tuple[str, Comparison]], ...] = (
    name("test", lambda row: row[0]),
    number("baseline", lambda row: format_size(row[1].base_bytes)),
    number("now", lambda row: format_size(row[1].new_bytes)),
    number("change", lambda row: signed_share(row[1].change) if row[1].finding in _CHANGED else "~"),
    number("allowed", lambda row: format_size(row[1].allowed_bytes)),
    number("reruns", lambda row: str(len(row[1].samples_bytes))),
    number("p", lambda row: NONE if row[1].p is None else f"{row[1].p:.3f}"),
    Column("finding", lambda row: row[1].finding),
)


def baseline_table(check: BaselineCheck) -> Table:
    """What the baseline has that this run has not, and the other way round."""
    groups: list[tuple[str, Sequence[str]]] = [
        ("new", check.new),
        ("gone", check.gone),
        ("renamed", [f"{old} -> {new}" for old, new in check.renamed]),
        ("skipped", check.skipped),
        ("not run", check.not_run),
    ]
    rows: list[tuple[str, str]] = []
    for title, names in groups:
        rows += [(title, text) for text in names[:_MOST_NAMES]]
        if len(names) > _MOST_NAMES:
            rows.append((title, f"and {len(names) - _MOST_NAMES:,} more"))
    columns: tuple[Column[tuple[str, str]], ...] = (
        Column("", lambda row: row[0]),
        name("test", lambda row: row[1]),
    )
    notes = (f"accept the present figures: {check.accept_command}",)
    title = f"Baseline {check.path}, tolerance {check.tolerance}"
    return make_table("baseline", title, columns, rows, notes)


def fixtures_table(fixtures: Sequence[HeldByFixture], *, most_fixtures: int | None = None) -> Table:
    """What fixtures of a wider scope than one test hold, the largest first."""
    columns: tuple[Column[HeldByFixture], ...] = (
        name("fixture", lambda each: each.name),
        Column("scope", lambda each: each.scope),
        number("holds", lambda each: format_size(each.held_bytes)),
        name("set up for", lambda each: each.nodeid),
    )
    shown = fixtures[:most_fixtures]
    notes = _left_out(len(fixtures) - len(shown), "smaller fixture")
    title = "Memory that fixtures hold (in no test's figures)"
    return make_table("fixtures", title, columns, shown, notes)


def left_behind_table(left: Sequence[RetainedByTest], *, most_tests: int | None = None) -> Table:
    """The tests after which the process holds more than before, the largest first."""
    columns: tuple[Column[RetainedByTest], ...] = (
        name("test", lambda each: each.nodeid),
        number("retained", lambda each: format_size(each.retained_bytes)),
        number("% of total", lambda each: format_share(each.share)),
    )
    shown = left[:most_tests]
    notes = _left_out(len(left) - len(shown), "smaller test")
    return make_table("left-behind", "Memory that tests retained", columns, shown, notes)


def _left_out(count: int, what: str) -> list[str]:
    return [f"{format_count(count, what)} not shown"] if count else []


def _caveats(tests: Sequence[TestRecord]) -> list[str]:
    seen = caveat_counts(tests)
    shown = [f"{caveat} ({format_count(count, 'test')})" for caveat, count in seen[:MOST_CAVEATS]]
    return shown + ([f"and {len(seen) - MOST_CAVEATS:,} more caveats"] if len(seen) > MOST_CAVEATS else [])


def caveat_counts(tests: Sequence[TestRecord]) -> list[tuple[str, int]]:
    """Each caveat once with the number of tests it goes with, the most frequent first.

    Those that differ by their figures alone are one, with the figures of the first.
    """
    kinds = Counter(without_figures(caveat) for test in tests for caveat in set(test.caveats))
    first: dict[str, str] = {}
    for test in tests:
        for caveat in test.caveats:
            first.setdefault(without_figures(caveat), caveat)
    return [(first[kind], count) for kind, count in kinds.most_common()]
