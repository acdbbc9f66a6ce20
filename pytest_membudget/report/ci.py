"""What a CI service shows of a report: a comment that can be found again, and a badge."""

from __future__ import annotations

from pytest_membudget.records.report import Report
from pytest_membudget.records.storage import encode_json
from pytest_membudget.report.github import render_step_summary
from pytest_membudget.report.wording import FAILING, is_failure
from pytest_membudget.units import format_count, format_size

#: The first line of each comment, invisible where it is shown: by it the next run finds and replaces it.
MARKER = "<!-- pytest-membudget -->"

_LARGEST_COMMENT = 60_000
"""GitHub refuses a comment of more than 65,536 letters; the trend follows this part."""


def render_comment(report: Report) -> str:
    """The summary of a step as a comment, cut at the end of a line where a service would refuse it."""
    text = f"{MARKER}\n{render_step_summary(report)}"
    if len(text) > _LARGEST_COMMENT:
        text = text[:_LARGEST_COMMENT].rpartition("\n")[0] + "\n\nThe rest is in the reports of this run.\n"
    return text


def render_badge(report: Report) -> bytes:
    """The format of shields.io's endpoint badge (https://shields.io/badges/endpoint-badge)."""
    failing = [test for test in report.tests if is_failure(test)]
    measured = [test.peak_bytes for test in report.tests if test.peak_bytes is not None]
    if failing:
        counts = (
            (name, sum(test.verdict == verdict for test in failing)) for verdict, name in FAILING.items()
        )
        message, color = ", ".join(f"{count:,} {name}" for name, count in counts if count), "red"
    elif measured:
        message, color = (
            f"{format_count(len(measured), 'test')}, {format_size(max(measured))} at most",
            "brightgreen",
        )
    else:
        message, color = "not measured", "lightgrey"
    return encode_json({"schemaVersion": 1, "label": "memory", "message": message, "color": color})
