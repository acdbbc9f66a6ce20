"""The report as JSON: see `schema` for its shape."""

from __future__ import annotations

from pytest_membudget.records.report import Report
from pytest_membudget.records.report_file import encode_report


def render_json(report: Report) -> bytes:
    """The report in its versioned form, one test a line."""
    return encode_report(report)
