"""The job of the demo: real parsers, from one that holds a line at a time to one that holds fifty times the file.

Each takes a path and returns something small, so that what a run takes is the parser's doing and not the result's.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

Totals = dict[str, float]
"""Sum of the amounts by currency."""


class Delays(NamedTuple):
    """What a simulation report says: messages delivered and their mean delay, in simulated seconds."""

    messages: int
    mean_s: float


class Filing(NamedTuple):
    """What a filing holds: figures in all its tables, and how deep tables are nested."""

    figures: int
    depth: int


def csv_totals(path: str | Path) -> Totals:
    """Streams: holds one row at a time."""
    totals: Totals = defaultdict(float)
    with Path(path).open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            totals[row["currency"]] += float(row["amount"])
    return dict(totals)


def pandas_totals(path: str | Path) -> Totals:
    """Holds the table as columns."""
    import pandas as pd

    table = pd.read_csv(path)
    totals = table.groupby("currency")["amount"].sum()
    return {str(currency): float(total) for currency, total in totals.items()}


def json_totals(path: str | Path) -> Totals:
    """Holds the text and every object made of it."""
    totals: Totals = defaultdict(float)
    for payment in json.loads(Path(path).read_text(encoding="utf-8")):
        if "amount" in payment:
            totals[payment["currency"]] += payment["amount"]
    return dict(totals)


def xml_totals(path: str | Path) -> Totals:
    """Holds the whole tree."""
    totals: Totals = defaultdict(float)
    for amount in ElementTree.parse(path).iter("amount"):
        totals[amount.get("currency", "")] += float(amount.text or 0)
    return dict(totals)


def html_filing(path: str | Path) -> Filing:
    """Holds a tree of Python objects: the most expensive."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(Path(path).read_bytes(), "lxml")
    figures = sum(cell.text.startswith(("$", "(")) for cell in soup.find_all("td") if not cell.find("table"))
    depth = max((len(table.find_parents("table")) + 1 for table in soup.find_all("table")), default=0)
    return Filing(figures, depth)


def text_delays(path: str | Path) -> Delays:
    """Holds every line of the report, split into its fields."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    messages = [line.split() for line in lines if not line.startswith("#")]
    total_s = sum(float(fields[4]) for fields in messages)
    return Delays(len(messages), total_s / max(1, len(messages)))


PARSERS: dict[str, Callable[[str | Path], Totals | Filing | Delays]] = {
    ".csv": pandas_totals,
    ".json": json_totals,
    ".xml": xml_totals,
    ".html": html_filing,
    ".txt": text_delays,
}


def parse(path: str | Path) -> Totals | Filing | Delays:
    """Reads a file of any kind by the parser for its ending."""
    return PARSERS[Path(path).suffix](path)


def warm_up() -> None:
    """Loads the libraries that parsers load when they are first called: a worker has them from its start."""
    import bs4  # noqa: F401
    import pandas as pd  # noqa: F401
