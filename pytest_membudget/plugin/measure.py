"""Measures the call phase of each planned test, judges it, and fails it where it took too much.

1. `Measuring` has the hooks. The start lies after the test's fixtures. The test's own failure always comes first: what was
   measured is then recorded and judged, but raises nothing.
2. `Judge` holds the measurement against all that the test asks for; in `Judged` the gravest verdict comes first.
3. `record_of` makes the record, which travels with the test's report.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import nullcontext
from time import perf_counter  # its own reference: a test may have frozen the clock
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import pytest

from pytest_membudget.errors import WatchdogStop, text_of
from pytest_membudget.gate.budgets import judge, judge_growth
from pytest_membudget.measurement.process import heap
from pytest_membudget.measurement.process.high_water import restore_getrusage
from pytest_membudget.measurement.process.reclaim import at_end, collector, expect_frees
from pytest_membudget.measurement.thread_stacks import forget_frames
from pytest_membudget.measurement.tree.sampler import close_sampler, sampler
from pytest_membudget.originals import restored
from pytest_membudget.plugin.fresh import Purpose
from pytest_membudget.plugin.markers import GrowthMark, ScalesMark
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.plans import Plan, load_parts
from pytest_membudget.plugin.probes import SafeProbe, choose_probe, judge_kill
from pytest_membudget.plugin.running_test import OverBudget, RunningTest, running_test
from pytest_membudget.plugin.session_records import attach
from pytest_membudget.records.judgement import Budget, Growth, Judgement, Verdict
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.records.report import AllocationSite, Comparison, TestRecord

if TYPE_CHECKING:
    from pytest_membudget.measurement.watchdog import KillRecord
    from pytest_membudget.plugin.baseline_gate import Gate
    from pytest_membudget.plugin.fixtures import Membudget

_GRAVEST_FIRST: Sequence[Verdict] = (
    "killed",
    "crashed",
    "over",
    "leak",
    "regressed",
    "over_upper",
    "inconclusive",
    "within",
    "clean",
    "none",
)


class Measuring:
    """The hooks of the process that runs the tests. `purpose` is why a fresh interpreter was started, `None` elsewhere."""

    def __init__(self, settings: Settings, judge: Judge, purpose: Purpose | None) -> None:
        self.settings = settings
        self.judge = judge
        self.purpose = purpose
        self._failed_in_part: set[str] = set()
        self._parent: object = None

    # The innermost wrapper, so that what other plugins do around a call is not counted as the test's.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Measures, records, judges; raises only where the test itself passed."""
        test = running_test(item)
        if test is None or (test.plan.isolate and self.purpose is None):
            return (yield)
        if item.parent is not self._parent:
            self._parent = item.parent
            expect_frees()  # what fixtures of the class or module before held
        test.begin_call()
        budget = self._budget_before(test)
        if self.purpose == "memray":
            return (yield from _recording())
        probe = SafeProbe(lambda: choose_probe(test, budget, self.settings))
        probe.begin()
        own_error: BaseException | None = None
        result = None
        try:
            result = yield
        except BaseException as error:
            own_error = error
            if isinstance(error, WatchdogStop | MemoryError):
                forget_frames(error.__traceback__)
            raise
        finally:
            measurement = probe.finish()
            judged = self.judge.by_budget(measurement, _budget_after(test, budget))
            if probe.kill_record is not None:
                self._fail_killed(test, judged, probe.kill_record, own_error)
            test.keep(record_of(test.plan, judged))
        if self.purpose == "scale":
            _leave_row(test, judged)
        failed = test.has_kept_failures or test.nodeid in self._failed_in_part
        if self.purpose in {None, "isolate"} and not failed:
            self._hold_against_all(test, judged)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notices sub-tests that fail: the test that holds them goes on, and has not passed."""
        if report.failed and getattr(report, "context", None) is not None:
            self._failed_in_part.add(report.nodeid)

    def _hold_against_all(self, test: RunningTest, judged: Judged) -> None:
        """Judges a test that passed by itself.

        Raises:
            OverBudget: it took too much, by any judgement.
        """
        started_s = perf_counter()
        further = self.judge.by_all(test, judged)
        test.judging_s = perf_counter() - started_s
        if further is not judged:
            test.keep(record_of(test.plan, further))
        if further.failed:
            message = self._explained(test, further).message
            test.judging_s = perf_counter() - started_s
            if not self.settings.warn:
                test.fail(message)

    def _fail_killed(
        self, test: RunningTest, judged: Judged, kill_record: KillRecord, own_error: BaseException | None
    ) -> NoReturn:
        """Fails a test that the watchdog ended, whatever the test itself made of that."""
        judged = judged.with_judgement(judge_kill(kill_record, own_error, advises=not judged.failed))
        test.keep(record_of(test.plan, judged))
        message = self._explained(test, judged).message
        if own_error is None:
            test.fail(message)
        # A debugger opens where the test was stopped.
        raise OverBudget(message).with_traceback(own_error.__traceback__) from None

    def _explained(self, test: RunningTest, judged: Judged) -> Judged:
        """The same judgement, with who allocated the peak where `--membudget-memray` asks for that."""
        if self.settings.memray and self.purpose in {None, "isolate"}:
            from pytest_membudget.plugin.fresh.memray import attribute

            with restored():
                sites, text = attribute(test, self.settings.memray_dir, judged.measurement.peak_bytes)
            judged = judged._replace(allocations=sites, explanation=text)
            test.keep(record_of(test.plan, judged))
        return judged

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Starts the helper process, and imports what will be needed, before any test can stand in the way of that."""
        if session.config.option.collectonly:
            return
        load_parts(session.items, self.settings)
        if self.purpose != "memray":
            sampler()
            heap.trim_heap()

    @staticmethod
    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish() -> None:
        """Ends the helper process: a session with few descriptors needs its pipes for what other plugins import at the end."""
        close_sampler()

    @staticmethod
    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure() -> None:
        """Reports what finalizers of earlier tests raised while ours collected."""
        close_sampler()  # a session that was stopped early has not finished
        restore_getrusage()
        for each in (collector, at_end):
            each.report_deferred()

    def _budget_before(self, test: RunningTest) -> Budget:
        try:
            budget = test.budget(self.settings.default_bytes)
        except ValueError as error:
            # Its cause stands in the message: pytest would show both, one after the other.
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        if (fixture := _own_fixture(test)) is not None:
            fixture.budget = budget
        return budget

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Sends the record along with the report, which is how it reaches pytest-xdist's controller."""
        failure = None if call.excinfo is None else call.excinfo.value
        # A test over its budget passed by itself, with doubles that pytest may be unable to show a failure with.
        with restored() if isinstance(failure, OverBudget) else nullcontext():
            report = yield
            test = running_test(item)
            if test is None:
                return report
            if failure is not None:
                test.shorten_summary(report, failure)
        attach(report, test.record if report.when == "call" else None)
        if report.when == "call":
            # Reruns and repetitions that a judgement needed are not the test's own time.
            report.duration = max(0.0, report.duration - test.judging_s)
        return report


def _recording() -> Generator[None, Any, Any]:
    """Runs the test under memray, in the fresh interpreter that was started for that."""
    from pytest_membudget.measurement.fresh.memray_run import recording
    from pytest_membudget.plugin.fresh.child_session import REQUEST

    with recording(REQUEST.memray_capture):
        return (yield)


def _leave_row(test: RunningTest, judged: Judged) -> None:
    """Leaves the row of a scale for the session that asked for it."""
    from pytest_membudget.plugin.scales import leave_row, scale_of

    scale = scale_of(test)
    if scale is not None:
        with restored():
            leave_row(test, scale, judged.measurement, judged.budget)


def _budget_after(test: RunningTest, budget: Budget) -> Budget:
    """The budget that holds now: a test may set its own while it runs."""
    fixture = _own_fixture(test)
    return budget if fixture is None else fixture.budget


def _own_fixture(test: RunningTest) -> Membudget | None:
    """The fixture that the test sees and sets its budget by, where it takes it."""
    fixture = test.value("membudget")
    if fixture is None:
        return None
    from pytest_membudget.plugin.fixtures import Membudget

    return fixture if isinstance(fixture, Membudget) else None


class Judged(NamedTuple):
    """A measured test and all that was found about it."""

    measurement: Measurement
    budget: Budget
    judgements: tuple[Judgement, ...]
    growth: Growth | None = None
    comparison: Comparison | None = None
    samples_bytes: tuple[int, ...] = ()
    allocations: tuple[AllocationSite, ...] = ()
    explanation: str = ""

    @property
    def failed(self) -> bool:
        """Whether the test has to fail."""
        return any(judgement.failed for judgement in self.judgements)

    @property
    def verdict(self) -> Verdict:
        """The gravest of all verdicts."""
        return min((each.verdict for each in self.judgements), key=_GRAVEST_FIRST.index, default="none")

    @property
    def message(self) -> str:
        """What each judgement says, in the order of gravity."""
        speaking = [each for each in self.judgements if each.finding]
        speaking.sort(key=lambda each: _GRAVEST_FIRST.index(each.verdict))
        text = "\n\n".join(
            each.worded(
                # A stopped test has used what the budget's judgement suggests, and would have used more.
                was_stopped=self.verdict == "killed" and each.verdict != "killed",
                is_explained=bool(self.explanation),
            )
            for each in speaking
        )
        return f"{text}\n{self.explanation}" if self.explanation else text

    @property
    def caveats(self) -> tuple[str, ...]:
        """Every caveat once."""
        return tuple(dict.fromkeys(caveat for each in self.judgements for caveat in each.caveats))

    def with_judgement(self, judgement: Judgement | None) -> Judged:
        """One judgement more; without any, this very value."""
        return self if judgement is None else self._replace(judgements=(*self.judgements, judgement))


class Judge:
    """Holds a measurement against everything that its test asks for."""

    def __init__(self, settings: Settings, gate: Gate | None) -> None:
        self.settings = settings
        self.gate = gate

    def by_budget(self, measurement: Measurement, budget: Budget) -> Judged:
        """The judgement that needs nothing but the measurement."""
        return Judged(measurement, budget, (judge(measurement, budget, strict=self.settings.strict),))

    def by_all(self, test: RunningTest, judged: Judged) -> Judged:
        """The judgements of a test that passed by itself: law of scales, growth, regression gate.

        Raises:
            BaseException: what the test raises in one of the repetitions that its growth is judged by.
        """
        judged = judged.with_judgement(self._by_law(test, judged))
        if test.plan.growth is not None and not judged.failed:
            growth = _repeated(test, test.plan.growth)
            judged = judged.with_judgement(judge_growth(growth, self.settings.strict))._replace(growth=growth)
        # A failure that only warns leaves a test that passes, which has to stay comparable.
        is_settled = judged.failed and not self.settings.warn
        return judged if is_settled or self.gate is None else self._by_gate(test, judged, self.gate)

    def _by_law(self, test: RunningTest, judged: Judged) -> Judgement | None:
        """Keeps the row of a scale; the last one of its test is judged by all."""
        if test.value("memory_scale") is None:
            return None
        from pytest_membudget.plugin.scales import add_row, judge_law, scale_of

        scale = scale_of(test)
        with restored():
            is_last = scale is not None and add_row(test, scale, judged.measurement, judged.budget)
        mark = test.plan.scales or ScalesMark()
        if not is_last or (mark.law is None and mark.at_most is None):
            return None
        # Isolated scales all pay alike for what is loaded once.
        return judge_law(test, mark, again=not test.plan.isolate, strict=self.settings.strict)

    @staticmethod
    def _by_gate(test: RunningTest, judged: Judged, gate: Gate) -> Judged:
        record = record_of(test.plan, judged)
        tolerance = test.plan.budget.tolerance if test.plan.budget is not None else None
        compared = gate.compare(test, record, tolerance)
        if compared is None:
            return judged._replace(samples_bytes=gate.samples_for_baseline(test, record.peak_bytes))
        comparison, judgement = compared
        return judged.with_judgement(judgement)._replace(
            comparison=comparison, samples_bytes=comparison.samples_bytes
        )


def _repeated(test: RunningTest, mark: GrowthMark) -> Growth:
    """Runs the body until its growth is known, or the marker's time is over."""
    from pytest_membudget.measurement.growth.check import check_growth

    raised: BaseException | None = None

    def call() -> None:
        nonlocal raised
        try:
            body()
        except BaseException as error:
            raised = error
            raise

    try:
        with test.repeating(fresh_fixtures=mark.fresh_fixtures) as body:
            return check_growth(call, mark.per_call_bytes, timeout_s=mark.timeout_s, label=test.plan.name)
    except OSError as error:
        if error is raised:
            raise
        return _not_judged(mark, test.plan.name, error)


def _not_judged(mark: GrowthMark, label: str, error: OSError) -> Growth:
    """What is known where the process has no descriptors left, or the like."""
    return Growth(
        verdict="inconclusive",
        bytes_per_call=0.0,
        low_bytes_per_call=-(2.0**63),
        high_bytes_per_call=2.0**63,
        allowed_bytes_per_call=mark.per_call_bytes,
        calls=0,
        duration_s=0.0,
        label=label,
        caveats=(f"it could not be judged in the state that the test left its process in: {text_of(error)}",),
    )


def record_of(plan: Plan, judged: Judged) -> TestRecord:
    """The record as of the end of the call; its outcome is known when the reports are."""
    measurement, budget = judged.measurement, judged.budget
    return TestRecord(
        nodeid=plan.nodeid,
        outcome="passed",
        verdict=judged.verdict,
        peak_bytes=measurement.peak_bytes,
        peak_upper_bytes=measurement.peak_upper_bytes,
        total_peak_bytes=measurement.total_peak_bytes,
        retained_bytes=measurement.retained_bytes,
        duration_s=measurement.duration_s,
        processes=measurement.processes,
        source=measurement.source,
        interval_s=measurement.interval_s,
        budget_bytes=budget.peak_bytes,
        budget_total_bytes=budget.total_bytes,
        budget_retained_bytes=budget.retained_bytes,
        isolated=plan.isolate,
        file=plan.file,
        line=plan.line,
        samples_bytes=judged.samples_bytes,
        growth=judged.growth,
        comparison=judged.comparison,
        allocations=judged.allocations,
        shares=measurement.shares,
        timeline=measurement.timeline,
        message=judged.message,
        caveats=judged.caveats,
    )
