"""How a test's record travels: as JSON text in an attribute of its report.

Reports reach pytest-xdist's controller, the parent of an isolated interpreter and this very process on the same
path, so that a record arrives whole with its test, and a worker that dies takes only the unfinished one with it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pytest_membudget.records.report import TestRecord
from pytest_membudget.records.storage import encode_line

_ATTRIBUTE = "membudget_record"


class _Latest:
    """The record that was attached last, and its text: where it was attached it need not be decoded."""

    text = ""
    record: TestRecord | None = None


def attach(report: Any, record: TestRecord | None) -> None:
    """Marks the report of a planned test; `record` is there after its call."""
    text = "" if record is None else encode_line(record).decode()
    _Latest.text, _Latest.record = text, record
    setattr(report, _ATTRIBUTE, text)


def is_planned(report: Any) -> bool:
    """Whether the report is of a test that is to be measured."""
    return hasattr(report, _ATTRIBUTE)


def attached(report: Any) -> TestRecord | None:
    """The record that came with the report."""
    text = getattr(report, _ATTRIBUTE, "")
    if text is _Latest.text:
        return _Latest.record
    return msgspec.json.decode(text, type=TestRecord) if text else None
