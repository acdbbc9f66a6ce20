"""A history as tables: its runs, or one of its tests."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pytest_membudget.records.history import HistoryRun, TestHistory
from pytest_membudget.records.storage import encode_json
from pytest_membudget.report.plain_text import Paint, clean_table
from pytest_membudget.report.tables import Table, name, number
from pytest_membudget.report.wording import NONE
from pytest_membudget.units import format_count, format_size

_MOST_RUNS = 20
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
