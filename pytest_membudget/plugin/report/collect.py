"""Gathers the records of the session, writes the reports at its end and shows what was found.

Lives in the process that the user sees: pytest itself, or pytest-xdist's controller.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pytest_membudget.measurement.system.fingerprint import environment
from pytest_membudget.plugin import emergency_report as last_words
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.report import terminal as summary
from pytest_membudget.plugin.shared import shared_folder, shared_folder_if_made
from pytest_membudget.plugin.tally import Tally
from pytest_membudget.records.batch import BatchSummary
from pytest_membudget.records.monitor import MonitorReport
from pytest_membudget.records.places import from_here
from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.records.scale import ScaleTable
from pytest_membudget.stats.task_growth import rank_retained

if TYPE_CHECKING:
    from pytest_membudget.plugin.baseline_gate import Gate

LEAST_LEFT_BYTES = 1024 * 1024
"""Less than this is noise of the allocator, not worth a line in the table of what tests left behind."""


class Reporting:
    """The hooks of the process that tells the user."""

    def __init__(self, config: pytest.Config, settings: Settings, gate: Gate | None) -> None:
        self.config = config
        self.settings = settings
        self.gate = gate
        self.tally = Tally()
        self.report = Report()
        self.notes: list[str] = []
        self._in_journal = 0

    def pytest_report_header(self) -> str | None:
        """Says beforehand why taking a baseline takes long."""
        return self.gate.announcement if self.gate is not None else None

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Takes each report in, from whichever process it came."""
        record = self.tally.add(report)
        if record is not None and record.peak_bytes is not None:
            self.config.hook.pytest_membudget_measured(config=self.config, record=record)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Writes what was measured, however the session ended."""
        folder = shared_folder_if_made(self.config)
        for record in last_words.killed(folder) if folder is not None else ():
            self.tally.replace(record)
        if not self.tally:
            return
        self.report = self._gather()
        with _failing_the_session(session, self.notes, self.settings.baseline):
            self._write_baseline()
        for path in self.settings.report_paths:
            from pytest_membudget.report.writing import write_report

            with _failing_the_session(session, self.notes, path):
                write_report(self.report, path)
                self.notes.append(f"report: {from_here(path)}")
        with _failing_the_session(session, self.notes, "GitHub's step summary"):
            summary.write_step_summary(self.report)

    def write_journal(self) -> None:
        """Brings the journal up to date, in case the next test ends this process."""
        folder = shared_folder(self.config)
        if not self._in_journal:
            last_words.open_journal(folder, self.settings.report_paths)
        records = self.tally.records
        last_words.note(folder, records[self._in_journal :])
        self._in_journal = len(records)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Shows the tables where they were asked for, else one line."""
        if self.tally:
            summary.show(terminalreporter, self.report, self.settings, self.notes)
        elif self.settings.report_paths and not self.config.option.collectonly:
            kept = ", ".join(map(from_here, self.settings.report_paths))
            terminalreporter.write_line(f"membudget: no test was measured, so {kept} was left as it was")

    def _gather(self) -> Report:
        batches = self._batches()
        report = Report(
            environment=environment(),
            tests=self.tally.records,
            scales=self._scale_tables(),
            batches=batches,
            monitors=self._monitors(),
            left_behind=rank_retained(_staying(self.tally.records, batches), least_bytes=LEAST_LEFT_BYTES),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        if self.gate is None or self.settings.update_baseline:
            return report
        check = self.gate.check(report)
        return msgspec.structs.replace(report, baseline=check, caveats=self.gate.caveats)

    def _scale_tables(self) -> tuple[ScaleTable, ...]:
        folder = shared_folder_if_made(self.config)
        if folder is None:
            return ()
        from pytest_membudget.plugin.scales.rows import tables

        return tables(folder)

    def _batches(self) -> tuple[BatchSummary, ...]:
        folder = shared_folder_if_made(self.config)
        if folder is None:
            return ()
        from pytest_membudget.plugin.fixtures.executor import kept

        return kept(folder)

    def _monitors(self) -> tuple[MonitorReport, ...]:
        folder = shared_folder_if_made(self.config)
        if folder is None:
            return ()
        from pytest_membudget.plugin.fixtures.monitor import kept

        return kept(folder)

    def _write_baseline(self) -> None:
        if self.gate is not None and self.settings.update_baseline:
            self.notes.append(self.gate.update(self.report))


def _staying(tests: Iterable[TestRecord], batches: Iterable[BatchSummary]) -> list[TestRecord]:
    """The tests whose memory stays in the session.

    That of a fresh interpreter, or of workers that end with their fixture, is gone when the test is over.
    """
    with_workers = {batch.title for batch in batches}
    return [test for test in tests if not test.isolated and test.nodeid not in with_workers]


@contextlib.contextmanager
def _failing_the_session(
    session: pytest.Session, notes: list[str], file: Path | str | None
) -> Iterator[None]:
    """Notes a `file` that could not be written, and gives a session that passed a failing exit code for it."""
    try:
        yield
    except OSError as error:
        shown = from_here(file) if file is not None else "a file"
        notes.append(f"{shown} could not be written: {error.strerror or error}")
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
