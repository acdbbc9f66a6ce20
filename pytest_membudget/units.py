"""Sizes, shares and tolerances as text, and back. Inside the package a size is an `int` of bytes."""

from __future__ import annotations

import re
from decimal import Decimal
from operator import index
from typing import NamedTuple, SupportsIndex

Size = SupportsIndex | str
"""What a caller may write for a size: whole bytes, or text such as "200 MiB"."""

BYTES_PER_UNIT = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
LARGEST_BYTES = 2**63 - 1

# "200M", "4G" and "512Mi" as well, as Kubernetes writes them; Docker's 4g is 4GiB here.
_FACTORS = {
    spelling: factor
    for unit, factor in BYTES_PER_UNIT.items()
    for spelling in (unit.lower(), unit.lower().removesuffix("b"))
    if spelling
}
_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})\s*([A-Za-z]*)\s*", re.ASCII)
_SHARE = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{0,9})?)\s*%\s*", re.ASCII)
_SPELLING = 'write a number and a unit, such as "200 MiB" or "1.5 GB" (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB; the final B may be left out)'


class Tolerance(NamedTuple):
    """How far a figure may rise: `share` of the base plus `absolute_bytes`."""

    share: float
    absolute_bytes: int

    def allowed_bytes(self, base_bytes: int) -> int:
        """The largest figure that still counts as `base_bytes`."""
        return base_bytes + int(base_bytes * self.share) + self.absolute_bytes

    def __str__(self) -> str:
        """As `parse_tolerance` reads it: "10% + 1.00 MiB"."""
        return f"{100 * self.share:.4g}% + {format_size(self.absolute_bytes)}"


def parse_size(size: Size) -> int:
    """Bytes of `size`, rounded down to whole bytes.

    Raises:
        ValueError: no unit, an unknown unit, a negative or an absurdly large size, or not a size at all.
    """
    if not isinstance(size, str):
        return _whole_bytes(size)
    match = _NUMBER_AND_UNIT.fullmatch(size)
    if match is None:
        raise ValueError(f"{_shown(size)} is not a size; {_SPELLING}")
    number, unit = match.groups()
    if not unit:
        raise ValueError(f"{_shown(size)} has no unit; {_SPELLING}")
    factor = _FACTORS.get(unit.lower())
    if factor is None:
        raise ValueError(f"{_shown(size)} has the unknown unit {_shown(unit)}; {_SPELLING}")
    return _bounded(int(Decimal(number) * factor), size)


def parse_size_range(text: str) -> tuple[int, ...]:
    """The sizes of "1MB..16MB" (doubling from the first to the last, both ends included) or of "1MB,3MB" (as listed).

    Raises:
        ValueError: a size cannot be read, a range begins at zero, or its end lies below its beginning.
    """
    first_text, dots, last_text = text.partition("..")
    if not dots:
        return tuple(parse_size(part) for part in text.split(","))
    first, last = parse_size(first_text), parse_size(last_text)
    if not 0 < first <= last:
        raise ValueError(f'{_shown(text)} does not go up from above zero; write it as "1MB..16MB"')
    sizes = [first]
    while sizes[-1] * 2 < last:
        sizes.append(sizes[-1] * 2)
    return (*sizes, last) if last > sizes[-1] else tuple(sizes)


def parse_share(share: float | str) -> float:
    """A share as a fraction: 0.7 for `0.7`, `"0.7"` or `"70%"`.

    Raises:
        ValueError: not a number, not above 0, or above 1 (as a fraction) or 100%.
    """
    spelling = 'write "70%" or 0.7'
    match = _SHARE.fullmatch(share) if isinstance(share, str) else None
    try:
        fraction = float(match[1]) / 100 if match else float(share)
    except (TypeError, ValueError):
        raise ValueError(f"{_shown(share)} is not a share; {spelling}") from None
    if not 0 < fraction <= 1:
        raise ValueError(f"{_shown(share)} is not above 0 and at most 100%; {spelling}")
    return fraction


def parse_tolerance(text: str) -> Tolerance:
    """A tolerance such as "10% + 1 MiB", "10%" or "1 MiB".

    Raises:
        ValueError: a part is neither a share nor a size, or is given twice.
    """
    share: float | None = None
    absolute_bytes: int | None = None
    for part in text.split("+"):
        match = _SHARE.fullmatch(part)
        if match and share is None:
            share = float(match[1]) / 100
        elif not match and absolute_bytes is None:
            absolute_bytes = _tolerated_bytes(part, text)
        else:
            raise ValueError(f'{_shown(text)} names one part twice; write a share and a size: "10% + 1 MiB"')
    return Tolerance(share or 0.0, absolute_bytes or 0)


def _tolerated_bytes(part: str, text: str) -> int:
    try:
        return parse_size(part)
    except ValueError as error:
        found = str(error).partition(";")[0]
        raise ValueError(
            f'{_shown(text)} is not a tolerance: {found}; write a share and a size: "10% + 1 MiB"'
        ) from None


def format_size(size_bytes: float) -> str:
    """Three significant digits in binary units: "187 MiB", "1.50 GiB", "512 B"; the sign is kept."""
    magnitude = abs(size_bytes)
    sign = "-" if size_bytes < 0 else ""
    if round(magnitude) < 1024:
        return f"{sign}{magnitude:.3g} B" if magnitude < 100 else f"{sign}{magnitude:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        magnitude /= 1024
        if magnitude < 999.5 or unit == "TiB":
            break
    decimals = 2 if magnitude < 9.995 else 1 if magnitude < 99.95 else 0
    return f"{sign}{magnitude:.{decimals}f} {unit}"


def format_as_written(size_bytes: int) -> str:
    """A size that a user chose, as it was probably written: "20 MB" or "19.1 MiB".

    Powers of 1000 where it is a number of at most three digits in them, else as `format_size`.
    """
    for unit in ("TB", "GB", "MB", "kB"):
        number = Decimal(size_bytes) / BYTES_PER_UNIT[unit]
        if number >= 1:
            digits = number.normalize()
            return f"{digits:f} {unit}" if len(digits.as_tuple().digits) <= 3 else format_size(size_bytes)
    return format_size(size_bytes)


def format_share(fraction: float) -> str:
    """One decimal and a percent sign: "43.6%"."""
    return f"{100 * fraction:.1f}%"


def format_duration(duration_s: float) -> str:
    """Three significant digits with the unit that suits: "12.3 ms", "4.07 s", "5.8 min"."""
    if duration_s < 1:
        return f"{duration_s * 1000:.3g} ms"
    return f"{duration_s:.3g} s" if duration_s < 120 else f"{duration_s / 60:.1f} min"


def format_count(count: int, noun: str) -> str:
    """So many of something, in words: "1 process", "12 processes", "1,200 tests"."""
    plural = f"{noun}es" if noun.endswith(("s", "ch")) else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def format_number(value: float) -> str:
    """A plain number: "12.5", "2,064,993"; without decimals where six digits stand before them."""
    return f"{value:,g}" if abs(value) < 100_000 else f"{value:,.0f}"


def _whole_bytes(size: SupportsIndex) -> int:
    if isinstance(size, bool):
        raise ValueError(f"{size} is not a size; {_SPELLING}")  # noqa: TRY004 - every bad size is a ValueError
    try:
        return _bounded(index(size), size)
    except TypeError:
        raise ValueError(f"{_shown(size)} is not a size; {_SPELLING}, or whole bytes as an int") from None


def _bounded(size_bytes: int, size: object) -> int:
    if size_bytes < 0:
        raise ValueError(f"{_shown(size)} is negative; {_SPELLING}")
    if size_bytes > LARGEST_BYTES:
        raise ValueError(f"{_shown(size)} is more than any machine has ({LARGEST_BYTES} B); {_SPELLING}")
    return size_bytes


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
