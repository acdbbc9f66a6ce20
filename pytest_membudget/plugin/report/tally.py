"""What the reports of a test say together: one record each, with the final outcome."""

from __future__ import annotations

from typing import Any

import msgspec

from pytest_membudget.plugin.report.attach import attached, is_planned
from pytest_membudget.records.report import Outcome, TestRecord

NOT_ENDED = "it did not end: the session was stopped while it ran, so nothing is known of its peak"
_CRASHED = "crashed: the process that ran it ended before the test did, so nothing is known of its peak"
_CRASH_PHASE = "???"
"""The phase that pytest-xdist gives to the one report of a test whose worker ended."""


class Tally:
    """The records of the session, in the order in which their tests began.

    `measures_all`: every test of the session is to be measured, so one of which a worker's end is all that is known too.
    """

    def __init__(self, *, measures_all: bool = False) -> None:
        self._measures_all = measures_all
        self._records: dict[str, TestRecord] = {}
        self._failed_in_part: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._records)

    @property
    def records(self) -> tuple[TestRecord, ...]:
        """All records so far."""
        return tuple(self._records.values())

    def replace(self, record: TestRecord) -> None:
        """Puts the record that a process left before it had to end in the place of what was known of its test."""
        self._records[record.nodeid] = record

    def add(self, report: Any) -> TestRecord | None:
        """Counts a report in; gives the record back when its test is over."""
        nodeid = report.nodeid
        if getattr(report, "context", None) is not None:
            # A sub-test: pytest may call the test that holds it passed all the same.
            self._failed_in_part.update({nodeid} if report.outcome == "failed" else ())
            return None
        if report.when == _CRASH_PHASE and (self._measures_all or nodeid in self._records):
            self._records[nodeid] = TestRecord(
                nodeid=nodeid, outcome="failed", verdict="crashed", file=report.location[0], message=_CRASHED
            )
            return self._records[nodeid]
        if not is_planned(report):
            return None
        outcome = outcome_of(report)
        if report.when == "setup":
            # A test that is run again starts from nothing. Its setup passed, but until its call has ended it has not.
            self._failed_in_part.discard(nodeid)
            ended = outcome != "passed"
            self._records[nodeid] = TestRecord(
                nodeid=nodeid, outcome=outcome if ended else "error", message="" if ended else NOT_ENDED
            )
        elif report.when == "call":
            record = attached(report) or TestRecord(nodeid=nodeid, outcome=outcome)
            outcome = "failed" if nodeid in self._failed_in_part else outcome
            same = record.outcome == outcome
            self._records[nodeid] = record if same else msgspec.structs.replace(record, outcome=outcome)
        elif outcome == "error":
            self._records[nodeid] = msgspec.structs.replace(self._records[nodeid], outcome=outcome)
        return self._records[nodeid] if report.when == "teardown" else None


def outcome_of(report: Any) -> Outcome:
    """What pytest would call it in its own summary."""
    expected = hasattr(report, "wasxfail")
    if report.outcome == "skipped":
        return "xfailed" if expected else "skipped"
    if report.outcome == "passed":
        return "xpassed" if expected and report.when == "call" else "passed"
    return "failed" if report.when == "call" else "error"
