"""Each parser under a budget of its own, on a file of known size; and none may grow when it is repeated.

`ci/gate.py` compares these tests with the committed baseline.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import parsers
import pytest

from pytest_membudget import SyntheticFile

MakeFile = Callable[..., SyntheticFile]
Parse = Callable[[Path], Any]


def within(peak: str, parse: Parse, kind: str, size: str) -> Any:
    return pytest.param(parse, kind, size, marks=pytest.mark.memory_budget(peak), id=parse.__name__)


@pytest.mark.parametrize(
    ("parse", "kind", "size"),
    [
        within("6 MiB", parsers.csv_totals, "csv", "20 MB"),
        within("40 MiB", parsers.pandas_totals, "csv", "8 MB"),
        within("50 MiB", parsers.json_totals, "json", "5 MB"),
        within("40 MiB", parsers.xml_totals, "xml", "2 MB"),
        within("50 MiB", parsers.html_filing, "html", "500 kB"),
        within("40 MiB", parsers.text_delays, "text", "2 MB"),
    ],
)
def test_a_parser_stays_within_its_budget(
    parse: Parse, kind: str, size: str, synthetic_file: MakeFile
) -> None:
    assert parse(synthetic_file(size, kind=kind).path)


@pytest.mark.memory_growth(per_call="64 B")
@pytest.mark.parametrize(
    ("parse", "kind"), [(parsers.csv_totals, "csv"), (parsers.text_delays, "text")], ids=["csv", "text"]
)
def test_a_repeated_parser_does_not_grow(parse: Parse, kind: str, synthetic_file: MakeFile) -> None:
    assert parse(synthetic_file("20 kB", kind=kind).path)
