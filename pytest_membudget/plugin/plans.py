"""What each collected test asks for, read from its markers before any test runs."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pytest

from pytest_membudget.plugin.markers import (
    READERS,
    SPELLINGS,
    BudgetMark,
    GrowthMark,
    ScalesMark,
    check_rule,
    closest_first,
)
from pytest_membudget.plugin.options import ASKING_FIXTURES, Settings, is_marked

_WATCHED_FIXTURES = ASKING_FIXTURES | {"benchmark"}
"""What a test that takes one of them is measured and judged by."""

_MOST_ERRORS = 20
_PACKAGE = "pytest_membudget"


class Plan(NamedTuple):
    """One test: its name, its place, and what it asks for; a marker that it does not have is `None`.

    `name` is that of the function, with its parameters; `file` is as pytest shows it, and `line` counted from 1, `None` where
    pytest knows no line. `fixtures` are those of `_WATCHED_FIXTURES` that it takes.
    """

    nodeid: str
    name: str
    file: str
    line: int | None
    budget: BudgetMark | None = None
    growth: GrowthMark | None = None
    scales: ScalesMark | None = None
    fixtures: frozenset[str] = frozenset()

    @property
    def isolate(self) -> bool:
        """Whether it runs in a fresh interpreter."""
        return self.budget is not None and self.budget.isolate

    @property
    def is_left_out(self) -> bool:
        """Whether `memory_budget(False)` stands at the test and no other marker asks for a measurement."""
        return self.budget is not None and self.budget.off and self.growth is None and self.scales is None


PLAN = pytest.StashKey[Plan]()


def is_isolated(item: pytest.Item) -> bool:
    """Whether the test is to run in a fresh interpreter."""
    plan = item.stash.get(PLAN, None)
    return plan is not None and plan.isolate


def make_plans(items: Iterable[pytest.Item], errors: list[str], *, measure_all: bool) -> int:
    """Puts a `Plan` into the stash of each test that is to be measured, and says how many there are.

    `errors` are those that were found while tests were collected.

    Raises:
        pytest.UsageError: a marker cannot be understood; names the tests and the arguments.
    """
    errors = [*errors]
    planned = 0
    for item in items:
        marked = is_marked(item)
        if not marked and not measure_all:
            continue
        file, line, _ = item.location
        fixtures = _WATCHED_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        plan = Plan(item.nodeid, item.name, file, None if line is None else line + 1, fixtures=fixtures)
        if marked:
            plan = plan._replace(**_read_marks(item, errors))
        if not plan.is_left_out:
            item.stash[PLAN] = plan
            planned += 1
    if errors:
        more = len(errors) - _MOST_ERRORS
        raise pytest.UsageError(
            "\n".join([*errors[:_MOST_ERRORS], *([f"and {more} more"] if more > 0 else [])])
        )
    return planned


def _read_marks(item: pytest.Item, errors: list[str]) -> dict[str, Any]:
    """The fields of its plan that markers give."""
    found: dict[str, Any] = {}
    for name, read in READERS.items():
        for mark in closest_first(item, name):
            try:
                value = read(mark)
                _check_against_item(value, item)
            except ValueError as error:
                errors.append(f"{item.nodeid}: {name}: {error}; write for example {SPELLINGS[name]}")
            else:
                found.setdefault(name.removeprefix("memory_"), value)
    return found


def _check_against_item(value: BudgetMark | GrowthMark | ScalesMark, item: pytest.Item) -> None:
    if isinstance(value, BudgetMark):
        for name in ("peak", "total", "retained"):
            check_rule(getattr(value, name), name, item)
    elif isinstance(value, ScalesMark) and "memory_scale" not in getattr(item, "fixturenames", ()):
        raise ValueError(
            "the test does not take the fixture memory_scale, so all scales would be the same run"
        )


def load_parts(items: Iterable[pytest.Item], settings: Settings) -> None:
    """Imports what the plans of these tests, and the options, will have used."""
    needed = {module for item in items if PLAN in item.stash for module in _parts_of(item.stash[PLAN])}
    needed.update(_parts_of_session(settings))
    for module in sorted(needed):
        importlib.import_module(f"{_PACKAGE}.{module}")


def _parts_of(plan: Plan) -> Iterator[str]:
    if plan.growth is not None:
        yield "measurement.growth.check"
        yield "plugin.repetition"
    if "memory_scale" in plan.fixtures:
        yield "plugin.scales"
    if "membudget" in plan.fixtures:
        yield "plugin.fixtures"
    if plan.budget is not None and plan.budget.hard:
        yield "measurement.watchdog"


def _parts_of_session(settings: Settings) -> Iterator[str]:
    if settings.stop_at is not None:
        yield "measurement.watchdog"
    if settings.memray:
        yield "plugin.fresh.memray"
    if settings.baseline is not None:
        yield "plugin.baseline_gate"
