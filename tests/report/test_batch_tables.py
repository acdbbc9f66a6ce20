"""Batches and what they used of each host, in every format."""

import json

from msgspec.structs import replace
from sample_report import full_report

from pytest_membudget.records.report import Report
from pytest_membudget.report.html import render_html
from pytest_membudget.report.markdown import render_markdown
from pytest_membudget.report.terminal import render_terminal
from pytest_membudget.report.writing import render_json
from pytest_membudget.stats.task_growth import judge_task_series


def test_every_format_shows_each_host_with_peak_and_budget():
    report = full_report()
    terminal = render_terminal(report, width=120)
    assert "Hosts of the batches" in terminal
    (row,) = [line for line in terminal.splitlines() if "large<1>" in line]
    assert row.split()[-6:] == ["2", "310", "1.46", "GiB", "1.86", "GiB"]
    assert "was killed; repeats with 96 MiB" in terminal
    assert "at most this: their own peaks added up" in terminal
    assert "| `test_nightly.py::test_all_files` | `small` | 1 | 191 | 478 MiB | 954 MiB |" in render_markdown(
        report
    )
    page = render_html(report)
    assert "large&lt;1&gt;" in page
    assert "large<1>" not in page
    (batch,) = json.loads(render_json(report))["batches"]
    assert [use["host"] for use in batch["hosts"]] == ["large<1>", "small"]


def test_a_report_of_batches_alone_tells_what_became_of_them():
    (batch,) = full_report().batches
    failed = replace(
        batch, inputs=8, failed=1, peak_bytes=179 << 20, failures=("a.csv: error: ValueError: no",)
    )
    text = render_terminal(Report(batches=(failed,)))
    assert "  a.csv: error: ValueError: no" in text.splitlines()
    assert text.splitlines()[-1] == "membudget: 1 batch, 8 inputs, 1 failed, largest peak 179 MiB"
    both = render_terminal(Report(batches=(failed, replace(batch, inputs=2, failed=0))), width=200)
    assert "membudget: 2 batches, 10 inputs, 1 failed" in both


def test_growth_that_is_not_known_stands_with_its_reason_or_not_at_all():
    (batch,) = full_report().batches
    few = judge_task_series([(1, 0), (2, 0)])
    report = Report(batches=(replace(batch, growth=few),))
    assert "inconclusive" not in render_terminal(report, width=200)
    assert "growth in workers: inconclusive" in render_terminal(report, width=200, verbose=True)
    assert "growth in workers: inconclusive" in render_markdown(report)


def test_without_batches_there_is_no_table():
    from pytest_membudget.report.job_tables import batch_table, host_table

    assert not batch_table(())
    assert not host_table(())


def test_a_host_is_told_in_one_line():
    large, small = full_report().batches[0].hosts
    assert str(large) == "large<1>: peak at most 1.46 GiB of 1.86 GiB in 2 workers, 310 tasks"
    assert str(small) == "small: peak 478 MiB of 954 MiB in 1 worker, 191 tasks"
