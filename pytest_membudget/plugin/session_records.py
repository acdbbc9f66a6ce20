"""The records of a session: how they reach the process that reports, from whichever process a test ran in.

1. A test's record travels as JSON text in an attribute of its report. Reports reach pytest-xdist's controller, the parent of
   an isolated interpreter and this very process on the same path, so that a record arrives whole with its test, and a worker
   that dies takes only the unfinished one with it. `Tally` counts them in.
2. What else tests leave (batches, monitors, scales) are lines of JSON in files of a folder that all processes share.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_membudget.plugin import is_controller, is_fresh, is_worker
from pytest_membudget.records import shared_lines
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
        shared_lines.add_records(shared_folder(config) / file_name, records)


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
