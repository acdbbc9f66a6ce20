import json
import re

from markdown_it import MarkdownIt
from sample_report import record

from pytest_membudget.records.report import Report
from pytest_membudget.report.markdown import render_annotations, render_benchmark_json, render_step_summary


def test_a_failed_test_is_annotated_at_its_line(report):
    lines = render_annotations(report).splitlines()
    assert lines[0] == (
        "::error file=tests/test_parse.py,line=12,"
        "title=over budget%3A tests/test_parse.py%3A%3Atest_filing[large]::"
        "peak 312 MiB > budget 200 MiB (+112 MiB, 56%25)%0A  measured  peak of the whole process tree"
    )
    assert [line.split(" ")[0] for line in lines] == ["::error"] * 3


def test_doubt_is_a_warning():
    doubtful = record("a.py::t", 5, verdict="over_upper", caveats=("peak at most 9 MiB > budget 8 MiB",))
    assert render_annotations(Report(tests=(doubtful,))).endswith("::peak at most 9 MiB > budget 8 MiB\n")
    assert render_annotations(Report(tests=(doubtful,))).startswith("::warning file=a.py,line=12,")


def test_a_hostile_name_stays_within_its_annotation(hostile_report):
    text = render_annotations(hostile_report)
    lines = text.encode().splitlines()
    assert len(lines) == len(hostile_report.tests)
    assert all(re.match(rb"::error file=[^:,]*,line=12,title=[^:,]*::over: ", line) for line in lines)
    assert "\x1b" not in text


def test_figures_for_github_action_benchmark(report, hostile_report):
    rows = json.loads(render_benchmark_json(report))
    assert rows[0] == {
        "name": "tests/test_parse.py::test_filing[large]",
        "unit": "bytes",
        "value": 312 * 2**20,
        "extra": "over",
    }
    assert rows[3]["range"] == f"{150 * 2**20}..{150 * 2**20}"
    assert rows[-1] == {
        "name": "Scales of parse: MEDIUM",
        "unit": "bytes",
        "value": 28 * 10**9,
        "extra": "HIGH",
    }
    assert len(json.loads(render_benchmark_json(hostile_report))) == len(hostile_report.tests)


def test_the_step_summary_is_short_and_complete(report):
    text = render_step_summary(report)
    assert text.startswith("## ❌ Memory\n\n4 tests measured, 1 over budget")
    assert text.count("<details>") == 3
    assert "| MEDIUM | 500,000 |" in text
    assert render_step_summary(Report()).startswith("## ✅ Memory")


def test_names_in_the_step_summary_are_no_markup(hostile_report):
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(render_step_summary(hostile_report))
    blocks = "".join(token.content for token in tokens if token.type == "html_block")
    assert blocks.count("<") == 4 * len(hostile_report.tests)
    assert "<script" not in blocks


def test_a_huge_summary_is_cut_where_github_would_refuse_it():
    tests = tuple(
        record(f"a.py::t{n}", 5, verdict="over", outcome="failed", message="x" * 60_000) for n in range(40)
    )
    text = render_step_summary(Report(tests=tests))
    assert len(text.encode()) < 2**20
    assert text.endswith("`cut here: GitHub shows at most 1 MiB`\n")
