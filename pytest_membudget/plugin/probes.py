"""Which probe measures a test: a plain one, one that a watchdog listens to, or one that leaves timed rounds alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_membudget.errors import text_of
from pytest_membudget.measurement.probe import Probe
from pytest_membudget.measurement.system.limit import memory_limit
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

        return guard(item, plan, budget, settings)
    judged = budget != Budget() or settings.baseline is not None
    return Probe(item.nodeid, interval_s=settings.interval_s, settle=judged)


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
