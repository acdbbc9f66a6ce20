"""The regression gate: each test against the baseline, run again in fresh processes before it is called."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pytest_membudget.errors import MembudgetError
from pytest_membudget.gate.baseline import (
    carried_over,
    check_environment,
    environment_differences,
    in_short,
    load_baseline,
    match_baseline,
    moved_tests,
    update_baseline,
)
from pytest_membudget.gate.comparison import (
    DEFAULT_TOLERANCE,
    Step,
    compare_test,
    judge_comparison,
    judge_undecided,
    next_step,
)
from pytest_membudget.gate.trend import LearnedTolerance, learn_tolerances
from pytest_membudget.measurement.system.machine import environment
from pytest_membudget.plugin import is_worker
from pytest_membudget.plugin.fresh.run import ForkedSamples, run_fresh
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.running_test import RunningTest
from pytest_membudget.plugin.session_records import attached
from pytest_membudget.plugin.terminal_summary import showing_progress
from pytest_membudget.records.judgement import Judgement
from pytest_membudget.records.report import BaselineCheck, Comparison, Report, TestRecord
from pytest_membudget.records.storage import check_writable, from_here
from pytest_membudget.units import Tolerance, format_count, format_size

MOST_FORKS = 3
"""More would acquit too much: each is one more chance for a test that has changed (`benchmarks/test_gate_noise.py`)."""


class Gate:
    """The baseline of this session, and what to do about a test that differs from it."""

    def __init__(
        self, settings: Settings, collected: Collected, forks: ForkedSamples, *, is_in_ini: bool = False
    ) -> None:
        """Reads the baseline. One that the ini file names need not exist yet, save under `--membudget-strict`.

        Raises:
            pytest.UsageError: there is none, it cannot be read or written, or it is foreign and `--membudget-strict`
                was given.
        """
        assert settings.baseline is not None
        self.settings = settings
        self.is_in_ini = is_in_ini
        self.collected = collected
        self._forks = forks
        self.tolerance = settings.tolerance or DEFAULT_TOLERANCE
        self.path = settings.baseline
        self.shown_path = from_here(settings.baseline)
        if settings.update_baseline:
            try:
                check_writable(self.shown_path, such_as="memory.json")
            except MembudgetError as error:
                raise pytest.UsageError(f"--membudget-baseline: {error}") from None
        self.baseline = self._load()
        self.foreign: tuple[str, ...] = ()
        if self.baseline is not None and not settings.update_baseline:
            try:
                self.foreign = check_environment(
                    self.baseline.environment, environment(), path=self.shown_path, strict=settings.strict
                )
            except MembudgetError as error:
                raise pytest.UsageError(str(error)) from None
        tests = self.baseline.tests if self.baseline else ()
        self._known = {record.nodeid: record for record in tests if record.peak_bytes is not None}

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a foreign baseline is worth."""
        if not self.foreign:
            return ()
        return (f"the baseline is from another environment: {in_short(self.foreign)}",)

    @property
    def announcement(self) -> str | None:
        """What takes its time in a session that takes a baseline."""
        if not self.settings.update_baseline:
            return None
        return (
            f"membudget: runs each test above {format_size(self.tolerance.absolute_bytes)} "
            f"{format_count(self.settings.samples, 'time')} more in a fresh process for {self.shown_path}; "
            "fewer with --membudget-samples, side by side with -n"
        )

    @property
    def lack(self) -> str | None:
        """What to say where the ini file names a baseline that does not exist yet."""
        if self.baseline is not None or self.settings.update_baseline:
            return None
        return f"there is no baseline at {self.shown_path} yet, so nothing is compared; make it with {self.accept_command}"

    @property
    def accept_command(self) -> str:
        """The command that makes the present figures the baseline."""
        return self._accept()

    def _accept(self, nodeid: str = "") -> str:
        """Of one test, or of all that run: the others' lines stay as they are."""
        words = ["pytest", *([nodeid] if nodeid else [])]
        if not self.is_in_ini:
            words.append(f"--membudget-baseline={self.shown_path}")
        return shlex.join([*words, "--membudget-update-baseline"])

    def samples_for_baseline(self, test: RunningTest, peak_bytes: int | None) -> tuple[int, ...]:
        """Peaks of `test` in fresh processes, where a new baseline is to hold them.

        One figure is not enough: racing threads make peaks jump, and without samples on both sides an unchanged
        test would fail now and then. Below the tolerance's absolute part there is nothing to tell apart.
        """
        if not self.settings.update_baseline or (peak_bytes or 0) <= self.tolerance.absolute_bytes:
            return ()
        taken = []
        for number in range(1, self.settings.samples + 1):
            with showing_progress(test.config, f"rerun {number} of {self.settings.samples}"):
                taken.append(_peak_bytes(_run_fresh(test)))
        return tuple(peak_bytes for peak_bytes in taken if peak_bytes is not None)

    def _samples(
        self,
        test: RunningTest,
        step: Callable[[Sequence[int]], Step],
        run: Callable[[], Any | None],
        most: int | None = None,
    ) -> list[int] | None:
        """Peaks of `test`, until no more are needed or there are `most`; `None` where a run did not pass."""
        taken: list[int] = []
        while step(taken) == "rerun" and (most is None or len(taken) < most):
            with showing_progress(
                test.config, f"beyond its baseline: rerun {len(taken) + 1} of {self.settings.samples}"
            ):
                peak_bytes = _peak_bytes(run())
            if peak_bytes is None:
                return None
            taken.append(peak_bytes)
        return taken

    def compare(
        self, test: RunningTest, record: TestRecord, tolerance: Tolerance | None = None
    ) -> tuple[Comparison, Judgement] | None:
        """How `record` compares with its baseline; `None` where there is nothing to compare with.

        `tolerance` is the test's own, where its marker names one.
        """
        base = self._known.get(record.nodeid) or self._known.get(self._moved.get(record.nodeid, ""))
        if base is None or self.settings.update_baseline:
            return None
        peak_bytes = record.peak_upper_bytes if self.settings.strict else record.peak_bytes
        assert peak_bytes is not None
        learned = None if tolerance else self._learned.get(base.nodeid)
        tolerance = tolerance or (learned.tolerance if learned else self.tolerance)
        wanted = self.settings.samples
        step = functools.partial(next_step, base, peak_bytes, tolerance=tolerance, wanted=wanted)
        # A baseline without fresh samples has the figure of a session in which earlier tests may have loaded and kept
        # what this one needs; the first run in a fresh process pays for that.
        rehearse = not base.samples_bytes
        samples = self._samples(
            test, step, functools.partial(self._forks.run, test, rehearse=rehearse), MOST_FORKS
        )
        if samples is None or step(samples) != "same":
            samples = self._samples(test, step, functools.partial(_run_fresh, test, rehearse=rehearse))
        is_decided = samples is not None
        samples = samples or []
        comparison = compare_test(
            record, base, tolerance, samples, strict=self.settings.strict, wanted=wanted
        )
        if learned is not None:
            comparison = replace(comparison, tolerance=str(learned))
        if not is_decided:
            return comparison, judge_undecided(comparison, strict=self.settings.strict)
        if comparison.finding == "regressed":
            comparison = replace(comparison, caveats=(*comparison.caveats, *self.caveats))
        judgement = judge_comparison(
            comparison, nodeid=record.nodeid, accept_command=self._accept(record.nodeid)
        )
        return comparison, judgement

    @functools.cached_property
    def _learned(self) -> Mapping[str, LearnedTolerance]:
        """The tolerances that the history justifies, where the user gave none; read once a session, at the first test."""
        if (
            self.settings.history is None
            or self.settings.tolerance is not None
            or not self.settings.history.exists()
        ):
            return {}
        try:
            return learn_tolerances(self.settings.history)
        except (MembudgetError, OSError):
            return {}  # the end of the session says that it cannot be written

    @functools.cached_property
    def _moved(self) -> Mapping[str, str]:
        """From the new to the old name of each test that stands in another file now."""
        gone = [nodeid for nodeid in self._known if self.collected.is_gone(nodeid)]
        new = [nodeid for nodeid in self.collected.names if nodeid not in self._known]
        return moved_tests(gone, new)

    def check(self, report: Report) -> BaselineCheck | None:
        """How the session as a whole compares."""
        if self.baseline is None:
            return None
        matching = match_baseline(
            self.baseline, report.tests, is_gone=self.collected.is_gone, tolerance=self.tolerance
        )
        return BaselineCheck(
            path=self.shown_path,
            tolerance=str(self.tolerance),
            accept_command=self.accept_command,
            foreign=self.foreign,
            new=matching.new,
            gone=matching.gone,
            renamed=matching.renamed,
            skipped=matching.skipped,
            not_run=matching.not_run,
        )

    def update(self, report: Report) -> str:
        """Writes what was measured as the new baseline, and says so.

        Raises:
            OSError: it cannot be written.
        """
        made = update_baseline(self.path, report, tolerance=self.tolerance, is_gone=self.collected.is_gone)
        text = f"baseline: {self.shown_path} ({format_count(len(made.tests), 'test')})"
        missing = sorted({test.nodeid for test in report.tests} - {test.nodeid for test in made.tests})
        if missing:
            text += f"; {len(missing):,} not in it, as they did not pass or were not measured: {in_short(tuple(missing))}"
        before = self.baseline.environment if self.baseline else made.environment
        differences = environment_differences(before, report.environment)
        kept = carried_over(made.tests, report)
        if differences and kept:
            text += f"; {len(kept):,} of them keep figures from another environment: {in_short(differences)}"
        return text

    def _load(self) -> Report | None:
        try:
            return load_baseline(self.path)
        except FileNotFoundError:
            if self.settings.update_baseline or (self.is_in_ini and not self.settings.strict):
                return None
            raise pytest.UsageError(
                f"--membudget-baseline: there is no baseline at {self.shown_path}; make one with {self.accept_command}"
            ) from None
        except (MembudgetError, OSError) as error:
            raise pytest.UsageError(f"--membudget-baseline: {error}") from None


def _run_fresh(test: RunningTest, *, rehearse: bool = False) -> Any | None:
    """The report of one more run in a fresh interpreter; of the second one there with `rehearse`."""
    test.stop_clock()
    return run_fresh(test, "sample", rehearse=rehearse).reports.get("call")


def _peak_bytes(report: Any | None) -> int | None:
    record = attached(report) if report is not None and report.passed else None
    return record.peak_bytes if record is not None else None


_OUTPUT_KEY = "membudget_collected"


class Collected:
    """Every test that was collected, deselected or not, and every place that could not be read."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._complete = False
        self.names: set[str] = set()
        self._unread: set[str] = set()
        self._ignored: set[str] = set()

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Adds a test."""
        self.names.add(item.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Adds a module that was skipped or is broken: its tests are not known."""
        if not report.passed:
            self._unread.add(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_ignore_collect(self, collection_path: Path) -> Generator[None, bool | None, bool | None]:
        """Adds what an option or a conftest file leaves out."""
        ignored = yield
        if ignored:
            self._ignored.add(str(collection_path))
        return ignored

    def pytest_collection_finish(self) -> None:
        """From now on a missing test and an unknown one differ."""
        self._complete = True

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A worker sends it to its controller, which collects nothing itself."""
        if is_worker(session.config) and self._complete:
            facts = [sorted(each) for each in (self.names, self._unread, self._ignored)]
            session.config.workeroutput[_OUTPUT_KEY] = json.dumps(facts)  # type: ignore[attr-defined]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Adds what a worker has collected."""
        output = getattr(node, "workeroutput", {}).get(_OUTPUT_KEY)
        if output is not None:
            for mine, its in zip((self.names, self._unread, self._ignored), json.loads(output), strict=True):
                mine.update(its)
            self._complete = True

    def is_gone(self, nodeid: str) -> bool:
        """Whether that test would have been collected if it still existed."""
        if not self._complete or nodeid in self.names or any(map(nodeid.startswith, self._unread)):
            return False
        file = self._config.rootpath / nodeid.partition("::")[0]
        if any(file.is_relative_to(place) for place in self._ignored):
            return False
        return any(file.is_relative_to(place) for place in self._asked_places())

    def _asked_places(self) -> list[Path]:
        """The files and folders that were read whole; none where pytest skipped those without a failure."""
        if getattr(self._config.option, "lf", False):
            return []
        if self._config.args_source is pytest.Config.ArgsSource.TESTPATHS:
            return [self._config.rootpath]
        folder = self._config.invocation_params.dir
        return [folder / argument for argument in self._config.args if "::" not in argument]
