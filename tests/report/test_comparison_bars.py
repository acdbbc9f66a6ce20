"""A test against its baseline as bars: both figures, each fresh sample, and where the tolerance ends."""

import pytest

from pytest_membudget.records.report import Comparison, Report, TestRecord
from pytest_membudget.report.html import render_html
from pytest_membudget.report.pictures import changes

MIB = 2**20


def record(name, base, new, finding, *, samples=(), base_samples=()):
    comparison = Comparison(
        base_bytes=base * MIB,
        new_bytes=new * MIB,
        allowed_bytes=round(1.1 * base * MIB) + MIB,
        finding=finding,
        samples_bytes=tuple(each * MIB for each in samples),
        base_samples_bytes=tuple(each * MIB for each in base_samples),
    )
    return TestRecord(nodeid=name, outcome="passed", peak_bytes=new * MIB, comparison=comparison)


TESTS = (
    record("test_same", 100, 101, "same"),
    record("test_noise", 100, 112, "same", samples=(100, 125)),
    record("test_better", 100, 50, "improved"),
    record("test_worse", 100, 200, "regressed", samples=(190, 200, 208), base_samples=(99, 101)),
)


def test_what_changed_comes_first_and_what_did_not_is_left_out():
    assert [change.nodeid for change in changes(TESTS)] == ["test_worse", "test_better", "test_noise"]


def test_lengths_are_in_proportion_and_within_the_picture():
    worse = changes(TESTS)[0]
    base, now = worse.lanes
    assert (base.title, base.size, now.title, now.size) == ("baseline", "100 MiB", "now", "200 MiB")
    assert now.width == pytest.approx(2 * base.width, abs=0.02)
    assert worse.allowed_at == pytest.approx(1.11 * base.width, abs=0.02)
    assert len(base.ticks) == 2
    assert len(now.ticks) == 3
    for change in changes(TESTS):
        assert all(0 < each < 100 for lane in change.lanes for each in (lane.width, *lane.ticks))
        assert 0 < change.allowed_at < 100


def test_the_page_draws_them_and_tells_those_who_do_not_see():
    page = render_html(Report(tests=TESTS))
    assert 'aria-label="baseline 100 MiB, now 200 MiB (+100.0%), allowed 111 MiB"' in page
    assert page.count('<div class="lane regressed">') == 1
    assert page.count('<div class="lane improved">') == 1


def test_a_test_that_took_nothing_before_has_a_bar():
    (change,) = changes([record("test_new_cost", 0, 40, "regressed")])
    assert change.lanes[0].width == 0
