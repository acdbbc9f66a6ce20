"""What an estimate goes by: how much of an input lies in files, and the predictors that the user names."""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat

from pytest_membudget.errors import UsageError, text_of
from pytest_membudget.records.run import Feature
from pytest_membudget.stats.surfaces import MOST_PREDICTORS
from pytest_membudget.units import format_count, parse_size

Predictor = Callable[[Any], SupportsFloat]
"""A function of the item: its pages, its rows, the square of them. From 0 to 1e30."""

BYTES = "bytes"
"""The predictor that needs no function: the size of the item."""

_LONGEST_ITEM = 80
_MOST = 1e30  # of a predictor's value: the products of three and their squares are finite


class Predictors:
    """Up to three named functions of an item. Where one is `None` only a mapping that names its value will do."""

    def __init__(self, functions: Mapping[str, Predictor | None]) -> None:
        if not isinstance(functions, Mapping):
            raise UsageError(f'predictors={functions!r} names none; write {{"pages": function of the item}}')
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


def named_features(found: int | Mapping[str, float]) -> tuple[Feature, ...]:
    """What an estimate went by as it is kept of a task; nothing for a size, which is kept by itself."""
    return tuple(Feature(*each) for each in found.items()) if isinstance(found, Mapping) else ()


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
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= _MOST:
        limit = (
            "a finite number, 0 or more" if not math.isfinite(number) or number < 0 else f"{_MOST:g} at most"
        )
        raise UsageError(f"the predictor {name!r} of {_shown(item)} is {_shown(value)}; it has to be {limit}")
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


_MOST_ENTRIES = 100_000
"""Files of a folder, and items of a container, that are looked at; more would take longer than the task may."""

_DEEPEST = 4
"""Containers in containers beyond this are data rather than arguments."""

FOLDER = "/"
"""The kind of a folder."""

_COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst", ".lz4", ".br", ".z"})


class InputSize(NamedTuple):
    """Bytes in files, and the kind of the largest of them: the end of its name, such as `.csv` or `.csv.gz`."""

    bytes: int
    kind: str


def input_size(item: Any) -> InputSize | None:
    """The size of an input; `None` where there is no path in it.

    A path that does not exist is none: the caller's function will say what is wrong. A folder counts with all that is
    in it, also while that changes; a folder that holds the working directory, such as "." or "/", does not.
    """
    if isinstance(item, str | bytes | os.PathLike):
        return _path_size(item)
    found = [size for path in _paths(item, _DEEPEST) if (size := _path_size(path)) is not None]
    if not found:
        return None
    return InputSize(sum(size.bytes for size in found), max(found).kind)


def _paths(item: Any, depth: int) -> Iterator[Any]:
    if isinstance(item, str | bytes | os.PathLike):
        yield item
    elif depth and isinstance(item, tuple | list | Mapping):
        members: Iterable[Any] = item.values() if isinstance(item, Mapping) else item
        for member, _ in zip(members, range(_MOST_ENTRIES), strict=False):
            yield from _paths(member, depth - 1)


def _path_size(path: Any) -> InputSize | None:
    with contextlib.suppress(OSError, ValueError):
        name = os.fsdecode(path)
        status = os.stat(name)  # noqa: PTH116 - many small calls: a Path costs more than the answer
        if not stat.S_ISDIR(status.st_mode):
            return InputSize(status.st_size, kind_of(Path(name)))
        if not _holds_working_directory(name):
            return InputSize(_folder_bytes(name), FOLDER)
    return None


def _folder_bytes(folder: str) -> int:
    """What is in a folder; what disappears meanwhile does not count."""
    total_bytes, left, folders = 0, _MOST_ENTRIES, [folder]
    while folders and left > 0:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                left -= 1
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total_bytes += entry.stat().st_size
    return total_bytes


def _holds_working_directory(folder: str) -> bool:
    here = os.path.realpath(folder)
    return os.path.commonpath([here, os.path.realpath(".")]) == here


def kind_of(path: Path) -> str:
    """Such as `.csv` or `.csv.gz`; empty for a name without an end, or with a number there."""
    *_, last = ("", *(suffix.lower() for suffix in path.suffixes))
    if last in _COMPRESSED:
        return kind_of(path.with_suffix("")) + last
    return "" if last[1:].isdigit() else last
