"""How a test's call is measured: by a probe, under the watchdog's eyes where it may be ended, or in a further run of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import pytest

from pytest_membudget.errors import WatchdogStop, text_of
from pytest_membudget.measurement.probe import Probe
from pytest_membudget.measurement.process import high_water
from pytest_membudget.measurement.process.reclaim import LITTLE_BYTES, Series
from pytest_membudget.measurement.system.machine import memory_limit
from pytest_membudget.originals import restored, sys
from pytest_membudget.plugin import emergency_report
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.plans import Plan
from pytest_membudget.plugin.running_test import RunningTest
from pytest_membudget.plugin.session_records import shared_folder
from pytest_membudget.records.judgement import Advice, Budget, Judgement
from pytest_membudget.records.measurement import Caveat, Measurement

if TYPE_CHECKING:
    from pytest_membudget.measurement.watchdog import GuardedProbe, KillRecord

    AnyProbe: TypeAlias = "Probe | GuardedProbe | BenchmarkProbe | NoProbe"

_AMPLE = 4
"""A default budget so many times what the process holds needs no garbage collected and no allocator asked before each test."""
_WIDE_BYTES = 100_000_000
_NARROW = Series()
_COMPARED = Series(2 * LITTLE_BYTES)
_WIDE = Series(2 * LITTLE_BYTES, share=0.01)
"""Old garbage that such a test reuses hides little of what it may take, and shows as a caveat: a full collection would take longer."""


def choose_probe(
    test: RunningTest, budget: Budget, settings: Settings
) -> Probe | GuardedProbe | BenchmarkProbe:
    """The probe for one call of the test, not begun yet."""
    plan = test.plan
    if "benchmark" in plan.fixtures and is_benchmark(benchmark := test.value("benchmark")):
        return BenchmarkProbe(benchmark, settings.interval_s)
    if _may_be_ended(plan, settings):
        return guarded_probe(test.config, plan, budget, settings)
    is_compared = settings.baseline is not None
    if plan.budget is None and not (is_compared or settings.strict or "membudget" in plan.fixtures):
        if budget.peak_bytes is None:
            return Probe(plan.nodeid, interval_s=settings.interval_s, series=_WIDE)
        if budget.peak_bytes >= _AMPLE * high_water.resident_bytes():
            return AmpleProbe(plan.nodeid, budget.peak_bytes, _WIDE, settings.interval_s)
    judged, series = is_compared or budget != Budget(), _series_of(budget, is_compared=is_compared)
    return Probe(plan.nodeid, interval_s=settings.interval_s, settle=judged, series=series)


class AmpleProbe(Probe):
    """For the session's default budget where that is several times what this process holds: garbage is left, and malloc seldom asked.

    Whatever the test reuses of memory that others have freed was resident at the start. So where the absolute peak is within the
    budget, the peak above the start is. Where it is not, what was resident at the start goes into the upper figure.
    """

    def __init__(self, label: str, budget_bytes: int, series: Series, interval_s: float | None) -> None:
        super().__init__(label, interval_s=interval_s, series=series)
        self._budget_bytes = budget_bytes

    def finish(self, value: Any = None) -> Measurement:
        """As of any probe, with an upper figure that the budget can be held against."""
        found = super().finish(value)
        if found.total_peak_bytes <= self._budget_bytes or found.peak_bytes > self._budget_bytes:
            return found
        return msgspec.structs.replace(
            found,
            peak_upper_bytes=max(found.peak_upper_bytes, found.total_peak_bytes),
            caveat_records=(*found.caveat_records, Caveat("may-be-reused", found.start_bytes)),
        )


def _series_of(budget: Budget, *, is_compared: bool) -> Series:
    if _is_narrow(budget):
        return _NARROW
    # Garbage that waits for a full collection is in what is resident at the start, and in what a test retains.
    counts_garbage = budget.total_bytes is not None or budget.retained_bytes is not None
    return _COMPARED if is_compared or counts_garbage else _WIDE


def _is_narrow(budget: Budget) -> bool:
    """Whether the budget is so small that a quarter of a megabyte matters."""
    for each in (budget.peak_bytes, budget.total_bytes, budget.retained_bytes):
        if each is not None and each < _WIDE_BYTES:
            return True
    return False


def _may_be_ended(plan: Plan, settings: Settings) -> bool:
    """Whether a watchdog may end the test: by its own hard budget, or by the session's share of the limit."""
    return settings.stop_at is not None or (
        plan.budget is not None and plan.budget.hard and not settings.warn
    )


def begin_safely(test: RunningTest, budget: Budget, settings: Settings) -> AnyProbe:
    """The probe of one call of the test, begun.

    Its own trouble becomes a caveat: whatever a test has done to its process, it must not fail by being measured.
    """
    try:
        probe = choose_probe(test, budget, settings)
        probe.begin()
    except Exception as error:  # of any kind: see above
        return NoProbe(error)
    return probe


def finish_safely(probe: AnyProbe) -> Measurement:
    """What it found; from nothing to all the memory there is where nothing could be."""
    try:
        return probe.finish()
    except Exception as error:  # likewise
        return _nothing_known(error)


class NoProbe:
    """Stands in for a probe that could not begin, and knows why."""

    def __init__(self, trouble: Exception) -> None:
        self._trouble = trouble

    def finish(self) -> Measurement:
        """Nothing is known."""
        return _nothing_known(self._trouble)


def _nothing_known(trouble: Exception) -> Measurement:
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


def is_benchmark(fixture: object) -> bool:
    """Whether this is pytest-benchmark's fixture."""
    return any(kind.__module__ == "pytest_benchmark.fixture" for kind in type(fixture).__mro__)


class BenchmarkProbe:
    """Stands in for the `Probe` of a whole test: nothing is measured while rounds are timed."""

    def __init__(self, benchmark: Any, interval_s: float | None) -> None:
        self.benchmark = benchmark
        self._further_run = Probe(
            "one further run of the benchmarked function", interval_s=interval_s, settle=True
        )
        self._measurement: Measurement | None = None

    def begin(self) -> None:
        """From now on the fixture measures one run more than it times."""
        probe, kind = self, type(self.benchmark)

        class Measured(kind):  # type: ignore[misc, valid-type]
            """The fixture that the test sees."""

            def __call__(self, function_to_benchmark: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
                result = super().__call__(function_to_benchmark, *args, **kwargs)
                probe.measure(function_to_benchmark, args, kwargs)
                return result

            def pedantic(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
                result = super().pedantic(target, *args, **kwargs)
                probe.measure_pedantic(target, *args, **kwargs)
                return result

        self.benchmark.__class__ = Measured

    def measure(
        self, function: Callable[..., Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """One run, whose peak also goes into the benchmark's saved JSON."""
        self._further_run.begin()
        try:
            function(*args, **(kwargs or {}))
        finally:
            self._measurement = self._further_run.finish()
        self.benchmark.extra_info["membudget_peak_bytes"] = self._measurement.peak_bytes
        self.benchmark.extra_info["membudget_peak_upper_bytes"] = self._measurement.peak_upper_bytes

    def measure_pedantic(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        setup: Callable[[], Any] | None = None,
        teardown: Callable[..., Any] | None = None,
        **rounds: Any,
    ) -> None:
        """Likewise, with what prepares and clears each round."""
        prepared = setup() if setup is not None else None
        args, kwargs = prepared if prepared is not None else (args, kwargs)
        self.measure(target, args, kwargs)
        if teardown is not None:
            teardown(*args, **(kwargs or {}))

    def finish(self) -> Measurement:
        """What the further run took; its duration is the mean of the timed rounds, where there were any."""
        if self._measurement is None:
            self._further_run.begin()
            return msgspec.structs.replace(
                self._further_run.finish(), caveat_records=(Caveat("benchmark-not-called"),)
            )
        stats = getattr(self.benchmark, "stats", None)
        mean_s = stats.stats.mean if stats is not None and stats.stats.data else self._measurement.duration_s
        return msgspec.structs.replace(self._measurement, duration_s=mean_s)


def guarded_probe(config: pytest.Config, plan: Plan, budget: Budget, settings: Settings) -> GuardedProbe:
    """The probe of a watched test."""
    from pytest_membudget.measurement.watchdog import Watchdog

    hard = plan.budget is not None and plan.budget.hard and not settings.warn
    with restored():
        folder = shared_folder(config)
    reporting = config.pluginmanager.get_plugin("membudget-reporting")
    with restored():
        if reporting is not None:
            reporting.write_journal()
        stop_bytes = None if settings.stop_at is None else int(settings.stop_at * memory_limit().bytes)

    def save(kill_record: KillRecord) -> None:
        message = f"killed: {kill_record}; it did not stop, so its process was ended"
        emergency_report.save(
            folder,
            emergency_report.killed_record(
                plan.nodeid,
                plan.file,
                plan.line,
                kill_record.peak_bytes,
                message,
                budget_bytes=budget.peak_bytes,
            ),
        )

    watchdog = Watchdog(
        stop_total_bytes=stop_bytes,
        last_words=[
            sys.executable,
            "-m",
            emergency_report.__name__,
            str(folder),
            plan.nodeid,
            plan.file,
            "" if plan.line is None else str(plan.line),
        ],
        on_stuck=save,
    )
    return watchdog.guard(
        plan.nodeid,
        limit_bytes=budget.peak_bytes if hard else None,
        interval_s=settings.interval_s,
        settle=True,
    )


def judge_kill(kill_record: KillRecord, own_error: BaseException | None, *, advises: bool) -> Judgement:
    """The judgement that goes before all others; `advises` where none of those says what to do."""
    # pytest names the test above it, and cuts the line in its short summary.
    lines = [
        f"killed: {str(kill_record).removeprefix(kill_record.label).lstrip()}",
        "  how       the watchdog read the process tree while the test ran",
    ]
    if own_error is not None and not isinstance(own_error, WatchdogStop):
        lines.append(f"            the test then ended with {type(own_error).__name__}: {own_error}")
    return Judgement(
        verdict="killed",
        failed=True,
        finding="\n".join(lines),
        advice=Advice() if advises else None,
        trace=kill_record.stack.rstrip(),
    )
