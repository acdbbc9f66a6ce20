"""What is known of an item before it runs: its size in bytes, and the predictors that the user names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, SupportsFloat

from pytest_membudget.errors import UsageError, text_of
from pytest_membudget.runtime.prediction.input_size import input_size
from pytest_membudget.stats.surfaces import MOST_PREDICTORS
from pytest_membudget.units import format_count, parse_size

Predictor = Callable[[Any], SupportsFloat]
"""A function of the item: its pages, its rows, the square of them. Finite and not negative."""

BYTES = "bytes"
"""The predictor that needs no function: the size of the item."""

_LONGEST_ITEM = 80


class Predictors:
    """Up to three named functions of an item. Where one is `None` only a mapping that names its value will do."""

    def __init__(self, functions: Mapping[str, Predictor | None]) -> None:
        if not 1 <= len(functions) <= MOST_PREDICTORS:
            raise UsageError(
                f"{format_count(len(functions), 'predictor')} given; name one to {MOST_PREDICTORS}"
            )
        for name, function in functions.items():
            if not isinstance(name, str) or not name.strip():
                raise UsageError(f"predictor {name!r} has no name; give text, such as 'pages'")
            if function is not None and not callable(function):
                raise UsageError(f"predictor {name!r} is {function!r}; give a function of the item")
        self._functions = {
            name: size_of_item if function is None and name == BYTES else function
            for name, function in functions.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        """In the order given."""
        return tuple(self._functions)

    def values(self, item: Any, names: tuple[str, ...] | None = None) -> dict[str, float]:
        """The predictors of `item`, or those of these names; of a mapping of their names its own values.

        Raises:
            UsageError: one fails, is no number of 0 or more, or has no function.
        """
        wanted = self.names if names is None else names
        if isinstance(item, Mapping) and all(name in item for name in wanted):
            return {name: _checked(name, item[name], item) for name in wanted}
        return {name: _value(name, self._functions[name], item) for name in wanted}


def _value(name: str, function: Predictor | None, item: Any) -> float:
    if function is None:
        raise UsageError(
            f"the predictor {name!r} has no function here, so nothing is known of {_shown(item)}; give a mapping such as "
            f"{{{name!r}: 12}}, or the function: load_calibration(path, predictors={{{name!r}: function}}), "
            f"--predictor {name}=MODULE:FUNCTION"
        )
    try:
        found = function(item)
    except UsageError:
        raise
    except Exception as error:  # the user's function may raise anything
        raise UsageError(
            f"the predictor {name!r} fails on {_shown(item)}: {type(error).__name__}: {text_of(error)}"
        ) from error
    return _checked(name, found, item)


def _checked(name: str, value: Any, item: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise UsageError(
            f"the predictor {name!r} of {_shown(item)} is {value!r}; it has to be a finite number, 0 or more"
        )
    return number


def size_of_item(item: Any) -> int:
    """Bytes of an item that is a size (``5_000_000``, ``"5 MB"``), a path, or holds paths.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(item, Mapping) and set(item) == {BYTES}:
        return size_of_item(item[BYTES])
    try:
        return parse_size(item)
    except ValueError as error:
        size = input_size(item)
        if size is not None:
            return size.bytes
        if isinstance(item, str | int | float):
            raise UsageError(str(error)) from None
    raise UsageError(
        f"{_shown(item)} is no path and holds none, so it has no size in bytes; name what its memory follows: "
        'predictors={"n": function of the item}'
    )


def _shown(item: Any) -> str:
    try:
        text = repr(item)
    except Exception:  # the user's own object
        text = f"a {type(item).__name__}"
    return text if len(text) <= _LONGEST_ITEM else text[: _LONGEST_ITEM - 3] + "..."
