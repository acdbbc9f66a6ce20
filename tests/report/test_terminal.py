import re
import unicodedata

import pytest
from msgspec.structs import replace

from pytest_membudget.records.judgement import HeldByFixture, RetainedByTest
from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.report.markdown import render_step_summary
from pytest_membudget.report.terminal import render_terminal


def test_without_tables_there_are_failures_and_one_line(report):
    text = render_terminal(report, tables=False)
    assert text.splitlines()[:3] == [
        "tests/test_parse.py::test_filing[large]",
        "  peak 312 MiB > budget 200 MiB (+112 MiB, 56%)",
        "  measured  peak of the whole process tree",
    ]
    assert text.splitlines()[-2].startswith(
        "membudget: 4 tests measured, 1 over budget, 1 leaking, 1 regressed"
    )
    assert "MICRO" not in text


def test_failures_that_were_shown_already_can_be_left_out(report):
    assert "measured  peak" not in render_terminal(report, failures=False)


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(report, hostile_report, width, verbose):
    for shown in (report, hostile_report):
        for line in render_terminal(shown, width=width, verbose=verbose).splitlines():
            assert len(line) <= width, line


def test_the_scale_table_has_the_reference_columns(report):
    lines = render_terminal(report).splitlines()
    start = lines.index("Scales of parse")
    assert lines[start + 2].split() == [
        "scale",
        "rows",
        "batches",
        "workers",
        "flight",
        "peak",
        "limit",
        "budget",
        "rows/s",
        "status",
    ]
    assert lines[start + 4].split() == [
        "MICRO",
        "50,000",
        "1",
        "4",
        "1",
        "13.0",
        "GiB",
        "43.6%",
        "27.9",
        "GiB",
        "1,389",
        "PASS",
    ]
    assert lines[start + 6].split()[-1] == "HIGH"


def test_a_heading_is_broken_only_where_it_is_wider_than_its_column():
    fixture = HeldByFixture("data", "session", 5_000_000, "t.py::test_it")
    test = TestRecord(nodeid="t.py::test_it", outcome="passed")
    text = render_terminal(Report(tests=(test,), fixtures=(fixture,)))
    assert re.search(r"^fixture +scope +holds +set up for$", text, re.MULTILINE)


def test_a_narrow_terminal_still_gets_every_figure(report):
    text = render_terminal(report, width=40)
    assert all(len(line) <= 40 for line in text.splitlines())
    assert re.search(r"of limit +87\.5%", text)


def test_ascii_means_ascii(report, hostile_report):
    for shown in (report, hostile_report):
        assert render_terminal(shown, verbose=True, ascii_only=True).isascii()


def test_colours_only_when_told(report):
    assert "\x1b" not in render_terminal(report)
    colored = render_terminal(report, color=True)
    assert "\x1b[31mFAIL" not in colored
    assert "\x1b[33mHIGH\x1b[0m" in colored
    assert re.sub(r"\x1b\[\d+m", "", colored) == render_terminal(report)


def test_control_characters_of_a_name_reach_no_terminal(hostile_report):
    text = render_terminal(hostile_report, verbose=True)
    assert not [sign for sign in text if sign != "\n" and unicodedata.category(sign) in {"Cc", "Cf", "Cs"}]


def test_the_smallest_tests_are_left_out_and_counted():
    tests = tuple(
        TestRecord(nodeid=f"test_{n:03}", outcome="passed", peak_bytes=n * 2**20) for n in range(100)
    )
    short, full = (render_terminal(Report(tests=tests), verbose=verbose) for verbose in (False, True))
    assert "80 smaller tests not shown" in short
    assert "test_099" in short
    assert "test_000" not in short
    assert "test_000" in full


def test_figures_in_doubt_are_counted_and_explained_on_request():
    tests = tuple(
        TestRecord(nodeid=f"test_{n}", outcome="passed", peak_bytes=n, caveats=("it may be less",) * (n < 2))
        for n in range(3)
    )
    short, full = (render_terminal(Report(tests=tests), verbose=verbose) for verbose in (False, True))
    assert "2 figures in doubt: -v says why" in short
    assert "it may be less (2 tests)" in full


def test_of_what_tests_left_behind_the_largest_five_are_shown():
    left = tuple(RetainedByTest(f"test_{n}", (9 - n) * 2**20, 0.1) for n in range(8))
    text = render_terminal(Report(left_behind=left))
    assert "test_4" in text
    assert "test_5" not in text
    assert "3 smaller tests not shown" in text
    assert "test_7" in render_terminal(Report(left_behind=left), verbose=True)


def test_tests_that_were_expected_to_fail_are_told_apart():
    def session(*outcomes):
        tests = tuple(
            TestRecord(nodeid=f"test_{n}", outcome=outcome, verdict="over", peak_bytes=2**20)
            for n, outcome in enumerate(outcomes)
        )
        return render_terminal(Report(tests=tests), tables=False, failures=False)

    assert "2 over budget (1 expected)," in session("failed", "xfailed")
    assert "1 over budget (expected)," in session("xfailed")
    assert "1 over budget," in session("failed")
    expected = TestRecord(
        nodeid="test_it", outcome="xfailed", verdict="over", peak_bytes=1, message="peak of mine"
    )
    assert "peak of mine" not in render_terminal(Report(tests=(expected,)))
    assert render_step_summary(Report(tests=(expected,))).startswith("## ✅")


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"peak_bytes": 60, "budget_bytes": 50}, "over"),
        ({"peak_bytes": 5, "budget_bytes": 50, "total_peak_bytes": 9, "budget_total_bytes": 8}, "over total"),
        ({"peak_bytes": 5, "retained_bytes": 9, "budget_retained_bytes": 8}, "over retained"),
        ({"peak_bytes": 5, "message": 'law="linear" does not hold: ...'}, "over law"),
        ({"peak_bytes": 5}, "over"),
    ],
)
def test_the_verdict_says_what_was_over_where_it_was_not_the_peak(fields, verdict):
    test = TestRecord(nodeid="test_it", outcome="failed", verdict="over", **fields)
    assert render_terminal(Report(tests=(test,)), failures=False).splitlines()[3].endswith(f"  {verdict}")


def test_a_budget_overrun_many_times_is_told_so():
    tests = tuple(
        TestRecord(nodeid="test_it", outcome="failed", verdict="over", peak_bytes=peak, budget_bytes=10)
        for peak in (99, 525)
    )
    text = render_terminal(Report(tests=tests), failures=False)
    assert "  990.0%  " in text
    assert "  52x  " in text


def test_scales_share_a_doubt_that_differs_in_a_figure_alone(report):
    (table,) = report.scales
    rows = tuple(
        replace(row, caveats=(f"up to {n}.24 MiB of freed memory", "stopped early")[: 1 + (n == 1)])
        for n, row in enumerate(table.rows, 1)
    )
    text = render_terminal(Report(scales=(replace(table, rows=rows),)), width=120)
    assert text.count("of freed memory") == 1
    assert "all scales: up to 3.24 MiB of freed memory" in text
    assert "MICRO: stopped early" in text


def test_an_empty_session_is_one_line():
    assert render_terminal(Report()) == "membudget: 0 tests measured, none checked\n"
