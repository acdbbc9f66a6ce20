"""What a monitor saw, in every format."""

import json

import msgspec
import pytest
from sample_report import full_report

from pytest_membudget.records.monitor import MonitorReport
from pytest_membudget.report.html import render_html
from pytest_membudget.report.job_tables import monitor_table
from pytest_membudget.report.markdown import render_markdown
from pytest_membudget.report.terminal import render_terminal
from pytest_membudget.report.writing import render_json


def test_every_format_shows_peak_growth_cleanups_and_advice():
    report = full_report()
    terminal = render_terminal(report, width=160)
    (row,) = [line for line in terminal.splitlines() if line.startswith("import <1>  ")]
    assert row.split()[2:] == "6.52 GiB 87.5% 12.5 MiB 11.0 MiB to 14.0 MiB 1 2.79 GiB 7 95 s".split()
    assert "use fewer workers: 2 in place of 3 (the peak was 6.52 GiB)" in terminal
    assert "Monitors" in render_markdown(report)
    page = render_html(report)
    assert "import &lt;1&gt;: use fewer workers" in page
    assert "import <1>" not in page
    (seen,) = json.loads(render_json(report))["monitors"]
    assert (seen["label"], seen["snapshots"][0]["rss_bytes"]) == ("import <1>", 5 * 10**9)


def test_the_latest_alerts_and_failed_callbacks_are_told():
    notes = monitor_table(full_report().monitors).notes
    assert "import <1>: 2 earlier alerts not shown" in notes
    assert [note for note in notes if "alert 2" in note] == []
    assert "import <1>: alert 7" in notes
    assert "import <1>: a cleanup's callback failed: drop_cache: KeyError('a')" in notes


def test_a_growth_that_is_not_known_is_not_shown_as_none():
    seen = MonitorReport(
        duration_s=1.0,
        peak_bytes=1,
        limit_bytes=0,
        growth_bytes_per_min=0.0,
        growth_low_bytes_per_min=0.0,
        growth_high_bytes_per_min=0.0,
        caveats=("1 snapshots at different times: 6 are needed for a growth rate",),
    )
    table = monitor_table([seen])
    assert (table.rows[0][0], table.rows[0][3]) == ("monitor", "–")
    assert "6 are needed" in table.notes[0]


def test_without_monitors_there_is_no_table():
    assert not monitor_table(())


@pytest.mark.parametrize("verdict", ["leak", "inconclusive", "clean"])
def test_growth_in_workers_is_told_where_it_leaks_and_on_request_where_it_is_not_known(verdict):
    report = full_report()
    batch = report.batches[0]
    growth = msgspec.structs.replace(batch.growth, verdict=verdict)
    shown = msgspec.structs.replace(report, batches=(msgspec.structs.replace(batch, growth=growth),))
    text, more = (render_terminal(shown, width=250, verbose=verbose) for verbose in (False, True))
    told = f"growth in workers: {verdict}, 97.7 KiB a task (96.7 KiB to 98.6 KiB at 99%), after 96 tasks"
    assert (told in text) == (verdict == "leak")
    assert (told in more) == (verdict != "clean")
