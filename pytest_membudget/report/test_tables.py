"""The tables that have one row a test."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from pytest_membudget.records.judgement import HeldByFixture, RetainedByTest
from pytest_membudget.records.report import BaselineCheck, TestRecord
from pytest_membudget.report.text import (
    FAILING,
    NONE,
    RANGE,
    Column,
    Row,
    Table,
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

_FIGURES = re.compile(r"\d[\d.,]*(?: [kKMGT]?i?B)?")
_MOST_NAMES = 20
MOST_CAVEATS = 20


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
    """The tests that a baseline was held against, those that changed."""
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
    told = [f"{caveat} ({format_count(count, 'test')})" for caveat, count in seen[:MOST_CAVEATS]]
    return told + ([f"and {len(seen) - MOST_CAVEATS:,} more caveats"] if len(seen) > MOST_CAVEATS else [])


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
