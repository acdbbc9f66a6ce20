"""What a kind of file says about itself, and the words its records are made of."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
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
