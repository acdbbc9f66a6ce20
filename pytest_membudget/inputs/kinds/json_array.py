"""json: one array of the objects that `json_lines` makes, one object a line."""

from __future__ import annotations

from pytest_membudget.inputs.format import Draw
from pytest_membudget.inputs.kinds import json_lines

OPENING = b"[\n"
_END = "]\n"
SMALLEST_CLOSING = json_lines.SMALLEST_CLOSING + len(_END)


def record(draw: Draw, identifier: str) -> str:
    """One payment as an element of the array."""
    return f"{json_lines.payment(draw, identifier)},\n"


def closing(room: int) -> str:
    """A last object whose note takes up the room, and the array's end."""
    return f"{json_lines.closing(room - len(_END))}{_END}"
