"""Measures the call phase of each planned test and fails it where it took too much.

The start lies after the test's fixtures. The test's own failure always comes first: what was measured is then
recorded and judged, but raises nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_membudget.errors import text_of
from pytest_membudget.measurement.probe import Probe
from pytest_membudget.measurement.system.machine import memory_limit
from pytest_membudget.originals import restored
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.plans import Plan
from pytest_membudget.records.caveats import Caveat
from pytest_membudget.records.judgement import Budget
from pytest_membudget.records.measurement import Measurement

if TYPE_CHECKING:
    from pytest_membudget.measurement.watchdog.listener import KillRecord
    from pytest_membudget.measurement.watchdog.watchdog import GuardedProbe
    from pytest_membudget.plugin.benchmarking import BenchmarkProbe


from collections.abc import Generator
from time import perf_counter  # its own reference: a test may have frozen the clock
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_membudget.errors import WatchdogStop
from pytest_membudget.measurement.process import heap
from pytest_membudget.measurement.process.high_water import restore_getrusage
from pytest_membudget.measurement.process.reclaim import at_end, collector
from pytest_membudget.measurement.tree.sampler import close_sampler, sampler
from pytest_membudget.measurement.watchdog.threads import forget_frames
from pytest_membudget.plugin.fresh.request import Purpose
from pytest_membudget.plugin.judge import Judge, Judged, OverBudget, fail_at_test, record_of, tell_shortly
from pytest_membudget.plugin.markers import budget_of
from pytest_membudget.plugin.plans import PLAN, load_parts
from pytest_membudget.plugin.report.attach import attach
from pytest_membudget.records.report import TestRecord

if TYPE_CHECKING:
    from pytest_membudget.measurement.watchdog.listener import KillRecord
    from pytest_membudget.plugin.fixtures.membudget import Membudget


_JUDGING_S = pytest.StashKey[float]()
RECORD = pytest.StashKey[TestRecord | None]()


class Measuring:
    """The hooks of the process that runs the tests. `purpose` is why a fresh interpreter was started, `None` elsewhere."""

    def __init__(self, settings: Settings, judge: Judge, purpose: Purpose | None) -> None:
        self.settings = settings
        self.judge = judge
        self.purpose = purpose

    # The innermost wrapper, so that what other plugins do around a call is not counted as the test's.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Measures, records, judges; raises only where the test itself passed."""
        plan = item.stash.get(PLAN, None)
        if plan is None or (plan.isolate and self.purpose is None):
            return (yield)
        item.stash[RECORD] = None
        budget = self._budget_before(item, plan)
        if self.purpose == "memray":
            return (yield from _recording())
        probe = SafeProbe(lambda: choose_probe(item, plan, budget, self.settings))
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
            judged = self.judge.by_budget(measurement, _budget_after(item, budget))
            if probe.bite is not None:
                self._fail_killed(item, plan, judged, probe.bite, own_error)
            _keep(item, plan, judged)
        if self.purpose == "scale":
            _leave_row(item, judged)
        if self.purpose in {None, "isolate"}:
            self._hold_against_all(item, plan, judged)
        return result

    def _hold_against_all(self, item: pytest.Item, plan: Plan, judged: Judged) -> None:
        """Judges a test that passed by itself.

        Raises:
            OverBudget: it took too much, by any judgement.
        """
        started_s = perf_counter()
        further = self.judge.by_all(item, plan, judged)
        item.stash[_JUDGING_S] = perf_counter() - started_s
        if further is not judged:
            _keep(item, plan, further)
        if further.failed:
            message = self._explained(item, plan, further).message
            item.stash[_JUDGING_S] = perf_counter() - started_s
            if not self.settings.warn:
                fail_at_test(item, message)

    def _fail_killed(
        self, item: pytest.Item, plan: Plan, judged: Judged, bite: KillRecord, own_error: BaseException | None
    ) -> NoReturn:
        """Fails a test that the watchdog ended, whatever the test itself made of that."""
        from pytest_membudget.plugin.watchdog import judge_bite

        judged = judged.with_judgement(judge_bite(bite, own_error, advises=not judged.failed))
        _keep(item, plan, judged)
        message = self._explained(item, plan, judged).message
        if own_error is None:
            fail_at_test(item, message)
        # A debugger opens where the test was stopped.
        raise OverBudget(message).with_traceback(own_error.__traceback__) from None

    def _explained(self, item: pytest.Item, plan: Plan, judged: Judged) -> Judged:
        """The same judgement, with who allocated the peak where `--membudget-memray` asks for that."""
        if self.settings.memray and self.purpose in {None, "isolate"}:
            from pytest_membudget.plugin.fresh.memray import attribute

            with restored():
                sites, text = attribute(item, self.settings.memray_dir, judged.measurement.peak_bytes)
            judged = judged._replace(allocations=sites, explanation=text)
            _keep(item, plan, judged)
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
    def pytest_unconfigure() -> None:
        """Ends the helper process, and reports what finalizers of earlier tests raised while ours collected."""
        close_sampler()
        restore_getrusage()
        for each in (collector, at_end):
            each.report_deferred()

    def _budget_before(self, item: pytest.Item, plan: Plan) -> Budget:
        try:
            budget = budget_of(item, plan.budget, self.settings.default_bytes)
        except ValueError as error:
            pytest.fail(str(error), pytrace=False)
        if (face := _face(item)) is not None:
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
        if call.excinfo is not None:
            tell_shortly(report, item, call.excinfo.value)
        attach(report, item.stash.get(RECORD, None) if report.when == "call" else None)
        if report.when == "call":
            # Reruns and repetitions that a judgement needed are not the test's own time.
            report.duration = max(0.0, report.duration - item.stash.get(_JUDGING_S, 0.0))
        return report


def _recording() -> Generator[None, Any, Any]:
    """Runs the test under memray, in the fresh interpreter that was started for that."""
    from pytest_membudget.measurement.fresh.memray_run import recording
    from pytest_membudget.plugin.fresh.child_session import ORDERS

    with recording(ORDERS.memray_capture):
        return (yield)


def _leave_row(item: pytest.Item, judged: Judged) -> None:
    """Leaves the row of a scale for the session that ordered it again."""
    from pytest_membudget.plugin.scales import leave_row, scale_of

    scale = scale_of(item)
    if scale is not None:
        with restored():
            leave_row(item, scale, judged.measurement, judged.budget)


def _budget_after(item: pytest.Item, budget: Budget) -> Budget:
    """The budget that holds now: a test may set its own while it runs."""
    face = _face(item)
    return budget if face is None else face.budget


def _face(item: pytest.Item) -> Membudget | None:
    """The fixture that the test sees and sets its budget by, where it takes it."""
    face = getattr(item, "funcargs", {}).get("membudget")
    if face is None:
        return None
    from pytest_membudget.plugin.fixtures.membudget import Membudget

    return face if isinstance(face, Membudget) else None


def _keep(item: pytest.Item, plan: Plan, judged: Judged) -> None:
    """Puts the record where the report finds it, and its figures among the JUnit properties."""
    record = item.stash[RECORD] = record_of(plan, judged)
    told = {"membudget_peak_bytes": record.peak_bytes, "membudget_verdict": record.verdict}
    others = [each for each in item.user_properties if each[0] not in told]
    item.user_properties[:] = [*others, *told.items()]


def choose_probe(
    item: pytest.Item, plan: Plan, budget: Budget, settings: Settings
) -> Probe | GuardedProbe | BenchmarkProbe:
    """The probe for one call of the test, not begun yet."""
    benchmark = getattr(item, "funcargs", {}).get("benchmark")
    if benchmark is not None:
        from pytest_membudget.plugin.benchmarking import BenchmarkProbe, is_benchmark

        if is_benchmark(benchmark):
            return BenchmarkProbe(benchmark, settings.interval_s)
    if _may_be_ended(plan, settings):
        from pytest_membudget.plugin.watchdog import guard

        return guard(item.config, plan, budget, settings)
    judged = budget != Budget() or settings.baseline is not None
    return Probe(plan.nodeid, interval_s=settings.interval_s, settle=judged)


class SafeProbe:
    """A probe whose own trouble becomes a caveat: whatever a test has done to its process, it must not fail by being measured.

    Args:
        choose: makes the probe.
    """

    def __init__(self, choose: Callable[[], Probe | GuardedProbe | BenchmarkProbe]) -> None:
        self._choose = choose
        self._probe: Probe | GuardedProbe | BenchmarkProbe | None = None
        self._trouble: Exception | None = None

    @property
    def bite(self) -> KillRecord | None:
        """What the watchdog did, where there is one."""
        return getattr(self._probe, "bite", None)

    def begin(self) -> None:
        """Begins the measurement, where that is possible."""
        try:
            probe = self._choose()
            probe.begin()
            self._probe = probe
        except Exception as error:  # of any kind: see above
            self._trouble = error

    def finish(self) -> Measurement:
        """What was found; from nothing to all the memory there is where nothing could be."""
        if self._probe is not None:
            try:
                return self._probe.finish()
            except Exception as error:  # likewise
                self._trouble = error
        return _nothing_known(self._trouble)


def _nothing_known(trouble: Exception | None) -> Measurement:
    with restored():
        limit_bytes = memory_limit().bytes
    return Measurement(
        peak_bytes=0,
        peak_upper_bytes=limit_bytes,
        total_peak_bytes=0,
        start_bytes=0,
        end_bytes=0,
        duration_s=0.0,
        processes=1,
        source="sampled",
        caveat_records=(Caveat("not-measured", detail=f"{type(trouble).__name__}: {text_of(trouble)}"),),
    )


def _may_be_ended(plan: Plan, settings: Settings) -> bool:
    """Whether a watchdog may end the test: by its own hard budget, or by the session's share of the limit."""
    return settings.stop_at is not None or (
        plan.budget is not None and plan.budget.hard and not settings.warn
    )
