import json

import pytest

from pytest_membudget.cli import main
from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.report.writing import write_report

MIB = 2**20


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """r1.json … r3.json, of one test each."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2, 3):
        tests = (TestRecord(nodeid="t.py::test_a", outcome="passed", peak_bytes=number * MIB),)
        write_report(Report(tests=tests), f"r{number}.json")


def shown(capsys, *words):
    capsys.readouterr()
    assert main(["history", "show", *words]) == 0
    return capsys.readouterr().out


def test_reports_are_added_in_the_order_given_with_their_revisions(runs, capsys):
    assert main(["history", "add", "r2.json=two", "r1.json", "--revision", "one", "--to", "h"]) == 0
    assert capsys.readouterr().out == "h: 2 runs added\n"
    assert main(["history", "add", "r2.json=two", "--to", "h"]) == 0
    assert capsys.readouterr().out == "h: 0 runs added, 1 known already\n"
    document = json.loads(shown(capsys, "h", "--json"))
    assert [run["revision"] for run in document["runs"]] == ["two", "one"]
    assert [point["peak_bytes"] for point in document["tests"][0]["points"]] == [2 * MIB, MIB]


def test_histories_are_merged_into_one(runs, capsys):
    for number in (1, 2):
        main(["history", "add", f"r{number}.json=v{number}", "--to", f"h{number}"])
    assert main(["history", "merge", "h1", "h2", "--into", "all"]) == 0
    assert main(["history", "merge", "h1", "all", "--into", "all"]) == 0
    assert "all: 0 runs added, 2 in all" in capsys.readouterr().out


def test_one_test_is_shown_by_a_part_of_its_name(runs, capsys):
    main(["history", "add", "r1.json=v1", "r3.json=v3", "--to", "h"])
    assert shown(capsys, "h", "test_a").splitlines() == [
        "t.py::test_a: 2 runs",
        "revision  time      peak  samples",
        "--------  ----  --------  -------",
        "v1        –     1.00 MiB        –",
        "v3        –     3.00 MiB        –",
    ]
    assert "h: 2 runs of 1 test" in shown(capsys, "h")


def test_a_name_that_is_in_no_test_leads_to_their_list(runs, capsys):
    main(["history", "add", "r1.json=v1", "--to", "h"])
    assert main(["history", "show", "h", "test_b"]) == 2
    message = capsys.readouterr().err
    assert (
        "h has no test with 'test_b' in its name; membudget history trend h lists those that it has"
        in message
    )
    main(["history", "trend", "h"])
    assert "t.py::test_a" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["add", "r1.json=x", "missing.json", "--to", "h"], "missing.json"),
        (["show", "h"], "there is no history here"),
        (["merge", "h1", "--into", "h"], "h1: there is no history here"),
        (["show", "r1.json"], "r1.json is not a membudget history"),
    ],
)
def test_what_cannot_be_done_is_exit_2_in_one_sentence_and_writes_nothing(
    runs, tmp_path, capsys, words, told
):
    assert main(["history", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "h").exists()


@pytest.fixture
def jumped(tmp_path, monkeypatch):
    """A history in which test_a jumped at r10."""
    monkeypatch.chdir(tmp_path)
    words = []
    for number in range(20):
        tests = (
            TestRecord(nodeid="t.py::test_a", outcome="passed", peak_bytes=(100 + 20 * (number >= 10)) * MIB),
        )
        write_report(Report(tests=tests, created=f"2026-11-{number + 1:02d}"), f"run{number}.json")
        words.append(f"run{number}.json=r{number}")
    main(["history", "add", *words, "--to", "h"])


def test_trend_names_the_revision_and_fails_where_asked(jumped, capsys):
    assert main(["history", "trend", "h", "--json"]) == 0
    (test,) = json.loads(capsys.readouterr().out)["tests"]
    assert (test["nodeid"], test["verdict"], test["revision"]) == ("t.py::test_a", "jumped", "r10")
    assert main(["history", "trend", "h", "--fail"]) == 1
    assert main(["history", "trend", "h", "--fail", "--since", "r12"]) == 0
    assert main(["history", "trend", "h", "--fail", "--tolerance", "50%"]) == 0


@pytest.mark.parametrize(
    ("ending", "told"), [("html", "<h1>Memory trend</h1>"), ("md", "# Memory trend"), ("json", '"r10"')]
)
def test_trend_writes_each_format(jumped, tmp_path, ending, told):
    assert main(["history", "trend", "h", "--output", f"page.{ending}"]) == 0
    assert told in (tmp_path / f"page.{ending}").read_text()


def test_trend_refuses_what_it_cannot_write_or_find(jumped, capsys):
    assert main(["history", "trend", "h", "--output", "page.pdf"]) == 2
    assert main(["history", "trend", "h", "--since", "r99"]) == 2
    assert "no revision 'r99'" in capsys.readouterr().err
