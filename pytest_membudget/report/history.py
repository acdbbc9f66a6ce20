"""A history as pages: its runs, one of its tests, and the trends of all; and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pytest_membudget.records.comparison import (
    HistoryPoint,
    HistoryRun,
    TestHistory,
    TestTrend,
    TrendChange,
    TrendReport,
    TrendVerdict,
)
from pytest_membudget.records.storage import encodable, encode_json
from pytest_membudget.report.page import Page
from pytest_membudget.report.text import NONE, Column, Table, make_table, name, number, signed_share
from pytest_membudget.units import format_count, format_size

WORSE = frozenset({"jumped", "crept"})

_MOST_RUNS = 20
_MOST_STEADY = 10
_REVISION_LETTERS = 12


def short_revision(revision: str) -> str:
    """A commit's first twelve letters; other names as they are."""
    commit, plus, rest = revision.partition("+")
    is_commit = len(commit) >= 40 and all(letter in "0123456789abcdef" for letter in commit)
    return commit[:_REVISION_LETTERS] + plus + rest if is_commit else revision


def page_of_runs(path: str, runs: Sequence[HistoryRun], tests: int) -> Page:
    """The newest runs of a history, and how many there are in all."""
    title = f"{path}: {format_count(len(runs), 'run')} of {format_count(tests, 'test')}"
    columns: tuple[Column[HistoryRun], ...] = (
        name("revision", lambda run: short_revision(run.revision) or NONE),
        name("time", lambda run: run.created or NONE),
        number("tests", lambda run: f"{run.tests:,}"),
        name("Python", lambda run: run.environment.python or NONE),
        name("kernel", lambda run: run.environment.kernel or NONE),
    )
    left_out = len(runs) - _MOST_RUNS
    notes = (f"and {left_out:,} older runs; --json has all",) if left_out > 0 else ()
    return Page("Memory history", "", tables=(make_table("runs", title, columns, runs[-_MOST_RUNS:], notes),))


def page_of_test(history: TestHistory) -> Page:
    """Every run of one test, the oldest first."""
    title = f"{history.nodeid}: {format_count(len(history.points), 'run')}"
    columns: tuple[Column[HistoryPoint], ...] = (
        name("revision", lambda point: short_revision(point.revision) or NONE),
        name("time", lambda point: point.created or NONE),
        number("peak", lambda point: format_size(point.peak_bytes)),
        number("samples", lambda point: ", ".join(map(format_size, point.samples_bytes)) or NONE),
    )
    return Page("Memory history", "", tables=(make_table("points", title, columns, history.points),))


def render_history_json(path: str, runs: Sequence[HistoryRun], tests: Sequence[TestHistory]) -> bytes:
    """Runs and tests with every point."""
    return encode_json(
        {"path": path, "runs": [msgspec.to_builtins(run) for run in runs], "tests": list(tests)}
    )


def page_of_trend(report: TrendReport) -> Page:
    """The tests that got worse, the largest of the others, and one line that sums it up."""
    return Page(
        title="Memory trend",
        headline=trend_headline(report),
        is_bad=any(test.verdict in WORSE for test in report.tests),
        tables=(_table(report),),
    )


def render_trend_json(report: TrendReport) -> bytes:
    """Every test with its verdict and changes; the peaks themselves are in `membudget history show --json`."""
    document: dict[str, Any] = msgspec.to_builtins(report)
    for shown, test in zip(document["tests"], report.tests, strict=True):
        del shown["positions"], shown["peaks_bytes"]
        for row, change in zip(shown["changes"], test.changes, strict=True):
            row["change"] = change.change
    return encode_json(encodable(document))


def trend_headline(report: TrendReport) -> str:
    """How many tests have which verdict."""
    verdicts: tuple[TrendVerdict, ...] = ("jumped", "crept", "steady")
    counts = [f"{report.count(verdict):,} {verdict}" for verdict in verdicts]
    if report.count("unknown"):
        counts.append(f"{report.count('unknown'):,} unknown (too few revisions)")
    since = f" since {short_revision(report.since)}" if report.since else ""
    return (
        f"{format_count(len(report.tests), 'test')} over {format_count(len(report.revisions), 'revision')}{since}: "
        + ", ".join(counts)
    )


def describe(test: TestTrend) -> str:
    """What became of a test, as one sentence; a repaired or improved one is steady and says what happened."""
    if test.before_bytes is not None and test.after_bytes is not None and test.change is not None:
        sizes = (
            f"{format_size(test.before_bytes)} → {format_size(test.after_bytes)}, {signed_share(test.change)}"
        )
        revision = short_revision(test.revision or "")
        return (
            f"crept since {revision}: {sizes}"
            if test.verdict == "crept"
            else f"jumped at {revision}: {sizes}"
        )
    changes = [describe_change(change) for change in test.changes]
    return f"{test.verdict} at {format_size(test.level_bytes)}" + "".join(
        f"; {text}" for text in changes[-2:]
    )


def describe_change(change: TrendChange) -> str:
    """One change in a few words."""
    revision, share = short_revision(change.revision), signed_share(change.change)
    if change.kind == "environment":
        why = f" ({change.differences[0]})" if change.differences else ""
        return f"{share} with another environment at {revision}{why}"
    if change.kind == "creep":
        return f"{share} from {revision} to {short_revision(change.until_revision)}"
    return f"{share} at {revision}"


_TREND_COLUMNS: tuple[Column[TestTrend], ...] = (
    name("test", lambda test: test.nodeid),
    Column("trend", lambda test: test.verdict),
    number("change", lambda test: NONE if test.change is None else signed_share(test.change)),
    name("revision", lambda test: NONE if test.revision is None else short_revision(test.revision)),
    number("now", lambda test: format_size(test.level_bytes)),
    number("at first", lambda test: format_size(test.anchor_bytes)),
)


def _table(report: TrendReport) -> Table:
    worse = [test for test in report.tests if test.verdict in WORSE]
    others = sorted(
        (test for test in report.tests if test.verdict not in WORSE), key=lambda test: -test.level_bytes
    )
    left_out = len(others) - _MOST_STEADY
    notes = [f"a change within {report.tolerance} is none"]
    if left_out > 0:
        notes.append(f"and {left_out:,} more that did not get worse")
    shown = [*worse, *others[:_MOST_STEADY]]
    return make_table("trend", "Peaks over the revisions", _TREND_COLUMNS, shown, notes)
