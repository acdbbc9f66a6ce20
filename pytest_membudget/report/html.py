"""The report as one self-contained HTML page: no network, readable on a phone, in the dark and without scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.records.run import Breakdown
from pytest_membudget.records.storage import encodable
from pytest_membudget.report import job_tables
from pytest_membudget.report.page import (
    MOST_CAVEATS,
    TEST_COLUMNS,
    baseline_table,
    caveat_counts,
    comparison_table,
    environment_rows,
    failing_first,
    fixtures_table,
    left_behind_table,
    render_headline,
)
from pytest_membudget.report.pictures import (
    changes,
    draw_calibration,
    draw_scale_curve,
    draw_scale_timelines,
    timelines_of,
)
from pytest_membudget.report.text import FAILING, is_failure, source_text
from pytest_membudget.units import format_count, format_size

MOST_CARDS = 200
FIRST_ROWS = 50

_FOLDER = "page_files"
_PARTS = (
    ("coordinator", "coordinator_bytes"),
    ("workers' base", "workers_base_bytes"),
    ("tasks", "task_bytes"),
    ("waiting results", "waiting_results_bytes"),
    ("other", "other_bytes"),
)
_BREAKABLE = re.compile(r"[^_/:\[.-]*[_/:\[.-]*", re.DOTALL)


def render_html(report: Report) -> str:
    """The page of `report`.

    Text from outside passes through autoescaping, and through JSON in which `<`, `>`, `&` and line separators
    are escapes; the page's policy lets no script run but its own, named by its hash.
    """
    script = _read_page_file("page.js")
    timelines = timelines_of(report.tests)
    return render_page(
        "page.html",
        title="Memory report",
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_script_json(table_data(report.tests)),
        cards=cards(report.tests),
        first_rows=first_rows(report.tests),
        test_count=len(report.tests),
        timelines=timelines,
        drawn={timeline.number for timeline in timelines},
        left_behind=left_behind_table(report.left_behind),
        fixtures=fixtures_table(report.fixtures),
        comparison=comparison_table(report.tests),
        changes=changes(report.tests),
        baseline=baseline_table(report.baseline) if report.baseline else None,
        scales=[_scale_section(table) for table in report.scales],
        in_flight=[job_tables.in_flight_table(table) for table in report.in_flight],
        batches=job_tables.batch_table(report.batches),
        hosts=job_tables.host_table(report.batches),
        monitors=job_tables.monitor_table(report.monitors),
        calibrations=job_tables.calibration_table(report.calibrations),
        calibration_pictures=[
            (fit.name, picture) for fit in report.calibrations if (picture := draw_calibration(fit))
        ],
        obtained=obtained(report.tests),
        test_caveats=caveat_counts(report.tests),
        most_caveats=MOST_CAVEATS,
        caveats=report.caveats,
        headline=render_headline(report),
        environment=environment_rows(report),
        tiles=tiles(report),
    )


def render_page(template: str, *, title: str, headline: str, tiles: Sequence[Tile], **values: Any) -> str:
    """A page of ours by the name of its template; texts among `values` pass through autoescaping."""
    from jinja2 import Environment, FunctionLoader
    from markupsafe import Markup

    loader = FunctionLoader(_read_page_file)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["breakable"] = breakable
    # Only pictures that escape their own text are marked safe.
    environment.filters["picture"] = Markup
    page = environment.get_template(template).render(
        style=_read_page_file("page.css"), title=title, headline=headline, tiles=tiles, **values
    )
    # Names that are not UTF-8 hold lone surrogates, which no file can carry.
    return page.encode("utf-8", "backslashreplace").decode()


def _scale_section(table: Any) -> dict[str, Any]:
    found = [(row.scale.name.upper(), row.breakdown) for row in table.rows if row.breakdown is not None]
    return {
        "table": job_tables.scale_table(table),
        "curve": draw_scale_curve(table),
        "timelines": draw_scale_timelines(table),
        "breakdown": job_tables.breakdown_table(table),
        "bars": breakdown_bars(found),
    }


def breakable(text: str) -> str:
    """A node id as markup that may be broken after its separators rather than within a word."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in _BREAKABLE.findall(text))


def _script_json(value: Any) -> str:
    """JSON that can stand inside a script element whatever texts it holds."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _read_page_file(name: str) -> str:
    """A template, style or script that ships with the package."""
    return resources.files(__package__).joinpath(_FOLDER, name).read_text(encoding="utf-8")


class Tile(NamedTuple):
    """One number of the summary, its colour, and the filter of the table of tests that shows what it counts."""

    amount: str
    label: str
    tone: str
    filter: str = ""


class Bar(NamedTuple):
    """A bar cut into parts: (name, share of the longest bar in percent, text)."""

    label: str
    total: str
    parts: tuple[tuple[str, str, str], ...]


class Card(NamedTuple):
    """A failed test with everything that explains it."""

    number: int
    nodeid: str
    place: str
    verdict: str
    first: str
    rest: str
    used: str
    budget_at: str
    how: str
    shares: tuple[tuple[str, str, str], ...]
    sites: tuple[tuple[str, str, str], ...]
    caveats: tuple[str, ...]


def tiles(report: Report) -> list[Tile]:
    """Tests measured and the count of each verdict that occurs, failures first."""
    measured = sum(test.peak_bytes is not None for test in report.tests)
    found = [Tile(f"{measured:,}", f"{'test' if measured == 1 else 'tests'} measured", "plain")]
    counts: dict[str, int] = {}
    for test in report.tests:
        counts[test.verdict] = counts.get(test.verdict, 0) + 1
    tones = {**dict.fromkeys(FAILING, "bad"), "over_upper": "doubt", "inconclusive": "doubt"}
    labels = {**FAILING, "over_upper": "over by the upper bound", "within": "within limits"}
    found += [
        Tile(f"{counts[verdict]:,}", labels.get(verdict, verdict), tones.get(verdict, "good"), verdict)
        for verdict in (*FAILING, "over_upper", "inconclusive", "within", "clean")
        if counts.get(verdict)
    ]
    improved = sum(
        test.comparison is not None and test.comparison.finding == "improved" for test in report.tests
    )
    if improved:
        found.append(Tile(f"{improved:,}", "improved", "good", "improved"))
    return found


def table_data(tests: Sequence[TestRecord]) -> dict[str, Any]:
    """Every test as cells of text and the numbers they sort by; repeated texts stand once and are pointed at."""
    caveats: dict[str, int] = {}
    rows = [
        [
            index,
            encodable(test.nodeid),
            test.verdict,
            _cells(test),
            _keys(test),
            encodable(test.message),
            [caveats.setdefault(caveat, len(caveats)) for caveat in test.caveats],
            test.outcome,
            "" if test.comparison is None else test.comparison.finding,
        ]
        for index, test in enumerate(tests)
    ]
    return {"rows": rows, "caveats": encodable(list(caveats))}


def first_rows(tests: Sequence[TestRecord]) -> list[tuple[str, str, list[str]]]:
    """The rows shown before, or without, JavaScript: failing first, then the largest."""
    return [(test.nodeid, test.verdict, _cells(test)) for test in failing_first(tests)[:FIRST_ROWS]]


def _cells(test: TestRecord) -> list[str]:
    return [column.cell(test) for column in TEST_COLUMNS[1:]]


def cards(tests: Sequence[TestRecord]) -> list[Card]:
    """The failed tests, at most `MOST_CARDS`; the table has the rest."""
    failing = [(index, test) for index, test in enumerate(tests) if is_failure(test)]
    return [_card(index, test) for index, test in failing[:MOST_CARDS]]


def breakdown_bars(breakdowns: Sequence[tuple[str, Breakdown]]) -> list[Bar]:
    """One bar a breakdown, all on one scale."""
    longest = max((parts.peak_bytes for _, parts in breakdowns), default=0) or 1
    return [
        Bar(
            label,
            format_size(parts.peak_bytes),
            tuple(
                (title, f"{100 * getattr(parts, field) / longest:.2f}", format_size(getattr(parts, field)))
                for title, field in _PARTS
            ),
        )
        for label, parts in breakdowns
    ]


def obtained(tests: Sequence[TestRecord]) -> list[tuple[str, str, str]]:
    """How the peaks came about: source, how many tests, and what that means."""
    meanings = {
        "kernel": "The kernel's own high-water mark, exact or proven: however short the peak.",
        "sampled": "The process tree, sampled: the peak is at least the proven figure and at most the upper one.",
    }
    found: dict[str, int] = {}
    for test in tests:
        if test.source is not None:
            found[test.source] = found.get(test.source, 0) + 1
    return [(source, format_count(count, "test"), meanings[source]) for source, count in found.items()]


def _keys(test: TestRecord) -> list[float]:
    """What the numeric columns sort by; -1 stands for a figure that was not taken."""
    used = -1.0
    if test.budget_bytes and test.peak_bytes is not None:
        used = round(test.peak_bytes / test.budget_bytes, 4)
    numbers = (
        test.peak_bytes,
        test.budget_bytes,
        used,
        test.total_peak_bytes,
        test.retained_bytes,
        test.duration_s,
        test.processes,
    )
    return [-1 if number is None else number for number in numbers]


def _card(index: int, test: TestRecord) -> Card:
    first, _, rest = (test.message or FAILING[test.verdict]).partition("\n")
    span_bytes = max(test.peak_bytes or 0, test.budget_bytes or 0) or 1
    largest = max((share.peak_bytes for share in test.shares), default=0) or 1
    return Card(
        number=index,
        nodeid=test.nodeid,
        place=f"{test.file}:{test.line}" if test.file and test.line else test.file,
        verdict=test.verdict,
        first=first,
        rest=rest,
        used="" if test.budget_bytes is None else f"{100 * (test.peak_bytes or 0) / span_bytes:.2f}",
        budget_at="" if test.budget_bytes is None else f"{100 * test.budget_bytes / span_bytes:.2f}",
        how=source_text(test),
        shares=tuple(
            (
                f"{share.name} (pid {share.pid})",
                format_size(share.peak_bytes),
                f"{100 * share.peak_bytes / largest:.2f}",
            )
            for share in sorted(test.shares, key=lambda share: -share.peak_bytes)[:8]
        ),
        sites=tuple(
            (
                format_size(site.heap_bytes),
                site.stack[0] if site.stack else "unknown",
                " ← ".join(site.stack[1:6]),
            )
            for site in test.allocations[:8]
        ),
        caveats=tuple(caveat for caveat in test.caveats if caveat not in test.message),
    )
