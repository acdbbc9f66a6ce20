"""The kinds of file that can be made to order: payments as csv, json, jsonl and xml, then longer documents.

Filings come as html, simulation reports as text, molecules as smiles.
"""

from __future__ import annotations

from collections.abc import Mapping

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


# Structures are chains of two-valent groups between one-valent ends, so that every atom keeps its valence.
_STARTS = (
    "C",
    "CC",
    "CC(C)",
    "OCC",
    "NCC",
    "FC(F)(F)",
    "N#CC",
    "c1ccccc1",
    "Clc1ccc(cc1)",
    "Cc1ccc(cc1)",
    "C1CCCC1",
)
_GROUPS = (
    "C", "CC", "C(C)C", "C(=O)N", "C(=O)OC", "NC(=O)", "COC", "CSC", "S(=O)(=O)N", "c1ccc(cc1)", "c1cccc(c1)",
    "c1cnc(nc1)", "N1CCN(CC1)", "C1CCC(CC1)", "C(O)C", "C(N)C", "C=C", "c1ccc2cc(ccc2c1)", "[C@H](C)C", "[C@@H](O)C",
)  # fmt: skip
_ENDS = (
    "C",
    "O",
    "N",
    "F",
    "Cl",
    "Br",
    "C#N",
    "C(=O)O",
    "C(F)(F)F",
    "c1ccccc1",
    "c1ccncc1",
    "C1CC1",
    "N(C)C",
)


def html_record(draw: Draw, identifier: str) -> str:
    """One row of the filing: a note with its table of figures, one of which is a table itself."""
    lines = "".join([_line(draw, _figure(draw)) for _ in range(draw.whole(1, 5))])
    details = _table("".join([_line(draw, _figure(draw)) for _ in range(draw.whole(1, 4))]))
    return (
        f'<tr id="n{identifier}"><td>{draw.words(3)}</td>'
        f"<td>{_table(lines + _line(draw, details))}</td></tr>\n"
    )


def _table(lines: str) -> str:
    return f"<table><tbody>{lines}</tbody></table>"


def _line(draw: Draw, cell: str) -> str:
    return f"<tr><td>{draw.words(2)} &amp; {draw.words(1)}</td><td>{_figure(draw)}</td><td>{cell}</td></tr>"


def _figure(draw: Draw) -> str:
    thousands = f"{draw.whole(-999999, 9999999):,}"
    return f"({thousands[1:]})" if thousands.startswith("-") else f"$ {thousands}"


def text_record(draw: Draw, identifier: str) -> str:
    """One delivered message with the path it took."""
    hosts = [f"{draw.pick('pcwt')}{draw.whole(0, 200)}" for _ in range(draw.whole(2, 7))]
    return (
        f"{draw.money(43200)} M{identifier} {draw.whole(50, 1000)}000 {len(hosts) - 1} {draw.money(9000)} "
        f"{hosts[0]} {hosts[-1]} {draw.whole(1, 300)} {draw.pick('YN')} {'->'.join(hosts)}\n"
    )


def smiles_record(draw: Draw, identifier: str) -> str:
    """One molecule: its structure, a tab and its name."""
    chain = "C".join([draw.pick(_GROUPS) for _ in range(draw.whole(1, 6))])
    return f"{draw.pick(_STARTS)}C{chain}C{draw.pick(_ENDS)}\tM{identifier}\n"


def carbons(count: int) -> str:
    """The straight alkane of that many atoms."""
    return "C" * count


# Valid HTML 5 that is well-formed XML as well, so that strict parsers of either read it.
HTML = DocumentFormat(
    opening=(
        b'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><title>Annual filing</title></head>\n'
        b"<body><h1>Notes to the statements</h1>\n<table><tbody>\n"
    ),
    record=html_record,
    last=f'<tr id="n{LAST_IDENTIFIER}"><td>',
    end="</td></tr>\n</tbody></table>\n</body></html>\n",
)
# Lines that start with # are comments; the second one names the ten fields.
TEXT = DocumentFormat(
    opening=b"# delivered messages\n# time id size hops delay from to ttl response path\n",
    record=text_record,
    last="# ",
    end="\n",
)
SMILES = DocumentFormat(
    opening=b"", record=smiles_record, last="C", end=f"\tM{LAST_IDENTIFIER}\n", filling=carbons
)

PARQUET = "parquet"
"""The one kind that is not a row of records in text: `parquet_table` writes it by itself."""

FORMATS: Mapping[str, DocumentFormat] = {
    "csv": CSV,
    "json": JSON,
    "jsonl": JSONL,
    "xml": XML,
    "html": HTML,
    "text": TEXT,
    "smiles": SMILES,
}

KINDS: tuple[str, ...] = (*FORMATS, PARQUET)
"""Every kind that `synthesize` knows."""
