"""The end of a session: everything that was measured is collected once, written, and shown.

Lives in the process that the user sees: pytest itself, or pytest-xdist's controller. Whatever tests have done to that
process (no descriptor left, a low limit of address space, torn files), pytest's own summary has to appear and so has
ours: what cannot be collected is one line.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pytest

from pytest_membudget.errors import text_of
from pytest_membudget.measurement.system.machine import environment
from pytest_membudget.plugin import emergency_report
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.report import terminal
from pytest_membudget.plugin.report.attach import attached, is_planned
from pytest_membudget.plugin.report.endurance import StartingConditions
from pytest_membudget.plugin.report.session_files import shared_folder, shared_folder_if_made
from pytest_membudget.records import shared_lines
from pytest_membudget.records.judgement import HeldByFixture
from pytest_membudget.records.monitor import MonitorReport
from pytest_membudget.records.report import BaselineCheck, Outcome, Report, TestRecord
from pytest_membudget.records.run import BatchSummary
from pytest_membudget.records.scale import ScaleTable
from pytest_membudget.records.storage import from_here
from pytest_membudget.stats.task_growth import rank_retained

if TYPE_CHECKING:
    from pytest_membudget.plugin.baseline_gate import Gate

LEAST_LEFT_BYTES = 1024 * 1024
"""Less than this is noise of the allocator, not worth a line in the table of what tests left behind."""

Record = TypeVar("Record", bound=msgspec.Struct)


class Reporting:
    """The hooks of the process that reports to the user."""

    def __init__(self, config: pytest.Config, settings: Settings, gate: Gate | None) -> None:
        self.config = config
        self.settings = settings
        self.gate = gate
        self.tally = Tally(measures_all=settings.measure_all)
        self.report = Report()
        self.notes: list[str] = []
        self._in_journal = 0
        self._start = StartingConditions()
        self._environment = environment()
        self._revision = ""
        if settings.history is not None or settings.report_paths:
            # Asking git takes some milliseconds, which a session that keeps nothing need not pay.
            from pytest_membudget.gate.revisions.git import current_revision

            self._revision = current_revision(config.rootpath)
        if settings.report_paths or settings.show_tables:
            terminal.load_renderers(settings.report_paths)

    def pytest_report_header(self) -> str | None:
        """Says beforehand why taking a baseline takes long."""
        return self.gate.announcement if self.gate is not None else None

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Counts each report in, from whichever process it came."""
        try:
            record = self.tally.add(report)
        except Exception as error:  # the session and its other records go on
            self.notes.append(f"the record of {report.nodeid} could not be read: {text_of(error)}")
            return
        if record is not None and record.peak_bytes is not None:
            self.config.hook.pytest_membudget_measured(config=self.config, record=record)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Writes what was measured, however the session ended."""
        if not self._start.is_same_process():
            return  # a test forked and its child ran on to here: the session is the parent's to report
        self._start.restore()
        folder: Path | None = None
        with self._noting("what the processes of the session share"):
            folder = shared_folder_if_made(self.config)
        if folder is not None:
            with self._noting("the tests whose process had to end"):
                for record in self._lines(emergency_report.killed(folder), "killed tests"):
                    self.tally.replace(record)
        if not self.tally:
            return
        self._collect(session, folder)
        if self.gate is not None and self.gate.lack is not None:
            self.notes.append(self.gate.lack)
        with self._failing(session, "baseline", self.settings.baseline):
            if self.gate is not None and self.settings.update_baseline:
                self.notes.append(self.gate.update(self.report))
        for path in self.settings.report_paths:
            with self._failing(session, "report", path):
                from pytest_membudget.report.writing import write_report

                write_report(self.report, path)
                self.notes.append(f"report: {from_here(path)}")
        if self.settings.history is not None:
            with self._failing(session, "history", self.settings.history):
                from pytest_membudget.plugin.report.history import keep_run

                self.notes.append(keep_run(self.report, self.settings.history))
        with self._failing(session, "GitHub's step summary", None):
            terminal.write_step_summary(self.report)

    def write_journal(self) -> None:
        """Brings the journal up to date, in case the next test ends this process."""
        folder = shared_folder(self.config)
        if not self._in_journal:
            emergency_report.open_journal(folder, self.settings.report_paths)
        records = self.tally.records
        emergency_report.add_to_journal(folder, records[self._in_journal :])
        self._in_journal = len(records)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Shows the tables where they were asked for, else one line."""
        if not self._start.is_same_process():
            return
        try:
            if self.tally:
                terminal.show(terminalreporter, self.report, self.settings, self.notes)
            elif self.settings.report_paths and not self.config.option.collectonly:
                kept = ", ".join(map(from_here, self.settings.report_paths))
                terminalreporter.write_line(f"membudget: no test was measured, so {kept} was left as it was")
        except Exception as error:  # pytest's own summary is still to come
            terminalreporter.write_line(f"membudget: the summary could not be shown: {text_of(error)}")

    def _collect(self, session: pytest.Session, folder: Path | None) -> None:
        """Makes the one record of the session that everything after this shows."""
        scales: tuple[ScaleTable, ...] = ()
        batches: tuple[BatchSummary, ...] = ()
        monitors: tuple[MonitorReport, ...] = ()
        fixtures: tuple[HeldByFixture, ...] = ()
        if folder is not None:
            with self._noting("the tables of scales"):
                from pytest_membudget.plugin import scales as rows

                tables, unreadable = rows.tables(folder)
                scales = tuple(self._lines(shared_lines.Lines(tables, unreadable), "scales"))
            with self._noting("the batches"):
                from pytest_membudget.plugin.fixtures import executor

                kept = self._lines(shared_lines.read_records(folder / executor.FILE, BatchSummary), "batches")
                batches = tuple({each.title: each for each in kept}.values())  # of a test run again, the last
            with self._noting("the monitors"):
                from pytest_membudget.plugin.fixtures import monitor

                seen = self._lines(
                    shared_lines.read_records(folder / monitor.FILE, MonitorReport), "monitors"
                )
                monitors = tuple({each.label: each for each in seen}.values())
            with self._noting("what fixtures hold"):
                from pytest_membudget.plugin.fixtures import held

                fixtures = _largest_of_each(
                    self._lines(shared_lines.read_records(folder / held.FILE, HeldByFixture), "fixtures")
                )
        report = Report(
            environment=self._environment,
            tests=self.tally.records,
            scales=scales,
            batches=batches,
            monitors=monitors,
            left_behind=rank_retained(_staying(self.tally.records, batches), least_bytes=LEAST_LEFT_BYTES),
            fixtures=fixtures,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            revision=self._revision,
        )
        self.report = report
        if self.gate is not None and not self.settings.update_baseline:
            check: BaselineCheck | None = None
            with self._failing(session, "comparison with the baseline", self.settings.baseline):
                check = self.gate.check(report)
            self.report = msgspec.structs.replace(report, baseline=check, caveats=self.gate.caveats)

    def _lines(self, lines: shared_lines.Lines[Record], title: str) -> list[Record]:
        """The records of a file of the session's; a note where some of its lines cannot be read."""
        if lines.unreadable:
            self.notes.append(
                f"{title}: {lines.unreadable} of {len(lines.records) + lines.unreadable} records could not be read, "
                "as a process was killed while it wrote or the disk was full; they are missing here"
            )
        return lines.records

    @contextlib.contextmanager
    def _noting(self, part: str) -> Iterator[None]:
        """Notes a part of the report that could not be collected."""
        try:
            yield
        except Exception as error:  # a part less is better than no report
            self.notes.append(f"{part} could not be collected: {text_of(error)}")

    @contextlib.contextmanager
    def _failing(self, session: pytest.Session, part: str, file: Path | str | None) -> Iterator[None]:
        """Notes what could not be done, and gives a session that passed a failing exit code for it."""
        try:
            yield
        except Exception as error:  # whatever it is, pytest's own summary is still to come
            why = (error.strerror if isinstance(error, OSError) else None) or text_of(error)
            shown = part if file is None else from_here(file)
            done = "written" if isinstance(error, OSError) else f"made ({part})"
            self.notes.append(f"{shown} could not be {done}: {why}")
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.INTERNAL_ERROR


def _largest_of_each(held: Iterable[HeldByFixture]) -> tuple[HeldByFixture, ...]:
    """Each fixture once, by its largest setup (of its parameters, modules or workers), the largest first."""
    largest: dict[tuple[str, str], HeldByFixture] = {}
    for each in sorted(held, key=lambda it: it.held_bytes, reverse=True):
        largest.setdefault((each.name, each.scope), each)
    return tuple(largest.values())


def _staying(tests: Iterable[TestRecord], batches: Iterable[BatchSummary]) -> list[TestRecord]:
    """The tests whose memory stays in the session.

    That of a fresh interpreter, or of workers that end with their fixture, is gone when the test is over. What a failing
    test keeps is held by its own traceback.
    """
    with_workers = {batch.title for batch in batches}
    return [
        test
        for test in tests
        if not test.isolated and test.nodeid not in with_workers and test.outcome not in {"failed", "error"}
    ]


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
