"""Two revisions as one self-contained page, with a differential flame graph of each regressed test."""

from __future__ import annotations

from typing import Any

from pytest_membudget.records.revisions import RevisionComparison, RevisionTest
from pytest_membudget.report.flame_graph import draw_flame_graph
from pytest_membudget.report.html import breakable, read_page_file
from pytest_membudget.report.revisions import describe_stack, error_rate, headline
from pytest_membudget.report.wording import NONE, signed_share, size_or_none
from pytest_membudget.units import format_size

_TONES = {"regressed": "bad", "improved": "good", "inconclusive": "doubt", "equivalent": "good"}


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
        rows=[_row(test) for test in comparison.tests],
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


def _row(test: RevisionTest) -> dict[str, str]:
    return {
        "nodeid": test.nodeid,
        "verdict": test.verdict,
        "base": size_or_none(test.base_bytes),
        "head": size_or_none(test.head_bytes),
        "change": NONE if test.change is None else signed_share(test.change),
        "runs": f"{test.runs:,}",
    }
