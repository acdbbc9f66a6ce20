"""Readers of the options' texts; a text that cannot be read is a `ValueError` that says what to write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pytest_membudget import units


def _read_count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 1000:
        raise ValueError(f"{text!r} is not a count from 1 to 1000; write a whole number such as 5")
    return int(text)


def _read_milliseconds(text: str) -> float:
    spelling = "write milliseconds from 0.5 to 10000, such as 2"
    try:
        interval_s = float(text) / 1000
    except ValueError:
        raise ValueError(f"{text!r} is not a number; {spelling}") from None
    if not 0.0005 <= interval_s <= 10:
        raise ValueError(f"{text!r} is out of range; {spelling}")
    return interval_s


def _read_names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(names):
        raise ValueError(f"{text!r} holds an empty name; write names with commas between them: micro,small")
    return names


READERS: Mapping[str, Callable[[str], Any]] = {
    "size": units.parse_size,
    "share": units.parse_share,
    "tolerance": units.parse_tolerance,
    "count": _read_count,
    "milliseconds": _read_milliseconds,
    "names": _read_names,
}
"""By the kind of an option, how its text is read."""
