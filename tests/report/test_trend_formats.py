import json
import xml.etree.ElementTree as ET

import pytest

from pytest_membudget.records.comparison import RevisionPoint, TestTrend, TrendChange, TrendReport
from pytest_membudget.report.history import (
    describe,
    draw_trend,
    page_of_trend,
    render_trend_json,
    render_trend_page,
)
from pytest_membudget.report.markdown import markdown_page
from pytest_membudget.report.terminal import lay_out_page

MIB = 2**20


def one_test(nodeid, verdict, changes=(), peaks=(100, 100, 120, 120), **fields):
    return TestTrend(
        nodeid=nodeid,
        verdict=verdict,
        anchor_bytes=peaks[0] * MIB,
        level_bytes=peaks[-1] * MIB,
        noise=0.001,
        revisions=4,
        positions=(0, 1, 2, 3),
        peaks_bytes=tuple(peak * MIB for peak in peaks),
        changes=tuple(changes),
        **fields,
    )


JUMP = TrendChange(
    kind="jump", revision="c" * 40, index=2, before_bytes=100 * MIB, after_bytes=120 * MIB, in_force=True
)
REPORT = TrendReport(
    path="h.sqlite",
    tolerance="2% + 4.00 KiB",
    month_index=1,
    revisions=tuple(
        RevisionPoint(revision=letter * 40, created=f"2026-11-0{n + 1}") for n, letter in enumerate("abcd")
    ),
    tests=(
        one_test(
            "t.py::test_<b>",
            "jumped",
            [JUMP],
            revision=JUMP.revision,
            change=0.2,
            before_bytes=100 * MIB,
            after_bytes=120 * MIB,
        ),
        one_test("t.py::steady", "steady", peaks=(5, 5, 5, 5)),
        one_test("t.py::repaired", "steady", [JUMP], peaks=(7, 7, 9, 7)),
    ),
)


def test_a_terminal_shows_what_got_worse_first_and_one_line_last():
    lines = lay_out_page(page_of_trend(REPORT)).splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("---")) + 1
    assert lines[first].split() == [
        "t.py::test_<b>",
        "jumped",
        "+20.0%",
        "cccccccccccc",
        "120",
        "MiB",
        "100",
        "MiB",
    ]
    assert lines[-1] == "3 tests over 4 revisions: 1 jumped, 0 crept, 2 steady"


def test_markdown_escapes_names():
    assert "| `t.py::test_<b>` | jumped | +20.0% |" in markdown_page(page_of_trend(REPORT))


def test_json_has_verdicts_revisions_and_changes_and_no_points():
    document = json.loads(render_trend_json(REPORT))
    first = document["tests"][0]
    assert (first["verdict"], first["revision"], first["change"]) == ("jumped", "c" * 40, 0.2)
    assert first["changes"][0]["change"] == pytest.approx(0.2)
    assert "peaks_bytes" not in first


def test_what_happened_is_one_sentence():
    assert describe(REPORT.tests[0]) == "jumped at cccccccccccc: 100 MiB → 120 MiB, +20.0%"
    assert describe(REPORT.tests[2]) == "steady at 7.00 MiB; +20.0% at cccccccccccc"


def test_the_page_shows_what_got_worse_this_month_first():
    page = render_trend_page(REPORT)
    assert "Got worse since 2026-11-02" in page
    assert "test_&lt;b&gt;" in page.replace("<wbr>", "")
    assert page.index("Got worse since") < page.index("Changed, and no worse now") < page.index("No change")
    assert "<b>test_" not in page


def test_a_history_without_runs_has_a_page():
    assert "No test got worse" in render_trend_page(TrendReport(path="h", tolerance="2%"))


def test_a_test_with_one_revision_has_a_row():
    revisions = (RevisionPoint(revision="a" * 40, created="2026-11-01"),)
    test = TestTrend(
        nodeid="t",
        verdict="unknown",
        anchor_bytes=5,
        level_bytes=5,
        noise=0.0,
        revisions=1,
        positions=(0,),
        peaks_bytes=(5,),
    )
    page = render_trend_page(TrendReport(path="h", tolerance="2%", revisions=revisions, tests=(test,)))
    assert '<polyline points="' in page


def test_a_chart_is_one_element_whose_level_goes_through_each_change():
    svg = ET.fromstring(draw_trend(REPORT.tests[0], REPORT))
    (level,) = (line for line in svg.iter("polyline") if line.get("class") == "level")
    heights = [float(point.split(",")[1]) for point in level.get("points").split()]
    assert heights[0] == heights[1] > heights[2] == heights[3]
    assert any("+20.0% cccccccccccc" in (text.text or "") for text in svg.iter("text"))
