"""Were two sets of figures taken in the same surroundings?"""

from __future__ import annotations

import re

from pytest_membudget.errors import UsageError
from pytest_membudget.records.report import Environment

_MAJOR_AND_MINOR = re.compile(r"\d+\.\d+")
_MOST_NAMED = 3


def environment_differences(base: Environment, here: Environment) -> tuple[str, ...]:
    """In words, each way in which `here` differs from `base`; what one of them does not know is not compared.

    Kernels and Pythons are compared by major and minor version: a patch release moves no peak. The limit is
    left out, since it does not change what a test takes.
    """
    pairs: list[tuple[str, object, object]] = [
        ("system", base.system, here.system),
        ("machine", base.machine, here.machine),
        ("kernel", major_and_minor(base.kernel), major_and_minor(here.kernel)),
        ("Python", major_and_minor(base.python), major_and_minor(here.python)),
        ("libc", base.libc, here.libc),
        ("page size", base.page_size_bytes, here.page_size_bytes),
        ("huge pages", base.transparent_hugepages, here.transparent_hugepages),
        ("cores", base.cores, here.cores),
        *((name, base.packages[name], here.packages.get(name, "none")) for name in sorted(base.packages)),
    ]
    told = [
        f"{title} {_short(old)} there, {_short(new)} here"
        for title, old, new in pairs
        if old and new and old != new
    ]
    if base.system and here.system and base.allocator != here.allocator:
        told.append(
            f"allocator settings {_short(base.allocator or 'none')} there, {_short(here.allocator or 'none')} here"
        )
    return tuple(told)


def check_environment(
    base: Environment, here: Environment, *, path: str, strict: bool = False
) -> tuple[str, ...]:
    """The differences, as caveats for a comparison.

    Raises:
        UsageError: there are some, and `strict` refuses a foreign baseline.
    """
    differences = environment_differences(base, here)
    if differences and strict:
        raise UsageError(
            f"the baseline {path} is from another environment ({in_short(differences)}), which --membudget-strict refuses; "
            "take one here with --membudget-update-baseline, or drop --membudget-strict"
        )
    return differences


def in_short(differences: tuple[str, ...]) -> str:
    """The first differences and how many more there are, in one line."""
    named = "; ".join(differences[:_MOST_NAMED])
    more = len(differences) - _MOST_NAMED
    return f"{named}; and {more} more" if more > 0 else named


def major_and_minor(version: str) -> str:
    """The first two numbers of a version; the text itself where it has none."""
    match = _MAJOR_AND_MINOR.search(version)
    return match[0] if match else version


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
