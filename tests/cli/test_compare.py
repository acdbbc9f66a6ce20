import json

import pytest

from pytest_membudget.cli import main
from pytest_membudget.gate.baseline import make_baseline, save_baseline
from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.report.writing import write_report

MIB = 2**20


def report(*peaks):
    return Report(
        tests=tuple(
            TestRecord(nodeid=f"t.py::test_{index}", outcome="passed", peak_bytes=peak * MIB)
            for index, peak in enumerate(peaks)
        )
    )


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_report(report(100, 100), "base.json")
    write_report(report(101, 130), "new.json")


def test_a_regression_is_exit_1_and_shown_like_benchstat(files, capsys):
    assert main(["compare", "base.json", "new.json"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "Peaks, median and 95% interval",
        "test             base      new   delta        p  finding",
        "------------  -------  -------  ------  -------  ---------",
        "t.py::test_0  100 MiB  101 MiB       ~  – n=1+1",
        "t.py::test_1  100 MiB  130 MiB  +30.0%  – n=1+1  regressed",
        "geomean                         +14.6%",
        "  tolerance 10% + 1 MiB; base base.json, new new.json",
        "  an interval for the median at 95% needs 6 samples; some tests have 1",
        "  2 judged by the tolerance alone: a rank test needs 4 samples on both sides,",
        "    there are as few as 1",
        "",
        "2 compared, 1 regressed, 0 improved, geomean +14.6%",
    ]


def test_within_the_tolerance_is_exit_0(files, capsys):
    assert main(["compare", "base.json", "new.json", "--tolerance", "50%"]) == 0
    assert "0 regressed" in capsys.readouterr().out


def test_a_baseline_can_be_either_side(files):
    save_baseline(make_baseline(report(100, 100)), "baseline.json")
    assert main(["compare", "baseline.json", "new.json"]) == 1
    assert main(["compare", "new.json", "baseline.json"]) == 0


def test_json_has_the_figures(files, capsys):
    assert main(["compare", "base.json", "new.json", "--format", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [row["finding"] for row in document["rows"]] == ["same", "regressed"]
    assert document["rows"][1]["change"] == pytest.approx(0.3)


def test_markdown_is_a_table(files, capsys):
    main(["compare", "base.json", "new.json", "--format", "markdown"])
    assert "| `t.py::test_1` | 100 MiB | 130 MiB | +30.0% | – n=1+1 | regressed |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["compare", "missing.json", "new.json"], "missing.json"),
        (["compare", "base.json", "broken.json"], "broken.json is not a membudget report"),
        (["compare", "base.json", "other.json"], "no measured test in common"),
        (["compare", "base.json", "new.json", "--tolerance", "lots"], "'lots' is not a size"),
    ],
)
def test_what_cannot_be_compared_is_exit_2_in_one_sentence(files, tmp_path, capsys, arguments, told):
    (tmp_path / "broken.json").write_text('{"format": "membudget-report", "tests": [')
    write_report(Report(), "other.json")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
