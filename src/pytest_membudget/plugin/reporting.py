"""Gathers the records of the session, writes the reports at its end and shows what was found.

Lives in the process that the user sees: pytest itself, or pytest-xdist's controller.
"""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from pytest_membudget.measurement import environment
from pytest_membudget.plugin import summary
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.tally import Tally
from pytest_membudget.records.report import Report
from pytest_membudget.report import write_report


class Reporting:
    """The hooks of the process that tells the user."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.tally = Tally()
        self.report = Report()
        self.notes: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Takes each report in, from whichever process it came."""
        record = self.tally.add(report)
        if record is not None and record.peak_bytes is not None:
            self.config.hook.pytest_membudget_measured(config=self.config, record=record)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Writes what was measured, however the session ended."""
        if not self.tally:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.report = Report(environment=environment(), tests=self.tally.records, created=now)
        self._write_reports(session)
        summary.write_step_summary(self.report)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Shows the tables where they were asked for, else one line."""
        if self.tally:
            summary.show(terminalreporter, self.report, self.settings, self.notes)

    def _write_reports(self, session: pytest.Session) -> None:
        for path in self.settings.report_paths:
            try:
                write_report(self.report, path)
            except OSError as error:
                self.notes.append(f"the report {path} could not be written: {error}")
                if session.exitstatus == pytest.ExitCode.OK:
                    session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
            else:
                self.notes.append(f"report: {path}")
