"""Two revisions or two reports side by side, as a page for a terminal or Markdown, and as JSON; revisions also in HTML."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pytest_membudget.records.comparison import (
    ReportComparison,
    RevisionComparison,
    RevisionTest,
    RevisionVerdict,
    StackGrowth,
    Summary,
    TestChange,
)
from pytest_membudget.records.storage import encodable, encode_json, write_atomically
from pytest_membudget.report.history import short_revision
from pytest_membudget.report.html import Tile, render_page
from pytest_membudget.report.page import Listing, Page
from pytest_membudget.report.pictures import draw_flame_graph
from pytest_membudget.report.text import (
    NONE,
    Column,
    Table,
    make_table,
    name,
    number,
    signed_share,
    size_or_none,
)
from pytest_membudget.report.writing import write_in_format
from pytest_membudget.units import format_count, format_duration, format_share, format_size

_MOST_STACKS = 5
_MOST_EQUIVALENT = 10
_TONES: dict[RevisionVerdict, str] = {
    "regressed": "bad",
    "improved": "good",
    "inconclusive": "doubt",
    "equivalent": "good",
}
_MOST_NAMES = 20


def page_of_revisions(comparison: RevisionComparison) -> Page:
    """The table, the stacks that grew in each regressed test, and one line that sums it up."""
    listings = [
        Listing(
            "What grew at the peak of", test.nodeid, tuple(map(describe_stack, test.stacks[:_MOST_STACKS]))
        )
        for test in comparison.tests
        if test.stacks
    ]
    return Page(
        title="Memory of two revisions",
        headline=_headline_of_revisions(comparison),
        is_bad=comparison.count("regressed") > 0,
        tables=(_table_of_revisions(comparison, most_equivalent=_MOST_EQUIVALENT),),
        listings=tuple(listings),
    )


def render_revisions_json(comparison: RevisionComparison) -> bytes:
    """All figures, with the change of each test and the growth of each stack."""
    document: dict[str, Any] = msgspec.to_builtins(comparison)
    for row, test in zip(document["tests"], comparison.tests, strict=True):
        row["change"] = test.change
        for shown, stack in zip(row["stacks"], test.stacks, strict=True):
            shown["grew_bytes"] = stack.grew_bytes
    return encode_json(encodable(document))


def write_revisions(comparison: RevisionComparison, path: str | os.PathLike[str]) -> None:
    """Writes it as a page, Markdown or JSON, by the ending of `path`; whole or not at all.

    Beside a page each regressed test's flame graph lies as a file of its own.

    Raises:
        OSError: the folder is missing, not writable or full.
    """
    ending = write_in_format(
        path,
        html=lambda: _render_html(comparison),
        page=lambda: page_of_revisions(comparison),
        as_json=lambda: render_revisions_json(comparison),
    )
    if ending == ".html":
        flames = [(test.flame, _title(test)) for test in comparison.tests if test.flame is not None]
        for index, (flame, title) in enumerate(flames, start=1):
            graph = draw_flame_graph(flame, title=title, standalone=True)
            write_atomically(Path(path).with_suffix(f".flame-{index}.svg"), graph)


def _headline_of_revisions(comparison: RevisionComparison) -> str:
    """What was found, from how many runs, and how often such a finding is wrong."""
    counts = ", ".join(f"{comparison.count(verdict):,} {verdict}" for verdict in _TONES)
    return (
        f"{short_revision(comparison.base)} → {short_revision(comparison.head)}: {counts}; "
        f"{format_count(comparison.sessions, 'run')} in {format_duration(comparison.duration_s)}; {error_rate(comparison)}"
    )


def error_rate(comparison: RevisionComparison) -> str:
    """The error rate of the suite with its formula."""
    rate = format_share(comparison.error_rate)
    if not comparison.suspected:
        return f"error rate of the suite at most {rate}"
    each = format_share(comparison.error_rate / (2 * comparison.suspected))
    tests = format_count(comparison.suspected, "test")
    return f"error rate of the suite at most {rate} = {tests} run again × 2 directions × {each} (Bonferroni)"


def describe_stack(stack: StackGrowth) -> str:
    """One stack in a line: how much it grew, where, and through what."""
    grew = f"+{format_size(stack.grew_bytes)}" if stack.grew_bytes >= 0 else format_size(stack.grew_bytes)
    where = f"{stack.function} ({stack.file}:{stack.line})" if stack.file else stack.function
    through = f", in {stack.inner[0]}" if stack.inner else ""
    process = f", child process {stack.process}" if stack.process else ""
    kind = " [native]" if stack.kind == "native" else ""
    callers = "".join(f" < {frame}" for frame in stack.stack[1:3])
    return f"{grew:>10}  {where}{callers}{through}{kind}{process}"


_REVISION_COLUMNS: tuple[Column[RevisionTest], ...] = (
    name("test", lambda test: test.nodeid),
    number("base", lambda test: size_or_none(test.base_bytes)),
    number("head", lambda test: size_or_none(test.head_bytes)),
    number("change", lambda test: NONE if test.change is None else signed_share(test.change)),
    number("runs", lambda test: f"{test.runs:,}"),
    Column("verdict", lambda test: test.verdict),
)


def _table_of_revisions(comparison: RevisionComparison, *, most_equivalent: int | None = None) -> Table:
    called = [test for test in comparison.tests if test.verdict != "equivalent"]
    equivalent = sorted(
        (test for test in comparison.tests if test.verdict == "equivalent"),
        key=lambda test: -(test.head_bytes or 0),
    )
    shown = equivalent[:most_equivalent]
    base, head = short_revision(comparison.base), short_revision(comparison.head)
    named = f"base {base} ({comparison.base_name}), head {head} ({comparison.head_name})"
    notes = [f"{named}; equivalent is within {comparison.tolerance}"]
    if len(shown) < len(equivalent):
        notes.append(f"and {len(equivalent) - len(shown):,} more that are equivalent")
    notes += [
        f"{format_count(len(names), 'test')} measured at the {side} alone: {_some(names)}"
        for side, names in (("base", comparison.only_base), ("head", comparison.only_head))
        if names
    ]
    notes += [f"{test.nodeid}: {caveat}" for test in called for caveat in test.caveats]
    notes += comparison.caveats
    title = "Peaks of two revisions, median of fresh runs"
    return make_table("revisions", title, _REVISION_COLUMNS, [*called, *shown], notes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _render_html(comparison: RevisionComparison) -> str:
    counts = {verdict: comparison.count(verdict) for verdict in _TONES}
    return render_page(
        "revisions.html",
        title="Memory of two revisions",
        headline=_headline_of_revisions(comparison),
        tiles=[
            Tile(f"{count:,}", verdict, _TONES[verdict] if count else "") for verdict, count in counts.items()
        ],
        cards=[_card(test) for test in comparison.tests if test.verdict == "regressed"],
        table=_table_of_revisions(comparison),
        base=comparison.base,
        head=comparison.head,
        error_rate=error_rate(comparison),
    )


def _card(test: RevisionTest) -> dict[str, Any]:
    return {
        "nodeid": test.nodeid,
        "text": f"{size_or_none(test.base_bytes)} → {size_or_none(test.head_bytes)}"
        + ("" if test.change is None else f", {signed_share(test.change)}"),
        "allowed": size_or_none(test.allowed_bytes),
        "base": ", ".join(map(format_size, test.base_samples_bytes)),
        "head": ", ".join(map(format_size, test.head_samples_bytes)),
        "stacks": [describe_stack(stack) for stack in test.stacks],
        "picture": "" if test.flame is None else draw_flame_graph(test.flame, title=_title(test)),
        "caveats": test.caveats,
    }


def _title(test: RevisionTest) -> str:
    return f"{test.nodeid}: heap at the peak by call stack; red gained, blue lost"


def page_of_reports(comparison: ReportComparison) -> Page:
    """The table, its footnotes, and one line that sums it up."""
    counts = [f"{len(comparison.rows):,} compared"]
    counts += [f"{comparison.count(finding):,} {finding}" for finding in ("regressed", "improved")]
    if comparison.geomean_ratio is not None:
        counts.append(f"geomean {signed_share(comparison.geomean_ratio - 1)}")
    return Page(
        title="Memory comparison",
        headline=", ".join(counts),
        is_bad=comparison.count("regressed") > 0,
        tables=(_table_of_reports(comparison),),
    )


def render_comparison_json(comparison: ReportComparison) -> bytes:
    """All figures, with the relative change of each test."""
    document = msgspec.to_builtins(comparison)
    for row, change in zip(document["rows"], comparison.rows, strict=True):
        row["change"] = change.change
    return encode_json(encodable(document))


def _delta(row: TestChange) -> str:
    if row.finding == "same":
        return "~"
    return NONE if row.change is None else signed_share(row.change)


def _spread(summary: Summary) -> str:
    spread = summary.spread
    return format_size(summary.median_bytes) + ("" if spread is None else f" ±{100 * spread:.0f}%")


_REPORT_COLUMNS: tuple[Column[TestChange], ...] = (
    name("test", lambda row: row.nodeid),
    number("base", lambda row: _spread(row.base)),
    number("new", lambda row: _spread(row.new)),
    number("delta", _delta),
    number(
        "p",
        lambda row: f"{NONE if row.p is None else f'{row.p:.3f}'} n={row.base.samples}+{row.new.samples}",
    ),
    Column("finding", lambda row: "" if row.finding == "same" else row.finding),
)


def _table_of_reports(comparison: ReportComparison) -> Table:
    notes = [
        f"tolerance {comparison.tolerance}; base {comparison.base_path}, new {comparison.new_path}",
        *(f"another environment: {difference}" for difference in comparison.foreign),
        *(f"renamed: {row.renamed_from} is now {row.nodeid}" for row in comparison.rows if row.renamed_from),
        *_named("only in new", comparison.new),
        *_named("only in base", comparison.gone),
        *_named("skipped in new", comparison.skipped),
        *comparison.caveats,
    ]
    table = make_table(
        "comparison", "Peaks, median and 95% interval", _REPORT_COLUMNS, comparison.rows, notes
    )
    if comparison.geomean_ratio is None:
        return table
    mean = ("geomean", "", "", signed_share(comparison.geomean_ratio - 1), "", "")
    return table._replace(rows=(*table.rows, mean))


def _named(title: str, names: Sequence[str]) -> list[str]:
    more = [f"{title}: and {len(names) - _MOST_NAMES:,} more"] if len(names) > _MOST_NAMES else []
    return [f"{title}: {text}" for text in names[:_MOST_NAMES]] + more
