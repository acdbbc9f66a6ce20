"""A history as tables: its runs, one of its tests, and the trends of all, for a terminal, as Markdown and as JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pytest_membudget.records.comparison import (
    HistoryRun,
    TestHistory,
    TestTrend,
    TrendChange,
    TrendReport,
    TrendVerdict,
)
from pytest_membudget.records.storage import encodable, encode_json, write_atomically
from pytest_membudget.report.markdown import markdown_table, plain
from pytest_membudget.report.page import clean_table
from pytest_membudget.report.text import (
    NONE,
    Column,
    Paint,
    Row,
    Table,
    clean_text,
    name,
    number,
    signed_share,
    wrap,
)
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


def render_runs(
    path: str, runs: Sequence[HistoryRun], tests: int, *, width: int, color: bool, ascii_only: bool
) -> str:
    """The newest runs of a history, and how many there are in all."""
    left_out = len(runs) - _MOST_RUNS
    table = Table(
        key="runs",
        title=f"{path}: {format_count(len(runs), 'run')} of {format_count(tests, 'test')}",
        columns=(name("revision"), name("time"), number("tests"), name("Python"), name("kernel")),
        rows=tuple(
            (
                short_revision(run.revision) or NONE,
                run.created or NONE,
                f"{run.tests:,}",
                run.environment.python or NONE,
                run.environment.kernel or NONE,
            )
            for run in runs[-_MOST_RUNS:]
        ),
        notes=(f"and {left_out:,} older runs; --json has all",) if left_out > 0 else (),
    )
    return _laid_out(table, width=width, color=color, ascii_only=ascii_only)


def render_test_history(history: TestHistory, *, width: int, color: bool, ascii_only: bool) -> str:
    """Every run of one test, the oldest first."""
    table = Table(
        key="points",
        title=f"{history.nodeid}: {format_count(len(history.points), 'run')}",
        columns=(name("revision"), name("time"), number("peak"), number("samples")),
        rows=tuple(
            (
                short_revision(point.revision) or NONE,
                point.created or NONE,
                format_size(point.peak_bytes),
                ", ".join(map(format_size, point.samples_bytes)) or NONE,
            )
            for point in history.points
        ),
    )
    return _laid_out(table, width=width, color=color, ascii_only=ascii_only)


def render_history_json(path: str, runs: Sequence[HistoryRun], tests: Sequence[TestHistory]) -> bytes:
    """Runs and tests with every point."""
    return encode_json(
        {"path": path, "runs": [msgspec.to_builtins(run) for run in runs], "tests": list(tests)}
    )


def _laid_out(table: Table, *, width: int, color: bool, ascii_only: bool) -> str:
    from pytest_membudget.report.terminal import lay_out

    return lay_out(clean_table(table, ascii_only=ascii_only), width, Paint(color)) + "\n"


def render_trend_terminal(
    report: TrendReport, *, width: int = 80, color: bool = False, ascii_only: bool = False
) -> str:
    """The tests that got worse, the largest of the others, and one line that sums it up."""
    from pytest_membudget.report.terminal import lay_out

    paint = Paint(color)
    table = clean_table(_table(report, most_steady=_MOST_STEADY), ascii_only=ascii_only)
    shade = "red" if any(test.verdict in WORSE for test in report.tests) else "green"
    line = clean_text(headline(report), ascii_only=ascii_only)
    return f"{lay_out(table, width, paint)}\n\n{paint(wrap(line, width), shade)}\n"


def render_trend_markdown(report: TrendReport) -> str:
    """The same as GitHub's Markdown."""
    table = clean_table(_table(report, most_steady=_MOST_STEADY), ascii_only=False)
    return f"# Memory trend\n\n{plain(headline(report))}\n\n{markdown_table(table)}\n"


def render_trend_json(report: TrendReport) -> bytes:
    """Every test with its verdict and changes; the peaks themselves are in `membudget history show --json`."""
    document: dict[str, Any] = msgspec.to_builtins(report)
    for shown, test in zip(document["tests"], report.tests, strict=True):
        del shown["positions"], shown["peaks_bytes"]
        for row, change in zip(shown["changes"], test.changes, strict=True):
            row["change"] = change.change
    return encode_json(encodable(document))


def write_trend(report: TrendReport, path: str | os.PathLike[str]) -> None:
    """Writes the trends as a page, Markdown or JSON, by the ending of `path`; whole or not at all.

    Raises:
        OSError: the folder is missing, not writable or full.
    """
    ending = Path(path).suffix.lower()
    if ending == ".html":
        # jinja2 takes 50 ms to import, which only a page need pay.
        from pytest_membudget.report.trend_page import render_trend_page

        write_atomically(path, render_trend_page(report))
    else:
        write_atomically(
            path, render_trend_markdown(report) if ending == ".md" else render_trend_json(report)
        )


def headline(report: TrendReport) -> str:
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


def _table(report: TrendReport, *, most_steady: int) -> Table:
    worse = [test for test in report.tests if test.verdict in WORSE]
    others = sorted(
        (test for test in report.tests if test.verdict not in WORSE), key=lambda test: -test.level_bytes
    )
    left_out = len(others) - most_steady
    notes = [f"a change within {report.tolerance} is none"]
    if left_out > 0:
        notes.append(f"and {left_out:,} more that did not get worse")
    return Table(
        key="trend",
        title="Peaks over the revisions",
        columns=(
            name("test"),
            Column("trend"),
            number("change"),
            name("revision"),
            number("now"),
            number("at first"),
        ),
        rows=tuple(map(_row, [*worse, *others[:most_steady]])),
        notes=tuple(notes),
    )


def _row(test: TestTrend) -> Row:
    return (
        test.nodeid,
        test.verdict,
        NONE if test.change is None else signed_share(test.change),
        NONE if test.revision is None else short_revision(test.revision),
        format_size(test.level_bytes),
        format_size(test.anchor_bytes),
    )
