"""Text from outside made fit for a terminal: no control characters, ASCII where asked, colours only from us."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from pytest_membudget.report.page import Failure, Page
from pytest_membudget.report.tables import Table

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
        "→": "->",
    }
)
_INDENT = 12
_COMMAND = re.compile(r"^(\s*)::")


class Paint:
    """Wraps text in a terminal's colour codes, or leaves it as it is."""

    def __init__(self, color: bool) -> None:
        self._color = color

    def __call__(self, text: str, shade: str) -> str:
        """`text` in `shade`: red, green, yellow or bold."""
        return f"\x1b[{_CODES[shade]}m{text}\x1b[0m" if self._color and text else text


def clean_page(page: Page, *, ascii_only: bool) -> Page:
    """The page without control characters; each stands as its escape."""

    def clean(text: str) -> str:
        return clean_text(text, ascii_only=ascii_only)

    return Page(
        headline=clean(page.headline),
        failures=tuple(
            Failure(
                clean(failure.nodeid),
                "\n".join(clean(line) for line in failure.message.split("\n")),
            )
            for failure in page.failures
        ),
        tables=tuple(clean_table(table, ascii_only=ascii_only) for table in page.tables),
        caveats=tuple(map(clean, page.caveats)),
        environment=tuple((clean(title), clean(text)) for title, text in page.environment),
    )


def clean_table(table: Table, *, ascii_only: bool) -> Table:
    """The table without control characters."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return clean_text(value, ascii_only=ascii_only)
        return tuple(clean(item) for item in value)

    return table._replace(title=clean(table.title), rows=clean(table.rows), notes=clean(table.notes))


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
