"""The trends of a history as one self-contained page: first what got worse this month, with its picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pytest_membudget.records.history import TestTrend, TrendReport
from pytest_membudget.report.html import breakable, read_page_file
from pytest_membudget.report.trend import WORSE, describe, describe_change, headline
from pytest_membudget.report.trend_pictures import draw_spark, draw_trend
from pytest_membudget.report.wording import NONE, signed_share
from pytest_membudget.units import format_size


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


def render_trend_page(report: TrendReport) -> str:
    """The page. Text from outside passes through autoescaping; there is no script, and no network."""
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["breakable"] = breakable
    # Only pictures that escape their own text are marked safe.
    environment.filters["picture"] = Markup
    template = environment.from_string(read_page_file("trend.html"))
    quiet = [test for test in report.tests if not test.changes]
    page = template.render(
        style=read_page_file("page.css") + read_page_file("trend.css"),
        headline=headline(report),
        tiles=_tiles(report),
        sections=_sections(report),
        rows=[_row(test, report) for test in sorted(quiet, key=lambda test: -test.level_bytes)],
        tolerance=report.tolerance,
        month=_month(report),
    )
    return page.encode("utf-8", "backslashreplace").decode()


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


def _tiles(report: TrendReport) -> list[dict[str, Any]]:
    tones = {"jumped": "bad", "crept": "bad", "steady": "good", "unknown": "doubt"}
    counts = {verdict: sum(test.verdict == verdict for test in report.tests) for verdict in tones}
    new = len(_new(report))
    first = {"label": f"got worse {_month(report)}", "amount": f"{new:,}", "tone": "bad" if new else "good"}
    return [first] + [
        {"label": verdict, "amount": f"{count:,}", "tone": tones[verdict] if count else ""}
        for verdict, count in counts.items()
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
