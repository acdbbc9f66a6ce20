"""Which modules the tests of a session will need, so that none is imported while a test has replaced what imports use."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator

import pytest

from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.plans import PLAN, Plan


def load_parts(items: Iterable[pytest.Item], settings: Settings) -> None:
    """Imports what the plans of these tests, and the options, will have used."""
    needed = {module for item in items if PLAN in item.stash for module in _parts_of(item, item.stash[PLAN])}
    needed.update(_parts_of_session(settings))
    for module in sorted(needed):
        importlib.import_module(f"pytest_membudget.plugin.{module}")


def _parts_of(item: pytest.Item, plan: Plan) -> Iterator[str]:
    fixtures = getattr(item, "fixturenames", ())
    if plan.growth is not None:
        yield "growth"
    if "memory_scale" in fixtures:
        yield from ("scales.rows", "scales.law")
    if "membudget" in fixtures:
        yield "fixtures.membudget"
    if "benchmark" in fixtures:
        yield "benchmarking"
    if plan.budget is not None and plan.budget.hard:
        yield "watchdog"


def _parts_of_session(settings: Settings) -> Iterator[str]:
    if settings.stop_at is not None:
        yield "watchdog"
    if settings.memray:
        yield "fresh.memray"
    if settings.baseline is not None:
        yield "baseline_gate"
