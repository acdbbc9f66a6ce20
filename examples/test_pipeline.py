"""The parsers of the demo under budgets: run by `make demo`, and by any pytest that has the plugin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parsers import csv_totals, html_filing, json_totals, pandas_totals, text_delays, xml_totals

from pytest_membudget import synthesize


@pytest.mark.parametrize(
    ("parse", "kind", "size"),
    [
        pytest.param(csv_totals, "csv", "20 MB", marks=pytest.mark.memory_budget("2 MiB"), id="csv"),
        pytest.param(pandas_totals, "csv", "8 MB", marks=pytest.mark.memory_budget("60 MiB"), id="pandas"),
        pytest.param(json_totals, "json", "5 MB", marks=pytest.mark.memory_budget("50 MiB"), id="json"),
        pytest.param(xml_totals, "xml", "2 MB", marks=pytest.mark.memory_budget("40 MiB"), id="xml"),
        pytest.param(html_filing, "html", "500 kB", marks=pytest.mark.memory_budget("60 MiB"), id="html"),
        pytest.param(text_delays, "text", "2 MB", marks=pytest.mark.memory_budget("40 MiB"), id="text"),
    ],
)
def test_a_parser_stays_in_its_budget(
    parse: Callable[[Path], Any], kind: str, size: str, tmp_path: Path
) -> None:
    made = synthesize(tmp_path / "input", size, kind)
    assert parse(made.path)


@pytest.mark.memory_growth(per_call="64 B")
def test_repeated_runs_do_not_grow(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = synthesize(tmp_path_factory.getbasetemp() / "repeated.csv", "20 kB")
    assert csv_totals(made.path)
