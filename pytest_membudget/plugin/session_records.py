"""The records of a session: how they reach the process that reports, from whichever process a test ran in.

1. From another process a test's record travels as JSON text in an attribute of its report. So it reaches pytest-xdist's
   controller and the parent of an isolated interpreter whole with its test, and a worker that dies takes only the unfinished
   one with it. `Tally` counts them in. Of a test of this process it is given what was found; the record is made when it is asked for.
2. What else tests leave (batches, monitors, scales) are lines of JSON in files of a folder that all processes share.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from pytest_membudget.plugin import is_controller, is_fresh, is_worker
from pytest_membudget.plugin.judging import Judged, record_of
from pytest_membudget.plugin.plans import Plan
from pytest_membudget.records import json_lines
from pytest_membudget.records.report import Outcome, TestRecord
from pytest_membudget.records.storage import encode_line

BATCHES, MONITORS, FIXTURES = "batches.jsonl", "monitors.jsonl", "fixtures.jsonl"
SCALES = "scales"
"""Names in the session's folder: three files, and a folder with a file for each test."""

NOT_ENDED = "it did not end: the session was stopped while it ran, so nothing is known of its peak"
_CRASHED = "crashed: the process that ran it ended before the test did, so nothing is known of its peak"
_CRASH_PHASE = "???"
"""The phase that pytest-xdist gives to the one report of a test whose worker ended."""

_ATTRIBUTE = "membudget_record"
_MADE = pytest.StashKey[Path]()


def keep(config: pytest.Config, file_name: str, records: Sequence[msgspec.Struct]) -> None:
    """Adds `records` to those of the session in that file, where there is to be a report."""
    if records and config.pluginmanager.has_plugin("membudget-measuring"):
        json_lines.add_records(shared_folder(config) / file_name, records)


def shared_folder(config: pytest.Config) -> Path:
    """The folder; made where it is missing."""
    if _MADE not in config.stash:
        folder = _place(config)
        folder.mkdir(parents=True, exist_ok=True)
        config.stash[_MADE] = folder
    return config.stash[_MADE]


def shared_folder_if_made(config: pytest.Config) -> Path | None:
    """The folder, where any process of the session needed it."""
    return shared_folder(config) if _MADE in config.stash or is_controller(config) else None


def temporary_folders(config: pytest.Config) -> pytest.TempPathFactory:
    """The factory of pytest itself, which outside of fixtures has no public name.

    Raises:
        pytest.UsageError: it was switched off.
    """
    factory: pytest.TempPathFactory | None = getattr(config, "_tmp_path_factory", None)
    if factory is None:
        raise pytest.UsageError(
            "isolated tests, scales, synthetic files and the watchdog need pytest's temporary folders; "
            "drop -p no:tmpdir"
        )
    return factory


def _place(config: pytest.Config) -> Path:
    if is_fresh(config):
        from pytest_membudget.plugin.fresh.child_session import REQUEST

        return Path(REQUEST.shared)
    base = temporary_folders(config).getbasetemp()
    # pytest-xdist puts each worker's temporary folder into the controller's.
    return (base.parent if is_worker(config) else base) / "membudget"


def attach(report: Any, record: TestRecord | None) -> None:
    """Marks the report of a planned test; `record` is there after its call in another process than that which reports."""
    setattr(report, _ATTRIBUTE, "" if record is None else encode_line(record).decode())


def is_planned(report: Any) -> bool:
    """Whether the report is of a test that is to be measured."""
    return hasattr(report, _ATTRIBUTE)


def attached(report: Any) -> TestRecord | None:
    """The record that came with the report."""
    text = getattr(report, _ATTRIBUTE, "")
    return msgspec.json.decode(text, type=TestRecord) if text else None


class _Found(NamedTuple):
    """A test of this process whose record is not made yet."""

    plan: Plan
    judged: Judged
    outcome: Outcome = "passed"

    def record(self) -> TestRecord:
        return record_of(self.plan, self.judged, self.outcome)


class Tally:
    """The records of the session, in the order in which their tests began.

    `measures_all`: every test of the session is to be measured, so one of which a worker's end is all that is known too.
    """

    def __init__(self, *, measures_all: bool = False) -> None:
        self._measures_all = measures_all
        self._tests: dict[str, TestRecord | _Found] = {}
        self._expected: dict[str, _Found] = {}
        self._failed_in_part: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._tests)

    @property
    def records(self) -> tuple[TestRecord, ...]:
        """All records so far."""
        return tuple(map(self.record, self._tests))

    def record(self, nodeid: str) -> TestRecord:
        """The record of one test, made where it has not been asked for before."""
        found = self._tests[nodeid]
        if isinstance(found, _Found):
            found = self._tests[nodeid] = found.record()
        return found

    def replace(self, record: TestRecord) -> None:
        """Puts the record that a process left before it had to end in the place of what was known of its test."""
        self._tests[record.nodeid] = record

    def expect(self, nodeid: str, plan: Plan, judged: Judged) -> None:
        """What was found of a test of this process, whose report comes next."""
        self._expected[nodeid] = _Found(plan, judged)

    def add(self, report: Any) -> bool:
        """Counts a report in; whether a measured test is over by it."""
        nodeid = report.nodeid
        if getattr(report, "context", None) is not None:
            # A sub-test: pytest may call the test that holds it passed all the same.
            self._failed_in_part.update({nodeid} if report.outcome == "failed" else ())
            return False
        if report.when == _CRASH_PHASE and (self._measures_all or nodeid in self._tests):
            self._tests[nodeid] = TestRecord(
                nodeid=nodeid, outcome="failed", verdict="crashed", file=report.location[0], message=_CRASHED
            )
            return True
        if not is_planned(report):
            return False
        outcome = outcome_of(report)
        if report.when == "setup":
            # A test that is run again starts from nothing. Its setup passed, but until its call has ended it has not.
            self._failed_in_part.discard(nodeid)
            ended = outcome != "passed"
            self._tests[nodeid] = TestRecord(
                nodeid=nodeid, outcome=outcome if ended else "error", message="" if ended else NOT_ENDED
            )
        elif report.when == "call":
            self._tests[nodeid] = self._found(report, "failed" if nodeid in self._failed_in_part else outcome)
        elif outcome == "error":
            self._tests[nodeid] = msgspec.structs.replace(self.record(nodeid), outcome=outcome)
        return bool(report.when == "teardown")

    def _found(self, report: Any, outcome: Outcome) -> TestRecord | _Found:
        record, expected = attached(report), self._expected.pop(report.nodeid, None)
        if record is not None:
            return msgspec.structs.replace(record, outcome=outcome)
        return (
            TestRecord(nodeid=report.nodeid, outcome=outcome)
            if expected is None
            else expected._replace(outcome=outcome)
        )


def outcome_of(report: Any) -> Outcome:
    """What pytest would call it in its own summary."""
    expected = hasattr(report, "wasxfail")
    if report.outcome == "skipped":
        return "xfailed" if expected else "skipped"
    if report.outcome == "passed":
        return "xpassed" if expected and report.when == "call" else "passed"
    return "failed" if report.when == "call" else "error"
