import json
import re

import pytest
from bs4 import BeautifulSoup
from sample_report import full_report

from pytest_membudget.records.measurement import TimelinePoint
from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.report.html import render_html
from pytest_membudget.report.page import caveat_counts
from pytest_membudget.report.pictures import MOST_POINTS, thin, timelines_of


@pytest.fixture(scope="module")
def full_page():
    return render_html(full_report())


def parsed(text):
    return BeautifulSoup(text, "lxml")


def text_of(element):
    return " ".join(element.get_text().split())


def test_the_summary_is_readable_without_scripts(full_page):
    page = parsed(full_page)
    assert text_of(page.select("header .lead")[0]) == (
        "4 tests measured, 1 over budget, 1 leaking, 1 regressed, largest peak 312 MiB"
    )
    assert [text_of(tile) for tile in page.select(".tile")] == [
        "4 tests measured",
        "1 over budget",
        "1 leaking",
        "1 regressed",
        "1 within limits",
    ]
    assert len(page.select("#test-table tbody tr")) == 5


def test_every_section_has_its_figures(full_page):
    page = parsed(full_page)
    medium = page.select("#scales tr")[3]
    assert [text_of(cell) for cell in medium.select("td")] == [
        "MEDIUM",
        "500,000",
        "10",
        "8",
        "10",
        "26.1 GiB",
        "87.5%",
        "27.9 GiB",
        "1,389",
        "HIGH",
    ]
    assert "+25.0%" in text_of(page.select("#baseline")[0])
    assert "recommended" in text_of(page.select("#in-flight")[0])
    assert "app:parse" in text_of(page.select("#calibrations")[0])
    assert "high-water mark" in text_of(page.select("#how")[0])
    assert len(page.select("#scales figure svg, #calibrations figure svg")) == 3
    widths = [float(part.get("style")[6:-1]) for part in page.select(".stack:nth-child(3) i")]
    assert sum(widths) == pytest.approx(100, abs=0.1)


def test_a_page_loads_nothing(full_page):
    text = full_page
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", text)
    assert "@import" not in text


def test_no_name_from_outside_becomes_markup(hostile_report):
    text = render_html(hostile_report)
    page = parsed(text)
    assert len(page.select("script")) == 2
    assert "alert(1)</script>" not in text
    data = json.loads(page.select("#data")[0].string)
    assert data["rows"][0][1] == "test_x.py::test[</script><script>alert(1)</script>]"
    assert "\u2028" not in page.select("#data")[0].string
    assert "{{ 7*7 }}" in text_of(page.select("#failures")[0])


def test_only_the_page_s_own_script_may_run(full_page):
    policy = parsed(full_page).select("meta[http-equiv='Content-Security-Policy']")[0].get("content")
    assert re.fullmatch(
        r"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-\S+'; img-src data:", policy
    )


def test_pictures_follow_the_page_s_colours(full_page):
    svg = full_page
    drawn = re.findall(r'<svg class="chart".*?</svg>', svg, flags=re.DOTALL)
    assert len(drawn) == 3
    assert all("var(--series-1)" in each and "#" not in each for each in drawn)


def test_a_report_is_the_same_bytes_each_time(full_page):
    assert render_html(full_report()) == full_page


def test_an_empty_report_is_a_page():
    assert text_of(parsed(render_html(Report())).select(".lead")[0]) == "0 tests measured, none checked"


def test_timelines_keep_their_highest_point():
    points = [TimelinePoint(step / 10, 1000 if step == 577 else step % 7) for step in range(1000)]
    kept = thin(points)
    assert len(kept) <= MOST_POINTS
    assert max(point.tree_bytes for point in kept) == 1000
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert sorted(kept, key=lambda point: point.at_s) == kept


def test_timelines_stay_within_their_picture(report):
    for timeline in timelines_of(report.tests):
        coordinates = [tuple(map(float, pair.split(","))) for pair in timeline.area.split()]
        assert all(0 <= x <= 320 and 0 <= y <= 84 for x, y in coordinates)


def test_a_peak_between_two_samples_has_a_line_of_its_own(report):
    points = tuple(TimelinePoint(step / 10, 600 * step) for step in range(11))
    missed = TestRecord(nodeid="test_a", outcome="passed", peak_bytes=10_000, timeline=points)
    seen = TestRecord(nodeid="test_b", outcome="passed", peak_bytes=6_000, timeline=points)
    lines = {timeline.nodeid: timeline for timeline in timelines_of((missed, seen))}
    assert float(lines["test_a"].peak_y) == pytest.approx(10)
    assert min(float(pair.split(",")[1]) for pair in lines["test_a"].line.split()) > 10
    assert lines["test_b"].peak_y == ""
    assert "dotted: a peak between two samples" in render_html(Report(tests=(missed,))).lower()


def test_notes_that_differ_by_their_figures_are_one_with_a_count():
    tests = tuple(
        TestRecord(nodeid=f"test_{n}", outcome="passed", caveats=(f"at most {n}.5 MiB were missed",))
        for n in range(11)
    )
    assert caveat_counts(tests) == [("at most 0.5 MiB were missed", 11)]
