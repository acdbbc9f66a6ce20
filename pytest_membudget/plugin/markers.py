"""The three markers, read strictly: what cannot be understood is a usage error before any test runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import pytest

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
    """A `memory_scales` marker; `at_most` is a slope in bytes of peak per byte of input, as text."""

    names: tuple[str, ...] = ()
    law: str | None = None
    at_most: str | None = None


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
    given = _bind(mark, None, ("law", "at_most"))
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
    return ScalesMark(tuple(dict.fromkeys(mark.args)), law, at_most)


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
