"""Budgets that depend on the test: given by a function of its parameters and fixtures, or by the estimator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_membudget.errors import text_of
from pytest_membudget.originals import inspect, os
from pytest_membudget.plugin.markers import ESTIMATE, BudgetMark, SizeRule
from pytest_membudget.records.judgement import Budget
from pytest_membudget.units import parse_size


def check_rule(rule: SizeRule, name: str, item: pytest.Item) -> None:
    """Refuses a function whose parameters the test cannot fill.

    Raises:
        ValueError: names the argument and the parameter.
    """
    if not callable(rule):
        return
    known = {"item", *getattr(item, "fixturenames", ())}
    required = _required(rule)
    unknown = [parameter for parameter in required if parameter not in known]
    if unknown and len(required) > 1:
        raise ValueError(
            f"argument {name!r} is a function of {unknown[0]!r}, which the test does not take; its parameters may "
            "be named like the test's own, or item"
        )


def budget_of(item: pytest.Item, mark: BudgetMark | None, default_bytes: int | None) -> Budget:
    """The budget in bytes; called after the test's fixtures were made.

    Raises:
        ValueError: a function failed or gave no size, or there is no file to estimate for.
    """
    if mark is None or mark.peak is mark.total is mark.retained is None:
        return Budget(peak_bytes=default_bytes)
    return Budget(
        peak_bytes=_bytes_of(mark.peak, "peak", item),
        total_bytes=_bytes_of(mark.total, "total", item),
        retained_bytes=_bytes_of(mark.retained, "retained", item),
    )


def _bytes_of(rule: SizeRule, name: str, item: pytest.Item) -> int | None:
    if rule == ESTIMATE:
        return _estimate(item)
    if not callable(rule):
        return None if rule is None else parse_size(rule)
    try:
        return parse_size(_call(rule, item))
    except Exception as error:  # the user's function may raise anything, and its test has to say what
        raise ValueError(
            f"memory_budget: the function given as {name!r} has no answer for this test: "
            f"{type(error).__name__}: {text_of(error)}"
        ) from error


def _call(rule: Callable[..., Any], item: pytest.Item) -> Any:
    """Fills parameters by name; a single one of an unknown name is the item itself."""
    values = {**getattr(item, "funcargs", {}), "item": item}
    names = _required(rule)
    if len(names) == 1:
        return rule(values.get(names[0], item))
    return rule(*(values[name] for name in names))


def _required(rule: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(rule).parameters.values()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind in positional]


def _estimate(item: pytest.Item) -> int:
    """What the estimator of this test expects for its file; of several, one after the other, its base and the largest.

    A calibration is of a warm worker, and a test may be the first call in its process: what that takes beyond is added.
    """
    funcargs: Mapping[str, Any] = getattr(item, "funcargs", {})
    paths = [path for value in funcargs.values() for path in _files(value)]
    if not paths:
        raise ValueError(
            'memory_budget: "estimate" needs a file among the test\'s arguments, and there is none; take synthetic_file, '
            "or a fixture that gives a path, or write a size"
        )
    request: pytest.FixtureRequest = item._request  # type: ignore[attr-defined]  # noqa: SLF001 - the test's own
    estimator = request.getfixturevalue("memory_estimator")
    return int(
        estimator.estimate_batch_memory(paths, 1)
        if len(paths) > 1
        else estimator.estimate_file_memory(paths[0]) + estimator.first_call_bytes
    )


def _files(value: Any) -> Iterator[Path]:
    """Files in a fixture's value: a path, a synthetic file, or a list of them."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for each in value:
            yield from _files(each)
    elif isinstance(value, os.PathLike):
        path = Path(value)
        if path.is_file():
            yield path
