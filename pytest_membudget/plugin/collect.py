"""The end of a session: everything that was measured is collected once, written, and shown.

Lives in the process that the user sees: pytest itself, or pytest-xdist's controller. Whatever tests have done to that
process (no descriptor left, a low limit of address space, torn files), pytest's own summary has to appear and so has
ours: what cannot be collected is one line. `FixtureMemory`, in each process that runs tests, measures what fixtures hold that
live longer than one test: a test's own figures begin after its fixtures, so such memory is in none of them.
"""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pytest

from pytest_membudget.errors import MembudgetError, text_of
from pytest_membudget.measurement.process import high_water
from pytest_membudget.measurement.process.reclaim import trim_if_worthwhile
from pytest_membudget.measurement.system.machine import environment
from pytest_membudget.originals import contextlib, restored
from pytest_membudget.plugin import emergency_report, session_records, terminal_summary
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.session_records import Tally, shared_folder, shared_folder_if_made
from pytest_membudget.records import json_lines
from pytest_membudget.records.judgement import HeldByFixture, RetainedByTest
from pytest_membudget.records.monitor import MonitorReport
from pytest_membudget.records.report import BaselineCheck, Environment, Report, TestRecord
from pytest_membudget.records.run import BatchSummary
from pytest_membudget.records.scale import ScaleTable
from pytest_membudget.records.storage import check_writable, from_here
from pytest_membudget.units import format_count

if TYPE_CHECKING:
    from pytest_membudget.plugin.baseline_gate import Gate

LEAST_LEFT_BYTES = 1024 * 1024
"""Less than this is noise of the allocator, not worth a line in the table of what tests left behind."""

Record = TypeVar("Record", bound=msgspec.Struct)

_DESCRIPTORS = 4
"""Enough to replace a file, with a module being imported meanwhile."""
_LEFT_FREE = 16
"""Where there are fewer, none is held in advance: measuring and importing need them now."""
_LIMITS = ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE")

LEAST_HELD_BYTES = 1 << 20
"""Less is noise of the allocator, as for what tests leave behind."""


class Reporting:
    """The hooks of the process that reports to the user."""

    def __init__(self, config: pytest.Config, settings: Settings, gate: Gate | None, tally: Tally) -> None:
        self.config = config
        self.settings = settings
        self.gate = gate
        self.tally = tally
        self.report = Report()
        self.notes: list[str] = []
        self._in_journal: set[str] = set()
        self._start = StartingConditions()
        is_shown = settings.report_paths or settings.show_tables or settings.history or gate is not None
        self._environment = Environment()
        if is_shown or os.environ.get("GITHUB_STEP_SUMMARY"):
            # Takes some milliseconds, which sessions that end with one line need not pay.
            self._environment = environment()
        self._revision = ""
        if settings.history is not None or settings.report_paths:
            # Asking git takes some milliseconds, which a session that keeps nothing need not pay.
            from pytest_membudget.gate.revisions.git import current_revision

            self._revision = current_revision(config.rootpath)
        if settings.report_paths or settings.show_tables:
            terminal_summary.load_renderers(settings.report_paths)

    def pytest_report_header(self) -> str | None:
        """Says beforehand why taking a baseline takes long."""
        return self.gate.announcement if self.gate is not None else None

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Counts each report in, from whichever process it came."""
        try:
            is_over = self.tally.add(report)
        except Exception as error:  # the session and its other records go on
            self.notes.append(f"the record of {report.nodeid} could not be read: {text_of(error)}")
            return
        hook = self.config.hook.pytest_membudget_measured
        if is_over and hook.get_hookimpls():
            record = self.tally.record(report.nodeid)
            if record.peak_bytes is not None:
                hook(config=self.config, record=record)

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
                self.notes.append(_add_to_history(self.report, self.settings.history))
        with self._failing(session, "GitHub's step summary", None):
            terminal_summary.write_step_summary(self.report)

    def write_journal(self) -> None:
        """Brings the journal up to date, in case the next test ends this process."""
        folder = shared_folder(self.config)
        if not self._in_journal:
            emergency_report.open_journal(folder, self.settings.report_paths)
        # The test that is about to be called has a record since its setup: it is not over.
        finished = [
            record
            for record in self.tally.records
            if record.nodeid not in self._in_journal and record.message != session_records.NOT_ENDED
        ]
        emergency_report.add_to_journal(folder, finished)
        self._in_journal.update(record.nodeid for record in finished)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Shows the tables where they were asked for, else one line."""
        if not self._start.is_same_process():
            return
        try:
            if self.tally:
                terminal_summary.show(terminalreporter, self.report, self.settings, self.notes)
            elif self.settings.report_paths and not self.config.option.collectonly:
                kept = ", ".join(map(from_here, self.settings.report_paths))
                terminalreporter.write_line(f"membudget: no test was measured, so {kept} was left as it was")
        except Exception as error:  # pytest's own summary is still to come
            terminalreporter.write_line(f"membudget: the summary could not be shown: {text_of(error)}")

    def _collect(self, session: pytest.Session, folder: Path | None) -> None:
        """Makes the one record of the session that everything after this shows."""
        batches = self._kept(folder, session_records.BATCHES, BatchSummary, "batches")
        batches = list({each.title: each for each in batches}.values())  # of a test run again, the last
        monitors = self._kept(folder, session_records.MONITORS, MonitorReport, "monitors")
        fixtures = self._kept(folder, session_records.FIXTURES, HeldByFixture, "fixtures")
        report = Report(
            environment=self._environment,
            tests=self.tally.records,
            scales=self._scales(folder),
            batches=tuple(batches),
            monitors=tuple({each.label: each for each in monitors}.values()),
            left_behind=self._left_behind(batches),
            fixtures=_largest_of_each(fixtures),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            revision=self._revision,
        )
        self.report = report
        if self.gate is not None and not self.settings.update_baseline:
            check: BaselineCheck | None = None
            with self._failing(session, "comparison with the baseline", self.settings.baseline):
                check = self.gate.check(report)
            self.report = msgspec.structs.replace(report, baseline=check, caveats=self.gate.caveats)

    def _left_behind(self, batches: list[BatchSummary]) -> tuple[RetainedByTest, ...]:
        staying = _staying(self.tally.records, batches)
        if all((test.retained_bytes or 0) <= LEAST_LEFT_BYTES for test in staying):
            return ()
        from pytest_membudget.stats.task_growth import rank_retained

        return rank_retained(staying, least_bytes=LEAST_LEFT_BYTES)

    def _kept(self, folder: Path | None, file_name: str, kind: type[Record], title: str) -> list[Record]:
        """What the tests of all processes have left in that file of the session's folder."""
        with self._noting(f"the {title}"):
            if folder is not None:
                return self._lines(json_lines.read_records(folder / file_name, kind), title)
        return []

    def _scales(self, folder: Path | None) -> tuple[ScaleTable, ...]:
        with self._noting("the tables of scales"):
            if folder is not None and (folder / session_records.SCALES).exists():
                from pytest_membudget.plugin import scales

                tables, unreadable = scales.tables(folder)
                return tuple(self._lines(json_lines.Lines(tables, unreadable), "scales"))
        return ()

    def _lines(self, lines: json_lines.Lines[Record], title: str) -> list[Record]:
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


class StartingConditions:
    """Remembers, at the start of a session, what its end is to have again.

    A few descriptors are held open in advance, because a suite that leaks descriptors leaves none to write a report with.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._soft_limits = {name: _limits(name)[0] for name in _LIMITS} if _has_limits() else {}
        self._held: list[tuple[int, os.stat_result]] = []
        most = self._soft_limits.get("RLIMIT_NOFILE", -1)  # below 0: without limit
        with contextlib.suppress(OSError):
            for _ in range(_DESCRIPTORS):
                descriptor = os.open(os.devnull, os.O_RDONLY)
                if 0 <= most <= descriptor + _LEFT_FREE:
                    os.close(descriptor)
                    break
                self._held.append((descriptor, os.fstat(descriptor)))

    def is_same_process(self) -> bool:
        """Whether this is the process that began the session, and not a child that a test forked."""
        return os.getpid() == self._pid

    def restore(self) -> None:
        """Gives back the descriptors that were held, and soft limits that tests have lowered."""
        for descriptor, opened in self._held:
            with contextlib.suppress(OSError):
                # Code under test may have closed it, and the number may be another file's by now.
                if os.path.samestat(os.fstat(descriptor), opened):
                    os.close(descriptor)
        self._held = []
        for name, soft in self._soft_limits.items():
            _raise_soft_limit(name, soft)


def _has_limits() -> bool:
    return sys.platform != "win32"


def _limits(name: str) -> tuple[int, int]:
    import resource

    return resource.getrlimit(getattr(resource, name))


def _raise_soft_limit(name: str, soft: int) -> None:
    import resource

    now, hard = _limits(name)
    infinity = resource.RLIM_INFINITY
    wanted = hard if soft == infinity or (hard != infinity and soft > hard) else soft
    if now != infinity and (wanted == infinity or wanted > now):
        with contextlib.suppress(ValueError, OSError):  # forbidden: what can be done under the limit is done
            resource.setrlimit(getattr(resource, name), (wanted, hard))


def check_history(path: Path) -> None:
    """Fails now where the run could not be kept after an hour of tests.

    Raises:
        pytest.UsageError: the file is not a history, or cannot be written.
    """
    from pytest_membudget.gate.history import open_history  # with SQLite

    try:
        if path.exists():
            with open_history(path, create=True):
                pass
        check_writable(path, such_as="memory.sqlite")
    except (MembudgetError, OSError) as error:
        raise pytest.UsageError(f"--membudget-history: {error}") from None


def _add_to_history(report: Report, path: Path) -> str:
    from pytest_membudget.gate.history import open_history

    with open_history(path, create=True) as history:
        history.add(report)
        runs = len(history.runs())
    return f"history: {from_here(path)} ({format_count(runs, 'run')})"


class FixtureMemory:
    """The hooks of a process that runs tests: resident memory before and after each such fixture's setup."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._nodeid = ""
        self._inner_bytes = 0  # of fixtures that the one under way has asked for by `getfixturevalue`
        self._held: list[HeldByFixture] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """The first test that needs a fixture is the one that it is set up for."""
        self._nodeid = item.nodeid

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        """Measures a fixture of more than one test."""
        if fixturedef.scope == "function":
            return (yield)
        outer_bytes, self._inner_bytes = self._inner_bytes, 0
        before_bytes = _resident_bytes()
        try:
            return (yield)
        finally:
            added_bytes = _resident_bytes() - before_bytes
            held_bytes = added_bytes - self._inner_bytes
            self._inner_bytes = outer_bytes + added_bytes
            if held_bytes >= LEAST_HELD_BYTES:
                name, scope = fixturedef.argname, fixturedef.scope
                self._held.append(HeldByFixture(name, scope, held_bytes, self._nodeid))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Leaves what was measured for the process that reports."""
        # A report without this table is better than a session that fails for it.
        with contextlib.suppress(OSError, pytest.UsageError), restored():
            if self._held:
                session_records.keep(self._config, session_records.FIXTURES, self._held)


def _resident_bytes() -> int:
    trim_if_worthwhile()
    return high_water.resident_bytes()
