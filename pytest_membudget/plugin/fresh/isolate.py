"""`isolate=True`: the test runs in a fresh interpreter, and its reports stand in for those of this process.

Only setup, call and teardown of the test are replaced. Markers are evaluated, and reports handled, by every other
plugin as ever: skip, xfail, reruns, `-x` and the like behave as in this process.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_membudget.plugin import emergency_report
from pytest_membudget.plugin.fresh.run import FreshRun, run_fresh
from pytest_membudget.plugin.plans import Plan, is_isolated
from pytest_membudget.plugin.running_test import IsolatedCrash, RunningTest, running_test
from pytest_membudget.plugin.session_records import attach, shared_folder
from pytest_membudget.records.report import TestRecord

_RUN = pytest.StashKey[FreshRun | None]()
_GRACE_S = 30.0
_TIME_LIMIT = pytest.StashKey[float]()


class Isolation:
    """The hooks of the process that starts the interpreters."""

    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Replaces what the test does in this process."""
        test = running_test(item)
        if test is not None and test.plan.isolate:
            item.stash[_RUN] = None
            item.setup = lambda: _set_up(item, test)  # type: ignore[method-assign]
            item.runtest = lambda: _call(item)  # type: ignore[method-assign]
            item.teardown = lambda: _tear_down(item)  # type: ignore[method-assign]

    # The outermost wrapper: xfail and the like were applied to these reports in their own interpreter.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Puts the interpreter's report in the place of this process's own."""
        report = yield
        run = item.stash.get(_RUN, None)
        if run is not None and report.when in run.reports:
            own: pytest.TestReport = run.reports[report.when]
            return own
        test = running_test(item)
        if test is not None and call.excinfo is not None and isinstance(call.excinfo.value, IsolatedCrash):
            attach(report, _crash_record(test.config, test.plan, call.excinfo.value))
        return report

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> bool | None:
        """pytest-timeout ends the test inside its interpreter, where it can say what the test was doing."""
        if not is_isolated(item):
            return None
        item.stash[_TIME_LIMIT] = settings.timeout + _GRACE_S
        return True

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_cancel_timer(self, item: pytest.Item) -> bool | None:
        """Nothing was set."""
        return True if is_isolated(item) else None


def _set_up(item: pytest.Item, test: RunningTest) -> None:
    assert test.plan.budget is not None
    limit_s = test.plan.budget.timeout_s or item.stash.get(_TIME_LIMIT, None)
    item.stash[_RUN] = None
    run = run_fresh(test, "isolate", timeout_s=limit_s)
    item.stash[_RUN] = run
    if run.exit_message is not None:
        pytest.exit(run.exit_message)
    if "setup" not in run.reports:
        raise IsolatedCrash(run.death)


def _call(item: pytest.Item) -> None:
    run = item.stash[_RUN]
    assert run is not None
    for report in run.sub_reports:
        item.ihook.pytest_runtest_logreport(report=report)
    if "call" not in run.reports:
        raise IsolatedCrash(run.death)


def _tear_down(item: pytest.Item) -> None:
    run = item.stash[_RUN]
    if run is not None and "call" in run.reports and "teardown" not in run.reports:
        raise IsolatedCrash(run.death)


def _crash_record(config: pytest.Config, plan: Plan, crash: IsolatedCrash) -> TestRecord:
    """Of a test that the watchdog killed, what its interpreter left; of any other, how it ended."""
    for record in emergency_report.killed(shared_folder(config)).records:
        if record.nodeid == plan.nodeid:
            return record
    return TestRecord(
        nodeid=plan.nodeid,
        outcome="failed",
        verdict="crashed",
        file=plan.file,
        line=plan.line,
        isolated=True,
        message=str(crash.msg),
    )
