"""Arguments checked at the door, so that a nonsense value is named where it was given."""

from __future__ import annotations

import math
import os
from pathlib import Path

from pytest_membudget.errors import UsageError
from pytest_membudget.units import Size, parse_share, parse_size


def size_of(name: str, size: Size) -> int:
    """Bytes of `size`; a `UsageError` (a `ValueError`) that begins with `name` where it is none."""
    try:
        return parse_size(size)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


def share_of(name: str, share: float | str) -> float:
    """A fraction above 0 and at most 1; a `UsageError` that begins with `name` where it is none."""
    try:
        return parse_share(share)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


def factor_of(name: str, factor: float) -> float:
    """A finite number of 0 or more."""
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor < math.inf:
        raise UsageError(f"{name} is {factor!r}; give a finite number, 0 or more, such as 3.0")
    return float(factor)


def count_of(name: str, count: int, *, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        raise UsageError(f"{name} is {count!r}; give a whole number, {least} or more")
    return count


def timeout_of(name: str, timeout_s: float | None) -> float | None:
    """Seconds of 0 or more, or `None` to wait for ever."""
    if timeout_s is None or timeout_s == math.inf:
        return None
    return factor_of(name, timeout_s)


def path_of(name: str, path: str | os.PathLike[str]) -> Path:
    """The path of a file, whether or not there is one."""
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"{name} is {path!r}; give the path of a file")
    return Path(path)
