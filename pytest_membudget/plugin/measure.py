"""Measures the call phase of each planned test, judges it, and fails it where it took too much.

1. `Measuring` has the hooks. The start lies after the test's fixtures. The test's own failure always comes first: what was
   measured is then recorded and judged, but raises nothing.
2. `Judge` holds the measurement against all that the test asks for.
3. What was found reaches the report of the session by way of its `Tally`; from another process as a record with the test's report.
"""

from __future__ import annotations

from collections.abc import Generator
from time import perf_counter  # its own reference: a test may have frozen the clock
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_membudget.errors import WatchdogStop
from pytest_membudget.measurement.process import heap
from pytest_membudget.measurement.process.high_water import restore_getrusage
from pytest_membudget.measurement.process.reclaim import at_end, collector, expect_frees
from pytest_membudget.measurement.thread_stacks import forget_frames
from pytest_membudget.measurement.tree.sampler import close_sampler, sampler
from pytest_membudget.originals import has_builtin_doubles, os, restored
from pytest_membudget.plugin.fresh import Purpose
from pytest_membudget.plugin.judging import Judge, Judged, record_of
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.plans import load_parts
from pytest_membudget.plugin.probes import begin_safely, finish_safely, judge_kill
from pytest_membudget.plugin.running_test import OverBudget, RunningTest, running_test
from pytest_membudget.plugin.session_records import Tally, attach
from pytest_membudget.records.judgement import Budget

if TYPE_CHECKING:
    from pytest_membudget.measurement.watchdog import KillRecord
    from pytest_membudget.plugin.probes import AnyProbe


class Measuring:
    """The hooks of the process that runs the tests.

    Args:
        settings: the session's options.
        judge: judges what was measured.
        purpose: why a fresh interpreter was started, `None` elsewhere.
        tally: that of the session, where this process reports it too.
    """

    def __init__(
        self, settings: Settings, judge: Judge, purpose: Purpose | None, tally: Tally | None
    ) -> None:
        self.settings = settings
        self.judge = judge
        self.purpose = purpose
        self._tally = tally
        self._default_budget = Budget(peak_bytes=settings.default_bytes)
        self._pid = os.getpid()
        self._failed_in_part: set[str] = set()
        self._parent: object = None
        self._item: pytest.Item | None = None
        self._test: RunningTest | None = None

    # The innermost wrapper, so that what other plugins do around a call is not counted as the test's.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Measures, records, judges; raises only where the test itself passed."""
        test = self._test_of(item)
        if test is None or (test.plan.isolate and self.purpose is None):
            return (yield)
        if item.parent is not self._parent:
            self._parent = item.parent
            expect_frees()  # what fixtures of the class or module before held
        test.begin_call()
        budget = self._budget_before(test)
        if self.purpose == "memray":
            return (yield from _recording())
        probe = begin_safely(test, budget, self.settings)
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
            if has_builtin_doubles():
                with restored():
                    judged = self._finish(test, probe, budget, own_error)
            else:
                judged = self._finish(test, probe, budget, own_error)
        if self.purpose == "scale":
            _leave_row(test, judged)
        is_of_interest = judged.failed or self.judge.has_more(test)
        failed = test.has_kept_failures or test.nodeid in self._failed_in_part
        if is_of_interest and self.purpose in {None, "isolate"} and not failed:
            self._hold_against_all(test, judged)
        return result

    def _finish(
        self, test: RunningTest, probe: AnyProbe, budget: Budget, own_error: BaseException | None
    ) -> Judged:
        """What was measured, held against the budget, and kept for the report."""
        judged = self.judge.by_budget(finish_safely(probe), _budget_now(test, budget))
        kill_record = getattr(probe, "kill_record", None)
        if kill_record is not None:
            self._fail_killed(test, judged, kill_record, own_error)
        test.keep(judged)
        return judged

    def _test_of(self, item: pytest.Item) -> RunningTest | None:
        """That of this item, which is asked for four times in a row."""
        if item is not self._item:
            self._item, self._test = item, running_test(item)
        return self._test

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
            test.keep(further)
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
        test.keep(judged)
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
            test.keep(judged)
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
        if test.plan.budget is None and test.membudget is None:
            return self._default_budget
        try:
            budget = test.budget(self.settings.default_bytes)
        except ValueError as error:
            # Its cause stands in the message: pytest would show both, one after the other.
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        return _budget_now(test, budget)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Sends the record along with the report, which is how it reaches pytest-xdist's controller."""
        failure = None if call.excinfo is None else call.excinfo.value
        test = self._test_of(item)
        if isinstance(failure, OverBudget):
            # It passed by itself, with doubles that pytest may be unable to show a failure with.
            with restored():
                report = yield
                if test is not None:
                    test.shorten_summary(report, failure)
        else:
            report = yield
            if test is not None and failure is not None:
                test.shorten_summary(report, failure)
        if test is None:
            return report
        record = None
        if report.when == "call":
            # Reruns and repetitions that a judgement needed are not the test's own time.
            if test.judging_s:
                report.duration = max(0.0, report.duration - test.judging_s)
            if test.judged is not None:
                if self._tally is not None and os.getpid() == self._pid:
                    self._tally.expect(report.nodeid, test.plan, test.judged)
                else:  # a worker, a fresh interpreter, or a fork that some plugin runs the test in
                    record = record_of(test.plan, test.judged)
        attach(report, record)
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


def _budget_now(test: RunningTest, budget: Budget) -> Budget:
    """With what the test, or one of its fixtures, has set by the fixture `membudget`."""
    return budget if test.membudget is None else test.membudget.replace_in(budget)
