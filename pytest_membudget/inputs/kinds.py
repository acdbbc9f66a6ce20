"""The kinds of file that can be made to order: payments as csv, json, jsonl and xml, then longer documents.

Filings come as html, simulation reports as text, molecules as smiles. `DocumentFormat` is what a kind says about itself; `Draw`
draws the words and numbers of its records.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")

BLOCK_MARK = "#########"
"""Stands in a record's identifier where the block's nine-digit number comes, so that no identifier repeats."""

LAST_IDENTIFIER = "99999999999999"
"""The identifier of the record that closes a document: as long as the others, and above them all."""


class Draw:
    """Choices by a seed. Only `random()` is used: its sequence is the same in every version of Python."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` up to, not including, `high`."""
        return low + int(self._random() * (high - low))

    def pick(self, choices: Sequence[T]) -> T:
        """One of `choices`."""
        return choices[int(self._random() * len(choices))]

    def money(self, high: int) -> str:
        """An amount with two decimals, below `high`."""
        return f"{self._random() * high:.2f}"

    def date(self) -> str:
        """A day of the years 2015 to 2024, as 2021-07-03."""
        return f"{self.whole(2015, 2025)}-{self.whole(1, 13):02d}-{self.whole(1, 29):02d}"

    def words(self, count: int) -> str:
        """`count` words with spaces between them."""
        return " ".join([self.pick(WORDS) for _ in range(count)])


WORDS = (
    "account advice agreed amount annual approved balance bank batch budget carried cash charge claim cleared "
    "client closing confirmed contract copy corrected credit customer cycle daily data debit delivery deposit "
    "draft due early entry estimate exchange export fee file filing final first forward freight fund goods gross "
    "held import income interest invoice issued item joint journal late ledger licence limit line loan local "
    "manual margin market matched monthly net note notice offer office open order paid partial payment pending "
    "period plan posted premium price quarter quote rate receipt refund region rent report request return review "
    "sale second service settled share shipment split standing statement stock supply tax term total trade "
    "transfer unit update valid value vendor verified wage weekly wire yearly"
).split()
CITIES = (
    "Athens Auckland Bergen Berlin Bogota Boston Cairo Chennai Chicago Dakar Delhi Dublin Geneva Hanoi Helsinki "
    "Jakarta Kyoto Lagos Lima Lisbon London Lyon Madrid Manila Milan Montreal Nairobi Oslo Paris Porto Prague "
    "Quito Riga Rome Seoul Sofia Sydney Tallinn Tokyo Toronto Tunis Vienna Vilnius Warsaw Zagreb Zurich"
).split()
CURRENCIES = "AUD BRL CAD CHF CLP CZK DKK EUR GBP HUF IDR INR JPY KRW MXN NOK NZD PLN SEK USD ZAR".split()

_FILLING = (
    "the remaining balance is carried forward to the next period and confirmed by the office in writing "
)


def filling(length: int) -> str:
    """Exactly `length` characters of plain words, legal inside a field of any kind; never ends in a space."""
    if length < 1:
        return ""
    text = (_FILLING * (length // len(_FILLING) + 1))[:length]
    return f"{text[:-1]}." if text.endswith(" ") else text


class DocumentFormat(NamedTuple):
    """One kind of document: `opening`, any number of records, then a closing record of exactly the room that is left.

    Attributes:
        opening: what precedes the first record.
        record: one record of varied ASCII content, with whatever separates it from the next.
        last: how the closing record begins.
        end: how it ends, and the document with it.
        filling: so many bytes between the two.
    """

    opening: bytes
    record: Callable[[Draw, str], str]
    last: str
    end: str
    filling: Callable[[int], str] = filling

    @property
    def smallest_closing_bytes(self) -> int:
        """The shortest closing."""
        return len(self.last) + len(self.end)

    def closing(self, room_bytes: int) -> str:
        """The last record and the end of the document: exactly `room_bytes`, at least `smallest_closing_bytes`."""
        return f"{self.last}{self.filling(room_bytes - self.smallest_closing_bytes)}{self.end}"


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
