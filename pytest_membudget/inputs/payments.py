"""Payments as csv, json, jsonl and xml."""

from __future__ import annotations

from pytest_membudget.inputs.format import CITIES, CURRENCIES, LAST_IDENTIFIER, DocumentFormat, Draw


def csv_record(draw: Draw, identifier: str) -> str:
    """A line of RFC 4180, with lone line feeds. A tenth of the notes need quotes."""
    note = draw.words(draw.whole(1, 6))
    if draw.whole(0, 10) == 0:
        note = f'"{note}, called ""{draw.words(1)}"""'
    return (
        f"{identifier},{draw.date()},AC{draw.whole(1000000, 9999999)},{draw.money(100000)},"
        f"{draw.pick(CURRENCIES)},{draw.pick(CITIES)},{note}\n"
    )


def json_payment(draw: Draw, identifier: str) -> str:
    """A JSON object with numbers, text, a nested object, a list, booleans and nulls."""
    checked = draw.pick(("true", "false", "null"))
    return (
        f'{{"id":{identifier},"date":"{draw.date()}","amount":{draw.money(100000)},'
        f'"currency":"{draw.pick(CURRENCIES)}","checked":{checked},'
        f'"account":{{"number":"AC{draw.whole(1000000, 9999999)}","city":"{draw.pick(CITIES)}"}},'
        f'"tags":["{draw.words(1)}","{draw.words(1)}"],"note":"{draw.words(draw.whole(1, 6))}"}}'
    )


def json_record(draw: Draw, identifier: str) -> str:
    """An element of the array, on a line of its own."""
    return f"{json_payment(draw, identifier)},\n"


def jsonl_record(draw: Draw, identifier: str) -> str:
    """An object on a line of its own."""
    return f"{json_payment(draw, identifier)}\n"


def xml_record(draw: Draw, identifier: str) -> str:
    """An element with attributes, children, entities and a comment now and then."""
    comment = "<!-- checked by hand -->" if draw.whole(0, 20) == 0 else ""
    joint = " &amp; " if draw.whole(0, 4) == 0 else " "
    return (
        f'<payment id="{identifier}" date="{draw.date()}">{comment}'
        f'<account city="{draw.pick(CITIES)}">AC{draw.whole(1000000, 9999999)}</account>'
        f'<amount currency="{draw.pick(CURRENCIES)}">{draw.money(100000)}</amount>'
        f"<note>{draw.words(draw.whole(1, 4))}{joint}{draw.words(1)}</note></payment>\n"
    )


# The note of the last payment takes up the room that is left.
CSV = DocumentFormat(
    opening=b"id,date,account,amount,currency,city,note\n",
    record=csv_record,
    last=f"{LAST_IDENTIFIER},2024-12-31,AC1000000,0.00,EUR,Oslo,",
    end="\n",
)
JSON = DocumentFormat(
    opening=b"[\n", record=json_record, last=f'{{"id":{LAST_IDENTIFIER},"note":"', end='"}\n]\n'
)
JSONL = DocumentFormat(
    opening=b"", record=jsonl_record, last=f'{{"id":{LAST_IDENTIFIER},"note":"', end='"}\n'
)
XML = DocumentFormat(
    opening=b'<?xml version="1.0" encoding="UTF-8"?>\n<payments>\n',
    record=xml_record,
    last=f'<payment id="{LAST_IDENTIFIER}"><note>',
    end="</note></payment>\n</payments>\n",
)
