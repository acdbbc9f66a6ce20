"""html: a filing whose table holds a table in each row, which holds tables again.

Valid HTML 5 that is well-formed XML as well, so that strict parsers of either read it.
"""

from __future__ import annotations

from pytest_membudget.inputs.format import LAST_IDENTIFIER, Draw, filling

OPENING = (
    b'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><title>Annual filing</title></head>\n'
    b"<body><h1>Notes to the statements</h1>\n<table><tbody>\n"
)
_LAST = f'<tr id="n{LAST_IDENTIFIER}"><td>'
_END = "</td></tr>\n</tbody></table>\n</body></html>\n"
SMALLEST_CLOSING = len(_LAST) + len(_END)


def record(draw: Draw, identifier: str) -> str:
    """One row of the filing: a note with its table of figures, one of which is a table itself."""
    lines = "".join([_line(draw, _figure(draw)) for _ in range(draw.whole(1, 5))])
    details = _table("".join([_line(draw, _figure(draw)) for _ in range(draw.whole(1, 4))]))
    return (
        f'<tr id="n{identifier}"><td>{draw.words(3)}</td>'
        f"<td>{_table(lines + _line(draw, details))}</td></tr>\n"
    )


def closing(room: int) -> str:
    """A last row whose cell takes up the room, and the document's end."""
    return f"{_LAST}{filling(room - SMALLEST_CLOSING)}{_END}"


def _table(lines: str) -> str:
    return f"<table><tbody>{lines}</tbody></table>"


def _line(draw: Draw, cell: str) -> str:
    return f"<tr><td>{draw.words(2)} &amp; {draw.words(1)}</td><td>{_figure(draw)}</td><td>{cell}</td></tr>"


def _figure(draw: Draw) -> str:
    thousands = f"{draw.whole(-999999, 9999999):,}"
    return f"({thousands[1:]})" if thousands.startswith("-") else f"$ {thousands}"
