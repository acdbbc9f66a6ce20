"""Measures the call phase of each planned test and fails it where it took too much.

The start lies after the test's fixtures. The test's own failure always comes first: what was measured is then
recorded and judged, but raises nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_membudget.measurement import Probe
from pytest_membudget.plugin.failure import OverBudget, tell_shortly
from pytest_membudget.plugin.judging import Judged, judge_test, record_of
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.plan import PLAN, Plan
from pytest_membudget.plugin.rules import budget_of
from pytest_membudget.plugin.travel import attach
from pytest_membudget.records.report import TestRecord

RECORD = pytest.StashKey[TestRecord | None]()


class Measuring:
    """The hooks of the process that runs the tests."""

    def __init__(self, settings: Settings, *, in_fresh: bool) -> None:
        self.settings = settings
        self._in_fresh = in_fresh

    # The innermost wrapper: what other plugins do around a call is not the test's.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Measures, records, judges; raises only where the test itself passed."""
        plan = item.stash.get(PLAN, None)
        if plan is None or (plan.isolate and not self._in_fresh):
            return (yield)
        item.stash[RECORD] = None
        try:
            budget = budget_of(item, plan.budget, self.settings.default_bytes)
        except ValueError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        probe = Probe(item.nodeid, interval_s=self.settings.interval_s, settle=budget != budget.__class__())
        probe.begin()
        passed = False
        try:
            result = yield
            passed = True
        finally:
            measurement = probe.finish()
            judged = judge_test(item, plan, measurement, budget, self.settings)
            self._record(item, plan, judged)
        if passed and judged.failed and not self.settings.warn:
            raise OverBudget(judged.message)
        return result

    def _record(self, item: pytest.Item, plan: Plan, judged: Judged) -> None:
        record = record_of(item, plan, judged)
        item.stash[RECORD] = record
        told = {"membudget_peak_bytes": record.peak_bytes, "membudget_verdict": record.verdict}
        item.user_properties[:] = [
            *(each for each in item.user_properties if each[0] not in told),
            *told.items(),
        ]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Sends the record along with the report, which is how it reaches pytest-xdist's controller."""
        report = yield
        if PLAN not in item.stash:
            return report
        tell_shortly(report, item, call.excinfo.value if call.excinfo else None)
        attach(report, item.stash.get(RECORD, None) if report.when == "call" else None)
        return report
