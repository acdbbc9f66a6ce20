import json

import jsonschema
import pytest

from pytest_membudget.records.report import Report
from pytest_membudget.report.writing import SCHEMA, load_report, make_schema, render_json, write_report


def test_the_shipped_schema_describes_the_records():
    # After a change of the records, write it again: python -m pytest_membudget.report.writing
    assert make_schema() == SCHEMA


def test_reports_follow_the_schema(report, hostile_report):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for shown in (report, hostile_report, Report()):
        jsonschema.validate(json.loads(render_json(shown)), SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"format": "other"},
        {"kind": "page"},
        {"tests": [{"nodeid": "a", "outcome": "great"}]},
        {"tests": [{"nodeid": "a", "outcome": "passed", "peak_bytes": -1}]},
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(report, change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(render_json(report)) | change, SCHEMA)


def test_a_report_reads_back_as_it_was_written(report, tmp_path):
    path = tmp_path / "run.json"
    write_report(report, path)
    assert load_report(path) == report


def test_the_fields_that_outside_tools_read_are_there(report):
    document = json.loads(render_json(report))
    assert (document["format"], document["version"], document["kind"]) == ("membudget-report", 1, "report")
    assert {
        "nodeid",
        "outcome",
        "peak_bytes",
        "peak_upper_bytes",
        "total_peak_bytes",
        "retained_bytes",
        "source",
        "budget_bytes",
        "verdict",
        "caveats",
    } <= document["tests"][0].keys()
    assert document["scales"][0]["rows"][2]["status"] == "HIGH"


def test_each_test_stands_on_one_line(report):
    lines = render_json(report).decode().splitlines()
    assert sum('"nodeid":' in line for line in lines) == len(report.tests)


def test_a_name_that_is_not_utf8_is_kept_readable(hostile_report, tmp_path):
    path = tmp_path / "run.json"
    write_report(hostile_report, path)
    assert load_report(path).tests[3].nodeid == "test_x.py::test[\\udcff lone surrogate]"
