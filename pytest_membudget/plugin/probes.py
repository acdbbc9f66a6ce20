"""Which probe measures a test: a plain one, one that a watchdog listens to, or one that leaves timed rounds alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_membudget.measurement.probe import Probe
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.plans import Plan
from pytest_membudget.records.judgement import Budget

if TYPE_CHECKING:
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


def _may_be_ended(plan: Plan, settings: Settings) -> bool:
    """Whether a watchdog may end the test: by its own hard budget, or by the session's share of the limit."""
    return settings.stop_at is not None or (
        plan.budget is not None and plan.budget.hard and not settings.warn
    )
