"""The parsers of the demo really read what is in the files."""

import json
import sys
from pathlib import Path

import pytest

from pytest_membudget import synthesize

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import parsers


def test_streaming_and_columns_give_the_same_totals(tmp_path):
    made = synthesize(tmp_path / "payments.csv", "50 kB")
    streamed = parsers.csv_totals(made.path)
    assert streamed == pytest.approx(parsers.pandas_totals(made.path))
    assert sum(streamed.values()) > 1_000_000


def test_json_totals_are_those_of_the_objects(tmp_path):
    path = tmp_path / "payments.json"
    payments = [
        {"amount": 1.5, "currency": "EUR"},
        {"amount": 2, "currency": "EUR"},
        {"note": "the last one"},
    ]
    path.write_text(json.dumps(payments))
    assert parsers.json_totals(path) == {"EUR": 3.5}


def test_xml_totals_are_those_of_the_elements(tmp_path):
    path = tmp_path / "payments.xml"
    path.write_text('<payments><payment><amount currency="EUR">1.5</amount></payment><payment/></payments>')
    assert parsers.xml_totals(path) == {"EUR": 1.5}


def test_figures_and_depth_of_nested_tables(tmp_path):
    path = tmp_path / "filing.html"
    inner = "<table><tr><td>$ 1</td><td>(2)</td></tr></table>"
    path.write_text(f"<table><tr><td>Sales</td><td>{inner}</td><td>$ 3</td></tr></table>")
    assert parsers.html_filing(path) == parsers.Filing(figures=3, depth=2)


def test_a_report_gives_its_messages_and_their_mean_delay(tmp_path):
    path = tmp_path / "report.txt"
    path.write_text("# comment\n10.0 M1 500 1 4.0 a b 30 N a->b\n20.0 M2 500 1 6.0 b a 30 N b->a\n")
    assert parsers.text_delays(path) == parsers.Delays(messages=2, mean_s=5.0)


@pytest.mark.parametrize(
    "ending, kind", [("csv", "csv"), ("json", "json"), ("xml", "xml"), ("html", "html"), ("txt", "text")]
)
def test_the_ending_chooses_the_parser(ending, kind, tmp_path):
    assert parsers.parse(synthesize(tmp_path / f"file.{ending}", "20 kB", kind).path)
