"""jsonl: one object a line, with numbers, text, a nested object, a list, booleans and nulls."""

from __future__ import annotations

from pytest_membudget.inputs.format import CITIES, CURRENCIES, LAST_IDENTIFIER, Draw, filling

OPENING = b""
_LAST = f'{{"id":{LAST_IDENTIFIER},"note":"'
_END = '"}\n'
SMALLEST_CLOSING = len(_LAST) + len(_END)


def record(draw: Draw, identifier: str) -> str:
    """One payment as an object on its own line."""
    return f"{payment(draw, identifier)}\n"


def payment(draw: Draw, identifier: str) -> str:
    """One payment as a JSON object."""
    checked = draw.pick(("true", "false", "null"))
    return (
        f'{{"id":{identifier},"date":"{draw.date()}","amount":{draw.money(100000)},'
        f'"currency":"{draw.pick(CURRENCIES)}","checked":{checked},'
        f'"account":{{"number":"AC{draw.whole(1000000, 9999999)}","city":"{draw.pick(CITIES)}"}},'
        f'"tags":["{draw.words(1)}","{draw.words(1)}"],"note":"{draw.words(draw.whole(1, 6))}"}}'
    )


def closing(room: int) -> str:
    """A last object whose note takes up the room."""
    return f"{_LAST}{filling(room - SMALLEST_CLOSING)}{_END}"
