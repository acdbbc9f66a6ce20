"""xml: payments with attributes, child elements, entities and a comment now and then, under one root."""

from __future__ import annotations

from pytest_membudget.inputs.format import CITIES, CURRENCIES, LAST_IDENTIFIER, Draw, filling

OPENING = b'<?xml version="1.0" encoding="UTF-8"?>\n<payments>\n'
_LAST = f'<payment id="{LAST_IDENTIFIER}"><note>'
_END = "</note></payment>\n</payments>\n"
SMALLEST_CLOSING = len(_LAST) + len(_END)


def record(draw: Draw, identifier: str) -> str:
    """One payment element."""
    comment = "<!-- checked by hand -->" if draw.whole(0, 20) == 0 else ""
    joint = " &amp; " if draw.whole(0, 4) == 0 else " "
    return (
        f'<payment id="{identifier}" date="{draw.date()}">{comment}'
        f'<account city="{draw.pick(CITIES)}">AC{draw.whole(1000000, 9999999)}</account>'
        f'<amount currency="{draw.pick(CURRENCIES)}">{draw.money(100000)}</amount>'
        f"<note>{draw.words(draw.whole(1, 4))}{joint}{draw.words(1)}</note></payment>\n"
    )


def closing(room: int) -> str:
    """A last payment whose note takes up the room, and the root's end."""
    return f"{_LAST}{filling(room - SMALLEST_CLOSING)}{_END}"
