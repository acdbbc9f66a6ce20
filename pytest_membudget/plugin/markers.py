"""The three markers, read strictly: what cannot be understood is a usage error before any test runs.

A size may be given as text, by parameter, by a callable or by the estimator; `budget_of` makes bytes of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest

from pytest_membudget.errors import MembudgetError, text_of
from pytest_membudget.originals import inspect, os
from pytest_membudget.records.judgement import Budget
from pytest_membudget.units import Tolerance, parse_size, parse_tolerance

ESTIMATE = "estimate"
"""A budget that the estimator gives from the files a test works on."""

SizeRule: TypeAlias = int | str | Callable[..., Any] | None
"""Bytes, `ESTIMATE`, a function that gives a size, or nothing."""

SPELLINGS = {
    "memory_budget": (
        '@pytest.mark.memory_budget("200 MiB", total="1 GB", retained="5 MB", tolerance="20%", isolate=True, hard=True)'
    ),
    "memory_growth": '@pytest.mark.memory_growth(per_call="64 B", timeout_s=10, fresh_fixtures=True)',
    "memory_scales": '@pytest.mark.memory_scales("micro", "small", law="linear", at_most="8 B/B")',
}


class BudgetMark(NamedTuple):
    """A `memory_budget` marker. `off` is `memory_budget(False)`: the test is not measured."""

    peak: SizeRule = None
    total: SizeRule = None
    retained: SizeRule = None
    isolate: bool = False
    hard: bool = False
    timeout_s: float | None = None
    tolerance: Tolerance | None = None
    off: bool = False


class GrowthMark(NamedTuple):
    """A `memory_growth` marker: bytes allowed per call, the time its verdict may take, and whether fixtures are set up for each."""

    per_call_bytes: int = 0
    timeout_s: float = 10.0
    fresh_fixtures: bool = False


class ScalesMark(NamedTuple):
    """A `memory_scales` marker; `at_most` is a slope in bytes of peak per byte of input, as text, `predictors` functions of a scale."""

    names: tuple[str, ...] = ()
    law: str | None = None
    at_most: str | None = None
    predictors: Mapping[str, Callable[[Any], Any] | None] | None = None


def read_budget(mark: pytest.Mark) -> BudgetMark:
    """The marker's arguments.

    Raises:
        ValueError: one of them cannot be understood; names it.
    """
    given = _bind(mark, ("peak",), ("total", "retained", "tolerance", "isolate", "hard", "timeout_s"))
    if given == {"peak": False} and given["peak"] is False:  # 0 is a size
        return BudgetMark(off=True)
    budget = BudgetMark(
        peak=_size_rule(given, "peak"),
        total=_size_rule(given, "total"),
        retained=_size_rule(given, "retained"),
        isolate=_switch(given, "isolate"),
        hard=_switch(given, "hard"),
        timeout_s=_seconds(given, "timeout_s", None),
        tolerance=_tolerance(given, "tolerance"),
    )
    is_without_size = budget.peak is budget.total is budget.retained is None
    if is_without_size and not budget.isolate and budget.tolerance is None:
        raise ValueError(
            "it names no size: give peak, total or retained, or False for a test that is not to be measured"
        )
    if budget.hard and budget.peak is None:
        raise ValueError("argument 'hard' needs a peak to be held to")
    if budget.timeout_s is not None and not budget.isolate:
        raise ValueError("argument 'timeout_s' needs isolate=True")
    return budget


def read_growth(mark: pytest.Mark) -> GrowthMark:
    """The marker's arguments, likewise."""
    given = _bind(mark, ("per_call",), ("timeout_s", "fresh_fixtures"))
    per_call_bytes = _size(given["per_call"], "per_call") if "per_call" in given else 0
    timeout_s = _seconds(given, "timeout_s", 10.0) or 10.0
    return GrowthMark(per_call_bytes, timeout_s, _switch(given, "fresh_fixtures"))


def read_scales(mark: pytest.Mark) -> ScalesMark:
    """The marker's arguments, likewise; whether the scales exist is not asked here."""
    given = _bind(mark, None, ("law", "at_most", "predictors"))
    for name in mark.args:
        if not isinstance(name, str) or not name:
            raise ValueError(f"{name!r} is not the name of a scale")
    law, at_most = given.get("law"), given.get("at_most")
    if law is not None or at_most is not None:
        from pytest_membudget.calibration.growth_law import check_law

        try:
            check_law(law, at_most)
        except (TypeError, ValueError) as error:
            raise ValueError(f"argument 'law' or 'at_most': {error}") from None
    predictors = given.get("predictors")
    if predictors is not None and not isinstance(predictors, Mapping):
        raise ValueError(
            f"argument 'predictors' is {predictors!r}; write named functions of a scale, such as "
            '{"cells": lambda scale: scale.rows * 12}'
        )
    return ScalesMark(tuple(dict.fromkeys(mark.args)), law, at_most, predictors)


READERS: Mapping[str, Callable[[pytest.Mark], Any]] = {
    "memory_budget": read_budget,
    "memory_growth": read_growth,
    "memory_scales": read_scales,
}


def closest_first(item: pytest.Item, name: str) -> list[pytest.Mark]:
    """The test's markers of that name: its parameter's, its own, its class's, its module's."""
    marks = list(item.iter_markers(name))
    parameter_marks: Iterable[Any] = getattr(getattr(item, "callspec", None), "marks", ())
    own = [id(mark) for mark in parameter_marks]
    return sorted(marks, key=lambda mark: id(mark) not in own)


def _bind(mark: pytest.Mark, positional: Sequence[str] | None, keywords: Sequence[str]) -> dict[str, Any]:
    """Arguments by name; `positional` is None where any number of them may be given."""
    names = positional or ()
    for name in mark.kwargs:
        if name not in {*names, *keywords}:
            raise ValueError(f"it has no argument {name!r}; there are {', '.join([*names, *keywords])}")
    if positional is None:
        return dict(mark.kwargs)
    if len(mark.args) > len(names):
        raise ValueError(
            f"argument {mark.args[len(names)]!r} is one too many; name it: {', '.join(keywords)}"
        )
    given = dict(zip(names, mark.args, strict=False))
    for name in given:
        if name in mark.kwargs:
            raise ValueError(f"argument {name!r} is given twice")
    return {**given, **mark.kwargs}


def _size_rule(given: Mapping[str, Any], name: str) -> SizeRule:
    value = given.get(name)
    if value is None or callable(value) or (name == "peak" and value == ESTIMATE):
        return value
    return _size(value, name)


def _size(value: Any, name: str) -> int:
    try:
        return parse_size(value)
    except ValueError as error:
        raise ValueError(f"argument {name!r}: {error}") from None


def _tolerance(given: Mapping[str, Any], name: str) -> Tolerance | None:
    value = given.get(name)
    if value is None or isinstance(value, Tolerance):
        return value
    if not isinstance(value, str):
        raise ValueError(f'argument {name!r} is {value!r}; write a percentage and a size: "10% + 1 MiB"')  # noqa: TRY004 - one error for all
    try:
        return parse_tolerance(value)
    except ValueError as error:
        raise ValueError(f"argument {name!r}: {error}") from None


def _switch(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"argument {name!r} is {value!r}; write True or False")  # noqa: TRY004 - one error for all
    return value


def _seconds(given: Mapping[str, Any], name: str, default: float | None) -> float | None:
    value = given.get(name, default)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= 0:
        raise ValueError(f"argument {name!r} is {value!r}; write seconds above 0, such as 10")
    return float(value)


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
    items: list[Any] = [path for value in funcargs.values() for path in _files(value)]
    request: pytest.FixtureRequest = item._request  # type: ignore[attr-defined]  # noqa: SLF001 - the test's own
    estimator = request.getfixturevalue("memory_estimator")
    if not items:  # text is a path only where nothing else is, and there is such a file
        texts = [value for value in funcargs.values() if isinstance(value, str) and os.path.isfile(value)]
        items = texts if estimator.goes_by_predictors else list(map(Path, texts))
    if not items and estimator.goes_by_predictors:
        items = [value for value in _parameters(item) if _has_features(estimator, value)]
        made = [value for name, value in funcargs.items() if name not in ("memory_estimator", "request")]
        items = items or [value for value in made if _has_features(estimator, value)]
    if not items:
        raise ValueError(
            'memory_budget: "estimate" needs a file among the test\'s arguments, or a parameter that the predictors of its '
            'memory_estimator take, and there is none; take a fixture that returns a path or synthetic_file("1 MB"), or write a size'
        )
    estimate_bytes = (
        estimator.estimate_batch_memory(items, 1)
        if len(items) > 1
        else estimator.estimate_file_memory(items[0])
    )
    return int(estimate_bytes + estimator.first_call_bytes)


def _parameters(item: pytest.Item) -> list[Any]:
    callspec = getattr(item, "callspec", None)
    params: Mapping[str, Any] = callspec.params if callspec is not None else {}
    return [value for name, value in params.items() if name != "memory_estimator"]


def _has_features(estimator: Any, value: Any) -> bool:
    try:
        estimator.features(value)
    except MembudgetError:
        return False
    return True


def _files(value: Any) -> Iterator[Path]:
    """Files in a fixture's value: a path, a synthetic file, or a list of them."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for each in value:
            yield from _files(each)
    elif isinstance(value, os.PathLike):
        path = Path(value)
        if path.is_file():
            yield path
