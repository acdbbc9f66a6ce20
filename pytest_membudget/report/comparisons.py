"""Two revisions or two reports side by side, for a terminal, as Markdown and JSON; revisions also as a page."""

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
    StackGrowth,
    Summary,
    TestChange,
)
from pytest_membudget.records.storage import encodable, encode_json, write_atomically
from pytest_membudget.report.history import short_revision
from pytest_membudget.report.html import breakable, read_page_file
from pytest_membudget.report.markdown import code, markdown_table, plain
from pytest_membudget.report.page import clean_table
from pytest_membudget.report.pictures import draw_flame_graph
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
    size_or_none,
    without_commands,
    wrap,
)
from pytest_membudget.units import format_count, format_duration, format_share, format_size

_MOST_STACKS = 5
_MOST_EQUIVALENT = 10
_TONES = {"regressed": "bad", "improved": "good", "inconclusive": "doubt", "equivalent": "good"}

_MOST_NAMES = 20


def render_revisions_terminal(
    comparison: RevisionComparison, *, width: int = 80, color: bool = False, ascii_only: bool = False
) -> str:
    """The table, the stacks that grew in each regressed test, and one line that sums it up."""
    from pytest_membudget.report.terminal import lay_out

    paint = Paint(color)
    blocks = [lay_out(clean_table(_table(comparison), ascii_only=ascii_only), width, paint)]
    for test in comparison.tests:
        if test.stacks:
            lines = [
                f"{test.nodeid}: what grew at its peak",
                *map(describe_stack, test.stacks[:_MOST_STACKS]),
            ]
            cleaned = [clean_text(line, ascii_only=ascii_only) for line in lines]
            blocks.append(
                "\n".join([paint(cleaned[0], "bold"), *(wrap(f"  {line}", width) for line in cleaned[1:])])
            )
    shade = "red" if comparison.count("regressed") else "green"
    blocks.append(paint(wrap(clean_text(headline(comparison), ascii_only=ascii_only), width), shade))
    return "\n\n".join(blocks) + "\n"


def render_revisions_markdown(comparison: RevisionComparison) -> str:
    """The same as GitHub's Markdown."""
    blocks = ["# Memory of two revisions", plain(headline(comparison))]
    blocks.append(markdown_table(clean_table(_table(comparison), ascii_only=False)))
    for test in comparison.tests:
        if test.stacks:
            lines = [f"- {code(describe_stack(stack))}" for stack in test.stacks[:_MOST_STACKS]]
            blocks.append("\n".join([f"## What grew in {code(test.nodeid)}", "", *lines]))
    return "\n\n".join(blocks) + "\n"


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
    ending = Path(path).suffix.lower()
    if ending == ".html":
        write_atomically(path, render_revisions_page(comparison))
        for number_of, graph in enumerate(flame_graphs(comparison), start=1):
            write_atomically(Path(path).with_suffix(f".flame-{number_of}.svg"), graph)
    elif ending == ".md":
        write_atomically(path, render_revisions_markdown(comparison))
    else:
        write_atomically(path, render_revisions_json(comparison))


def headline(comparison: RevisionComparison) -> str:
    """What was found, from how many runs, and how often such a finding is wrong."""
    counts = ", ".join(
        f"{comparison.count(verdict):,} {verdict}"
        for verdict in ("regressed", "improved", "inconclusive", "equivalent")
    )
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


def _table(comparison: RevisionComparison) -> Table:
    called = [test for test in comparison.tests if test.verdict != "equivalent"]
    equivalent = sorted(
        (test for test in comparison.tests if test.verdict == "equivalent"),
        key=lambda test: -(test.head_bytes or 0),
    )
    base, head = short_revision(comparison.base), short_revision(comparison.head)
    named = f"base {base} ({comparison.base_name}), head {head} ({comparison.head_name})"
    notes = [f"{named}; equivalent is within {comparison.tolerance}"]
    left_out = len(equivalent) - _MOST_EQUIVALENT
    if left_out > 0:
        notes.append(f"and {left_out:,} more that are equivalent")
    notes += [
        f"{format_count(len(names), 'test')} measured at the {side} alone: {_some(names)}"
        for side, names in (("base", comparison.only_base), ("head", comparison.only_head))
        if names
    ]
    notes += [f"{test.nodeid}: {caveat}" for test in called for caveat in test.caveats]
    notes += comparison.caveats
    return Table(
        key="revisions",
        title="Peaks of two revisions, median of fresh runs",
        columns=(
            name("test"),
            number("base"),
            number("head"),
            number("change"),
            number("runs"),
            Column("verdict"),
        ),
        rows=tuple(map(_row, [*called, *equivalent[:_MOST_EQUIVALENT]])),
        notes=tuple(notes),
    )


def _row(test: RevisionTest) -> Row:
    return (
        test.nodeid,
        size_or_none(test.base_bytes),
        size_or_none(test.head_bytes),
        NONE if test.change is None else signed_share(test.change),
        f"{test.runs:,}",
        test.verdict,
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def render_revisions_page(comparison: RevisionComparison) -> str:
    """The page. Text from outside passes through autoescaping; there is no script, and no network."""
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["breakable"] = breakable
    # Only pictures that escape their own text are marked safe.
    environment.filters["picture"] = Markup
    template = environment.from_string(read_page_file("revisions.html"))
    page = template.render(
        style=read_page_file("page.css") + read_page_file("trend.css"),
        comparison=comparison,
        headline=headline(comparison),
        error_rate=error_rate(comparison),
        tiles=[
            {"label": verdict, "amount": f"{comparison.count(verdict):,}", "tone": _TONES[verdict]}  # type: ignore[arg-type]
            for verdict in _TONES
        ],
        cards=[_card(test) for test in comparison.tests if test.verdict == "regressed"],
        rows=[_page_row(test) for test in comparison.tests],
        tones=_TONES,
    )
    return page.encode("utf-8", "backslashreplace").decode()


def flame_graphs(comparison: RevisionComparison) -> list[str]:
    """The graph of each regressed test that has one, each a file of its own."""
    return [
        draw_flame_graph(test.flame, title=_title(test), standalone=True)
        for test in comparison.tests
        if test.flame is not None
    ]


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


def _page_row(test: RevisionTest) -> dict[str, str]:
    return {
        "nodeid": test.nodeid,
        "verdict": test.verdict,
        "base": size_or_none(test.base_bytes),
        "head": size_or_none(test.head_bytes),
        "change": NONE if test.change is None else signed_share(test.change),
        "runs": f"{test.runs:,}",
    }


def render_comparison_terminal(
    comparison: ReportComparison, *, width: int = 80, color: bool = False, ascii_only: bool = False
) -> str:
    """The table, its footnotes, and one line that sums it up."""
    from pytest_membudget.report.terminal import lay_out

    paint = Paint(color)
    table = clean_table(_table_of_reports(comparison), ascii_only=ascii_only)
    shade = "red" if comparison.count("regressed") else "green"
    text = f"{lay_out(table, width, paint)}\n\n{paint(wrap(_headline(comparison), width), shade)}\n"
    return without_commands(text)


def render_comparison_markdown(comparison: ReportComparison) -> str:
    """The same as GitHub's Markdown."""
    table = clean_table(_table_of_reports(comparison), ascii_only=False)
    return f"# Memory comparison\n\n{plain(_headline(comparison))}\n\n{markdown_table(table)}\n"


def render_comparison_json(comparison: ReportComparison) -> bytes:
    """All figures, with the relative change of each test."""
    document = msgspec.to_builtins(comparison)
    for row, change in zip(document["rows"], comparison.rows, strict=True):
        row["change"] = change.change
    return encode_json(encodable(document))


def _headline(comparison: ReportComparison) -> str:
    parts = [
        f"{len(comparison.rows):,} compared",
        f"{comparison.count('regressed'):,} regressed",
        f"{comparison.count('improved'):,} improved",
    ]
    if comparison.geomean_ratio is not None:
        parts.append(f"geomean {signed_share(comparison.geomean_ratio - 1)}")
    return ", ".join(parts)


def _table_of_reports(comparison: ReportComparison) -> Table:
    columns = (name("test"), number("base"), number("new"), number("delta"), number("p"), Column("finding"))
    rows = [_row_of_reports(row) for row in comparison.rows]
    if comparison.geomean_ratio is not None:
        rows.append(("geomean", "", "", signed_share(comparison.geomean_ratio - 1), "", ""))
    notes = [
        f"tolerance {comparison.tolerance}; base {comparison.base_path}, new {comparison.new_path}",
        *(f"another environment: {difference}" for difference in comparison.foreign),
        *(f"renamed: {row.renamed_from} is now {row.nodeid}" for row in comparison.rows if row.renamed_from),
        *_named("only in new", comparison.new),
        *_named("only in base", comparison.gone),
        *_named("skipped in new", comparison.skipped),
        *comparison.caveats,
    ]
    return Table("comparison", "Peaks, median and 95% interval", columns, tuple(rows), tuple(notes))


def _row_of_reports(row: TestChange) -> Row:
    delta = "~" if row.finding == "same" else NONE if row.change is None else signed_share(row.change)
    finding = "" if row.finding == "same" else row.finding
    p = NONE if row.p is None else f"{row.p:.3f}"
    return (
        row.nodeid,
        _spread(row.base),
        _spread(row.new),
        delta,
        f"{p} n={row.base.samples}+{row.new.samples}",
        finding,
    )


def _spread(summary: Summary) -> str:
    spread = summary.spread
    return format_size(summary.median_bytes) + ("" if spread is None else f" ±{100 * spread:.0f}%")


def _named(title: str, names: Sequence[str]) -> list[str]:
    more = [f"{title}: and {len(names) - _MOST_NAMES:,} more"] if len(names) > _MOST_NAMES else []
    return [f"{title}: {text}" for text in names[:_MOST_NAMES]] + more
