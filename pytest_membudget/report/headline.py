"""The one line that stands for a whole report."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_membudget.records.batch import BatchSummary
from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.report.wording import FAILING
from pytest_membudget.units import format_count, format_size


def render_headline(report: Report) -> str:
    """One line: how many tests were measured, how they were judged, and the largest."""
    measured = [test for test in report.tests if test.peak_bytes is not None]
    if not report.tests and report.batches:
        return _headline_of_batches(report.batches)
    counts = [
        f"{len(found)} {words}{_expected(found)}"
        for verdict, words in FAILING.items()
        if (found := [test for test in report.tests if _has(test, verdict)])
    ]
    doubtful = sum(test.verdict in {"over_upper", "inconclusive"} for test in report.tests)
    parts = [f"{format_count(len(measured), 'test')} measured", *counts]
    if not counts:
        judged = sum(test.verdict not in {"none", "over_upper", "inconclusive"} for test in report.tests)
        parts.append(f"{judged:,} checked, none failed" if judged else "none checked")
    if doubtful:
        parts.append(f"{doubtful:,} in doubt")
    if measured:
        largest = max(measured, key=lambda test: test.peak_bytes or 0)
        parts.append(f"largest peak {format_size(largest.peak_bytes or 0)}")
    return ", ".join(parts)


def _has(test: TestRecord, verdict: str) -> bool:
    """Whether that is the test's verdict; a regression counts beside a graver one, which hides it there."""
    is_regressed = test.comparison is not None and test.comparison.finding == "regressed"
    return test.verdict == verdict or (verdict == "regressed" and is_regressed)


def _headline_of_batches(batches: Sequence[BatchSummary]) -> str:
    """What a report of a script's batches, without tests, has to say first."""
    inputs, failed = sum(batch.inputs for batch in batches), sum(batch.failed for batch in batches)
    peak_bytes = max(batch.peak_bytes for batch in batches)
    return (
        f"{format_count(len(batches), 'batch')}, {format_count(inputs, 'input')}, "
        f"{f'{failed:,}' if failed else 'none'} failed, largest peak {format_size(peak_bytes)}"
    )


def _expected(found: Sequence[TestRecord]) -> str:
    """How many of the tests that went wrong were marked to do so."""
    expected = sum(test.outcome == "xfailed" for test in found)
    if not expected:
        return ""
    return " (expected)" if expected == len(found) else f" ({expected} expected)"
