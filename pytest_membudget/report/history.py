"""A history as pages: its runs, one of its tests, and the trends of all; and as JSON.

The trends are one self-contained page of HTML too: first what got worse this month, with its picture. A picture is a small SVG:
each run a dot, the level a line, each change a mark. It shows the range in which the test moved, not zero, since a rise of 3% has
to be seen; its labels say so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

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
from pytest_membudget.report.charts import Point
from pytest_membudget.report.html import Tile, render_page
from pytest_membudget.report.page import Page
from pytest_membudget.report.text import NONE, Column, Table, make_table, name, number, signed_share
from pytest_membudget.report.writing import write_in_format
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


WIDTH, HEIGHT = 760, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 26, 22
_SPARK_WIDTH, _SPARK_HEIGHT = 160, 28
_MOST_SPARK_POINTS = 80
#: A letter of 12 px text.
_LETTER = 6.6
_SHADES = {"jump": "bad", "creep": "bad", "drop": "good", "environment": "soft"}


class Card(NamedTuple):
    """A test whose level changed, with its chart."""

    nodeid: str
    verdict: str
    text: str
    picture: str
    changes: tuple[str, ...]


class Section(NamedTuple):
    """Cards under a heading."""

    key: str
    title: str
    cards: tuple[Card, ...]


def write_trend(report: TrendReport, path: str | os.PathLike[str]) -> None:
    """Writes the trends as a page, Markdown or JSON, by the ending of `path`; whole or not at all.

    Raises:
        OSError: the folder is missing, not writable or full.
    """
    write_in_format(
        path,
        html=lambda: render_trend_page(report),
        page=lambda: page_of_trend(report),
        as_json=lambda: render_trend_json(report),
    )


def render_trend_page(report: TrendReport) -> str:
    """The page. Text from outside passes through autoescaping; there is no script, and no network."""
    quiet = [test for test in report.tests if not test.changes]
    return render_page(
        "trend.html",
        title="Memory trend",
        headline=trend_headline(report),
        tiles=_tiles(report),
        sections=_sections(report),
        rows=[_row(test, report) for test in sorted(quiet, key=lambda test: -test.level_bytes)],
        tolerance=report.tolerance,
        month=_month(report),
    )


def _new(report: TrendReport) -> list[TestTrend]:
    """The tests that got worse this month."""
    return [
        test
        for test in report.tests
        if test.verdict in WORSE and _latest_position(test) >= report.month_index
    ]


def _sections(report: TrendReport) -> list[Section]:
    worse = [test for test in report.tests if test.verdict in WORSE]
    new = _new(report)
    changed = [test for test in report.tests if test.verdict not in WORSE and test.changes]
    older = [test for test in worse if test not in new]
    sections = [
        Section("new", f"Got worse {_month(report)}", _cards(new, report)),
        Section("older", "Got worse before", _cards(older, report)),
        Section("changed", "Changed, and no worse now", _cards(changed, report)),
    ]
    return [section for section in sections if section.cards or section.key == "new"]


def _month(report: TrendReport) -> str:
    if not report.revisions:
        return "this month"
    first = report.revisions[report.month_index]
    return f"since {first.created[:10] or first.label}"


def _latest_position(test: TestTrend) -> int:
    return max(
        test.positions[change.index if change.until_index is None else change.until_index]
        for change in test.changes
        if change.in_force
    )


def _cards(tests: Sequence[TestTrend], report: TrendReport) -> tuple[Card, ...]:
    return tuple(
        Card(
            nodeid=test.nodeid,
            verdict=test.verdict,
            text=describe(test),
            picture=draw_trend(test, report),
            changes=tuple(map(describe_change, test.changes)) if len(test.changes) > 1 else (),
        )
        for test in tests
    )


def _tiles(report: TrendReport) -> list[Tile]:
    tones = {"jumped": "bad", "crept": "bad", "steady": "good", "unknown": "doubt"}
    counts = {verdict: sum(test.verdict == verdict for test in report.tests) for verdict in tones}
    new = len(_new(report))
    first = Tile(f"{new:,}", f"got worse {_month(report)}", "bad" if new else "good")
    return [first] + [
        Tile(f"{count:,}", verdict, tones[verdict] if count else "") for verdict, count in counts.items()
    ]


def _row(test: TestTrend, report: TrendReport) -> dict[str, str]:
    return {
        "nodeid": test.nodeid,
        "verdict": test.verdict,
        "level": format_size(test.level_bytes),
        "noise": NONE if test.verdict == "unknown" else f"±{signed_share(test.noise)[1:]}",
        "revisions": f"{test.revisions:,}",
        "spark": draw_spark(test, len(report.revisions)),
    }


class _Frame:
    """Where revisions and bytes lie in the picture."""

    def __init__(self, test: TestTrend, revisions: int) -> None:
        levels = [size for change in test.changes for size in (change.before_bytes, change.after_bytes)]
        sizes = [*test.peaks_bytes, *levels, test.level_bytes]
        low, high = min(sizes), max(sizes)
        margin = max((high - low) * 0.06, high * 0.005, 1.0)
        self.low_bytes, self.high_bytes = max(0.0, low - margin), high + margin
        self.last = max(1, revisions - 1)

    def x(self, position: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * position / self.last

    def y(self, size_bytes: float) -> float:
        share = (size_bytes - self.low_bytes) / (self.high_bytes - self.low_bytes)
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share


def draw_trend(test: TestTrend, report: TrendReport) -> str:
    """The chart of one test, 760 by 170 units and as wide as its place."""
    frame = _Frame(test, len(report.revisions))
    points = zip(test.positions, test.peaks_bytes, strict=True)
    dots = "".join(f"M{frame.x(position):.1f},{frame.y(peak):.1f}h0" for position, peak in points)
    level = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in _level_line(test))
    anchor = frame.y(test.anchor_bytes)
    parts = [
        f'<svg class="trend" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(_spoken(test), quote=True)}">',
        _axes(frame, report),
        f'<line class="anchor" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{anchor:.1f}" y2="{anchor:.1f}"/>',
        *_marks(test, frame),
        f'<path class="dots" d="{dots}"/>',
        f'<polyline class="level" points="{level}"/>',
        "</svg>",
    ]
    return "".join(parts)


def draw_spark(test: TestTrend, revisions: int) -> str:
    """The same without text, for a row of a table."""
    frame = _Frame(test, revisions)
    across, down = _SPARK_WIDTH / WIDTH, _SPARK_HEIGHT / HEIGHT
    points = _thinned(list(zip(test.positions, test.peaks_bytes, strict=True)))
    line = " ".join(f"{frame.x(x) * across:.0f},{frame.y(y) * down:.1f}" for x, y in points)
    return (
        f'<svg class="spark" viewBox="0 0 {_SPARK_WIDTH} {_SPARK_HEIGHT}" aria-hidden="true">'
        f'<polyline points="{line}"/></svg>'
    )


def _thinned(points: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    if len(points) <= _MOST_SPARK_POINTS:
        return points
    stride = len(points) / _MOST_SPARK_POINTS
    return [points[int(number * stride)] for number in range(_MOST_SPARK_POINTS)]


def _level_line(test: TestTrend) -> list[Point]:
    """Corners of the level: flat between changes, a slope where it creeps."""
    corners: list[Point] = [(test.positions[0], test.anchor_bytes)]
    for change in test.changes:
        here = test.positions[change.index]
        if change.until_index is not None:
            before = test.positions[change.index - 1]
            corners += [
                (before, change.before_bytes),
                (test.positions[change.until_index], change.after_bytes),
            ]
        else:
            corners += [(here - 0.5, change.before_bytes), (here - 0.5, change.after_bytes)]
    return [*corners, (test.positions[-1], test.level_bytes)]


def _axes(frame: _Frame, report: TrendReport) -> str:
    bottom = HEIGHT - _BOTTOM
    first, last = report.revisions[0], report.revisions[-1]
    texts = [
        (_LEFT - 8, bottom + 4, "end", format_size(frame.low_bytes)),
        (_LEFT - 8, _TOP + 4, "end", format_size(frame.high_bytes)),
        (_LEFT, HEIGHT - 6, "start", _when(first.revision, first.created)),
        (WIDTH - _RIGHT, HEIGHT - 6, "end", _when(last.revision, last.created)),
    ]
    rules = "".join(
        f'<line class="rule" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>' for y in (_TOP, bottom)
    )
    labels = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>' for x, y, anchor, text in texts
    )
    return rules + labels


def _when(revision: str, created: str) -> str:
    return " · ".join(filter(None, [created[:10], short_revision(revision)]))


def _marks(test: TestTrend, frame: _Frame) -> list[str]:
    """A line at each change with its size above, as far as there is room."""
    marks = []
    free_from = 0.0
    for change in test.changes:
        x = frame.x(test.positions[change.index] - (0.5 if change.until_index is None else 1))
        marks.append(
            f'<line class="mark {_SHADES[change.kind]}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
        )
        label = _label(change)
        half = _LETTER * len(label) / 2
        middle = min(max(x, _LEFT + half), WIDTH - _RIGHT - half)
        if middle - half >= free_from:
            marks.append(
                f'<text class="{_SHADES[change.kind]}" x="{middle:.1f}" y="{_TOP - 10}" text-anchor="middle">{escape(label)}</text>'
            )
            free_from = middle + half + _LETTER
    return marks


def _label(change: TrendChange) -> str:
    what = "environment" if change.kind == "environment" else short_revision(change.revision)
    return f"{signed_share(change.change)} {what}"


def _spoken(test: TestTrend) -> str:
    marks = ", ".join(
        f"{change.kind} of {signed_share(change.change)} at {change.revision}" for change in test.changes
    )
    return (
        f"peaks over {test.revisions} revisions, at first {format_size(test.anchor_bytes)}, "
        f"now {format_size(test.level_bytes)}" + (f": {marks}" if marks else "")
    )
