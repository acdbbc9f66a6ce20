import json

import pytest

from pytest_membudget.cli import main
from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.report.writing import write_report


@pytest.fixture
def run_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = TestRecord(
        nodeid="t.py::test",
        outcome="failed",
        verdict="over",
        peak_bytes=2**21,
        budget_bytes=2**20,
        message="over",
    )
    write_report(Report(tests=(test,)), "run.json")
    return "run.json"


def test_without_a_path_it_is_shown(run_file, capsys):
    assert main(["report", run_file]) == 0
    assert "t.py::test  2.00 MiB  1.00 MiB  200.0%  over" in capsys.readouterr().out


def test_paths_are_written_by_their_ending(run_file, tmp_path, capsys):
    assert main(["report", run_file, "-o", "r.md", "-o", "r.html"]) == 0
    assert (tmp_path / "r.md").read_text().startswith("# Memory report")
    assert "<h1>Memory report</h1>" in (tmp_path / "r.html").read_text()
    assert capsys.readouterr().out == "wrote r.md\nwrote r.html\n"


@pytest.mark.parametrize(
    ("form", "beginning"),
    [
        ("json", '{\n  "format": "membudget-report"'),
        ("markdown", "# Memory report"),
        ("step-summary", "## ❌ Memory"),
        ("annotations", "::error title=over budget%3A t.py%3A%3Atest::over\n"),
    ],
)
def test_other_formats_are_printed(run_file, capsys, form, beginning):
    assert main(["report", run_file, "--format", form]) == 0
    assert capsys.readouterr().out.startswith(beginning)


def test_figures_for_a_dashboard(run_file, capsys):
    assert main(["report", run_file, "--format", "benchmark"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["value"] == 2**21


@pytest.mark.parametrize("path", ["r.pdf", "run.json/r.md"])
def test_a_path_that_cannot_be_written_is_exit_2(run_file, capsys, path):
    assert main(["report", run_file, "-o", path]) == 2
    assert path in capsys.readouterr().err
