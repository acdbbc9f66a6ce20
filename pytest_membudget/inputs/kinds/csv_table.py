"""csv: payments under a header, RFC 4180 with lone line feeds. A tenth of the notes need quotes."""

from __future__ import annotations

from pytest_membudget.inputs.format import CITIES, CURRENCIES, LAST_IDENTIFIER, Draw, filling

OPENING = b"id,date,account,amount,currency,city,note\n"
_LAST = f"{LAST_IDENTIFIER},2024-12-31,AC1000000,0.00,EUR,Oslo,"
SMALLEST_CLOSING = len(_LAST) + 1


def record(draw: Draw, identifier: str) -> str:
    """One payment on its own line."""
    note = draw.words(draw.whole(1, 6))
    if draw.whole(0, 10) == 0:
        note = f'"{note}, called ""{draw.words(1)}"""'
    return (
        f"{identifier},{draw.date()},AC{draw.whole(1000000, 9999999)},{draw.money(100000)},"
        f"{draw.pick(CURRENCIES)},{draw.pick(CITIES)},{note}\n"
    )


def closing(room: int) -> str:
    """A last payment whose note takes up the room."""
    return f"{_LAST}{filling(room - SMALLEST_CLOSING)}\n"
