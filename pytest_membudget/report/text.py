"""Finished text, which every format lays out in its own way: made safe to show, put into tables, worded.

1. `clean_text` makes text from outside fit for a terminal: no control characters, ASCII where asked; `Paint` colours ours.
2. `Table` holds rows of finished text; a `Column` says what it shows of an item.
3. The rest are the words and signs that all formats share.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pytest_membudget.records.report import TestRecord
from pytest_membudget.units import format_share, format_size

_CODES = {"red": "31", "green": "32", "yellow": "33", "bold": "1"}
_ASCII = str.maketrans(
    {
        "–": "-",
        "—": "-",
        "…": "...",
        "×": "x",
        "±": "+/-",
        "≤": "<=",
        "≥": ">=",
        "γ": "gamma",
        "η": "eta",
        "µ": "u",
        "→": "->",
    }
)
_INDENT = 12
_COMMAND = re.compile(r"^(\s*)::")

_FIGURES = re.compile(r"\d[\d.,]*(?: [kKMGT]?i?B)?")

T = TypeVar("T")
Row = tuple[str, ...]

NONE = "–"
RANGE = ".."

FAILING = {
    "over": "over budget",
    "killed": "killed by the watchdog",
    "crashed": "crashed",
    "leak": "leaking",
    "regressed": "regressed",
}
"""Verdicts that fail a test, in the order in which they are shown, and what they are called."""


class Paint:
    """Wraps text in a terminal's colour codes, or leaves it as it is."""

    def __init__(self, color: bool) -> None:
        self._color = color

    def __call__(self, text: str, shade: str) -> str:
        """`text` in `shade`: red, green, yellow or bold."""
        return f"\x1b[{_CODES[shade]}m{text}\x1b[0m" if self._color and text else text


def wrap(text: str, width: int, *, indent: int = _INDENT) -> str:
    """`text` in lines of at most `width`, further lines of a paragraph indented."""
    lines: list[str] = []
    for line in text.split("\n"):
        wrapped = textwrap.wrap(
            line, width, subsequent_indent=" " * indent, drop_whitespace=True, break_on_hyphens=False
        )
        lines += wrapped or [""]
    return "\n".join(lines)


def without_commands(text: str) -> str:
    """`text` of which a CI service obeys no line.

    GitHub's runner takes a line that begins with `::`, and `##[` anywhere in one, for a command; a test's name or message
    from a report of others could hide secrets, set variables or close a group.
    """
    return "\n".join(_COMMAND.sub(r"\1\\x3a:", line.replace("##[", r"\x23#[")) for line in text.split("\n"))


def clean_text(text: str, *, ascii_only: bool = False) -> str:
    """`text` without control characters; each stands as its escape."""
    if ascii_only:
        text = text.translate(_ASCII).encode("ascii", "backslashreplace").decode()
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


class Column(NamedTuple, Generic[T]):
    """A column: its title, the text that it shows of an item, and what kind of text that is."""

    title: str
    cell: Callable[[T], str]
    #: Numbers are aligned to the right.
    numeric: bool = False
    #: Names come from outside; they are quoted where a format has markup, and may be shortened.
    name: bool = False


class Table(NamedTuple):
    """Rows of text under their columns, with notes below. `key` is stable, for anchors and tests."""

    key: str
    title: str
    columns: tuple[Column[Any], ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.rows)


def make_table(
    key: str, title: str, columns: Sequence[Column[T]], items: Iterable[T], notes: Iterable[str] = ()
) -> Table:
    """A table with one row for each of `items`."""
    rows = tuple(tuple(column.cell(item) for column in columns) for item in items)
    return Table(key, title, tuple(columns), rows, tuple(notes))


def number(title: str, cell: Callable[[T], str]) -> Column[T]:
    """A column of numbers."""
    return Column(title, cell, numeric=True)


def name(title: str, cell: Callable[[T], str]) -> Column[T]:
    """A column of names from outside: test ids, functions, files."""
    return Column(title, cell, name=True)


def without_figures(caveat: str) -> str:
    """What two caveats have in common that differ by their figures alone."""
    return _FIGURES.sub("#", caveat)


def is_failure(test: TestRecord) -> bool:
    """Whether the test failed although it was not expected to."""
    return test.verdict in FAILING and test.outcome != "xfailed"


def size_or_none(size_bytes: float | None) -> str:
    """The size as text, a dash where there is none."""
    return NONE if size_bytes is None else format_size(size_bytes)


def signed_share(fraction: float) -> str:
    """A relative change with its sign: "+12.3%"."""
    return f"{100 * fraction:+.1f}%"


def rate_text(per_s: float) -> str:
    """Whole numbers from 100 on, three digits below."""
    return f"{per_s:,.0f}" if per_s >= 99.5 else f"{per_s:.3g}"


def peak_text(test: TestRecord) -> str:
    """The proven peak, and the upper figure where they differ."""
    if test.peak_bytes is None:
        return NONE
    proven = format_size(test.peak_bytes)
    upper = proven if test.peak_upper_bytes is None else format_size(test.peak_upper_bytes)
    if upper == proven:
        return proven
    number, _, unit = proven.partition(" ")
    return f"{number}{RANGE}{upper}" if upper.endswith(unit) else f"{proven}{RANGE}{upper}"


def used_text(fraction: float) -> str:
    """A share of the budget: "43.6%", and from ten times on "53x"."""
    return format_share(fraction) if fraction < 9.995 else f"{fraction:,.0f}x"


def verdict_text(test: TestRecord) -> str:
    """The verdict by its name in the JSON report, a dash where none was asked for; of what, where it is not the peak."""
    if test.outcome == "skipped":
        return "skipped"
    if test.verdict == "over" and not _is_over(test.peak_bytes, test.budget_bytes):
        return f"over {_what_is_over(test)}".rstrip()
    return NONE if test.verdict == "none" else test.verdict


def _what_is_over(test: TestRecord) -> str:
    if _is_over(test.total_peak_bytes, test.budget_total_bytes):
        return "total"
    if _is_over(test.retained_bytes, test.budget_retained_bytes):
        return "retained"
    return "law" if test.message.startswith("law=") else ""


def _is_over(size_bytes: int | None, budget_bytes: int | None) -> bool:
    return size_bytes is not None and budget_bytes is not None and size_bytes > budget_bytes


def source_text(test: TestRecord) -> str:
    """How the peak was obtained."""
    if test.source is None:
        return NONE
    return f"{test.source}, isolated" if test.isolated else test.source


def shorten(text: str, width: int) -> str:
    """At most `width` characters; a node id loses the folders at its front first, since its end identifies it."""
    if len(text) <= width:
        return text
    if width < 8:
        return text[:width]
    tail = text[-(width - 3) :]
    for separator in ("/", "::", "_"):
        position = tail.find(separator)
        if 0 <= position <= width // 3:
            return "..." + tail[position:]
    return "..." + tail
