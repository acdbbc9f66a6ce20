"""Measures the call phase of each planned test and fails it where it took too much.

The start lies after the test's fixtures. The test's own failure always comes first: what was measured is then
recorded and judged, but raises nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from pytest_membudget.errors import WatchdogStop
from pytest_membudget.gate import Budget
from pytest_membudget.measurement import Probe, close_sampler, forget_frames
from pytest_membudget.plugin.attributing import attribute
from pytest_membudget.plugin.benchmarking import BenchmarkProbe, is_benchmark
from pytest_membudget.plugin.block import Membudget
from pytest_membudget.plugin.failure import OverBudget, tell_shortly
from pytest_membudget.plugin.judging import Judge, Judged, record_of
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.orders import Purpose
from pytest_membudget.plugin.plan import PLAN, Plan
from pytest_membudget.plugin.rules import budget_of
from pytest_membudget.plugin.travel import attach
from pytest_membudget.plugin.watch import guard, is_watched, judge_bite
from pytest_membudget.records.report import TestRecord

RECORD = pytest.StashKey[TestRecord | None]()


class Measuring:
    """The hooks of the process that runs the tests."""

    def __init__(self, settings: Settings, judge: Judge, purpose: Purpose | None) -> None:
        self.settings = settings
        self.judge = judge
        self.purpose = purpose

    # The innermost wrapper: what other plugins do around a call is not the test's.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Measures, records, judges; raises only where the test itself passed."""
        plan = item.stash.get(PLAN, None)
        if plan is None or (plan.isolate and self.purpose is None):
            return (yield)
        item.stash[RECORD] = None
        budget = self._budget_before(item, plan)
        probe = self._probe(item, plan, budget)
        probe.begin()
        own_error: BaseException | None = None
        result = None
        try:
            with self._recording():
                result = yield
        except BaseException as error:
            own_error = error
            if isinstance(error, WatchdogStop | MemoryError):
                forget_frames(error.__traceback__)
            raise
        finally:
            measurement = probe.finish()
            bite = getattr(probe, "bite", None)
            judged = self.judge.by_budget(measurement, _budget_after(item, budget))
            if bite is not None:
                judged = judged.with_judgement(judge_bite(bite, own_error))
            _keep(item, plan, judged)
            if bite is not None:
                # What the watchdog ended failed for that reason, whatever the test made of it.
                raise OverBudget(self._explained(item, plan, judged).message) from None
        if self.purpose in {None, "isolate"}:
            further = self.judge.by_all(item, plan, judged)
            if further is not judged:
                judged = further
                _keep(item, plan, judged)
            if judged.failed:
                message = self._explained(item, plan, judged).message
                if not self.settings.warn:
                    raise OverBudget(message)
        return result

    def _explained(self, item: pytest.Item, plan: Plan, judged: Judged) -> Judged:
        """With who allocated the peak, where that was asked for."""
        if self.settings.memray and self.purpose in {None, "isolate"}:
            sites, text = attribute(item, self.settings.memray_dir, judged.measurement.peak_bytes)
            judged = judged._replace(allocations=sites, explanation=text)
            _keep(item, plan, judged)
        return judged

    def _recording(self) -> AbstractContextManager[object]:
        """Records the test's allocations, where this interpreter was started for that."""
        if self.purpose != "memray":
            return nullcontext()
        from pytest_membudget.measurement.attribution import recording
        from pytest_membudget.plugin.child import ORDERS

        return recording(ORDERS.memray_capture)

    @staticmethod
    def pytest_unconfigure() -> None:
        """Ends the helper process."""
        close_sampler()

    def _probe(self, item: pytest.Item, plan: Plan, budget: Budget) -> Probe | BenchmarkProbe:
        benchmark = getattr(item, "funcargs", {}).get("benchmark")
        if is_benchmark(benchmark):
            return BenchmarkProbe(benchmark, self.settings.interval_s)
        if is_watched(plan, self.settings):
            return guard(item, plan, budget, self.settings)
        judged = budget != Budget() or self.settings.baseline is not None
        return Probe(item.nodeid, interval_s=self.settings.interval_s, settle=judged)

    def _budget_before(self, item: pytest.Item, plan: Plan) -> Budget:
        try:
            budget = budget_of(item, plan.budget, self.settings.default_bytes)
        except ValueError as error:
            pytest.fail(str(error), pytrace=False)
        if isinstance(face := _face(item), Membudget):
            face.budget = budget
        return budget

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


def _budget_after(item: pytest.Item, budget: Budget) -> Budget:
    """The budget that holds now: a test may set its own while it runs."""
    return face.budget if isinstance(face := _face(item), Membudget) else budget


def _face(item: pytest.Item) -> Any:
    return getattr(item, "funcargs", {}).get("membudget")


def _keep(item: pytest.Item, plan: Plan, judged: Judged) -> None:
    """Puts the record where the report finds it, and its figures among the JUnit properties."""
    record = item.stash[RECORD] = record_of(item, plan, judged)
    told = {"membudget_peak_bytes": record.peak_bytes, "membudget_verdict": record.verdict}
    others = [each for each in item.user_properties if each[0] not in told]
    item.user_properties[:] = [*others, *told.items()]
