"""The layout of a chart: round ticks, everything within the picture, labels that do not cover each other."""

import re

import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget.report.charts import HEIGHT, WIDTH, Band, Chart, Dots, Limit, Line, render_chart, ticks


def drawn(*marks, spoken="what is seen"):
    return BeautifulSoup(render_chart(Chart("input, MiB", "peak, MiB", spoken, marks)), "lxml").svg


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (30, (0, 5, 10, 15, 20, 25, 30)),
        (31, (0, 10, 20, 30, 40)),
        (0.8, (0, 0.2, 0.4, 0.6, 0.8)),
        (0, (0, 1)),
    ],
)
def test_ticks_are_round_and_reach_the_end(end, expected):
    assert ticks(end) == pytest.approx(expected)


@given(st.floats(1e-6, 1e15))
def test_there_are_never_too_many_ticks(end):
    positions = ticks(end)
    assert 2 <= len(positions) <= 8
    assert positions[-1] >= end * (1 - 1e-6)


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)), min_size=1, max_size=20), st.floats(0, 1e9))
def test_nothing_is_drawn_outside_the_picture(points, limit):
    line = tuple(points)
    svg = drawn(Line("a", "series-1", line), Dots("b", "series-2", line), Limit("limit", "bad", limit))
    for polyline in svg.select("polyline"):
        for x, y in (map(float, pair.split(",")) for pair in polyline["points"].split()):
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT
    for circle in svg.select("circle"):
        assert 0 <= float(circle["cx"]) <= WIDTH
        assert 0 <= float(circle["cy"]) <= HEIGHT


def test_higher_figures_stand_higher():
    svg = drawn(Dots("peak", "series-1", ((1, 10), (2, 20))))
    low, high = (float(circle["cy"]) for circle in svg.select("circle")[:2])
    assert high < low


def test_a_label_that_would_cover_another_is_left_out():
    near = Dots("peak", "series-1", ((1, 10), (1.1, 10.1), (9, 90)), ("MICRO", "SMALL", "LARGE"))
    assert [text.get_text() for text in drawn(near).select("text.label")] == ["LARGE", "SMALL"]


def test_names_from_outside_are_text_and_the_picture_is_spoken():
    svg = drawn(Band('<script>"', "series-1", ((0, 0), (1, 1)), ((0, 1), (1, 2))), spoken='a "b" & c')
    assert svg["aria-label"] == 'a "b" & c'
    assert svg.select("script") == []
    assert '<script>"' in svg.get_text()


def test_many_names_take_several_rows_of_the_legend():
    lines = [Line(f"SCALE NUMBER {number}", "series-1", ((0, 0), (1, number))) for number in range(1, 9)]
    names = [text for text in drawn(*lines).select("text") if re.match("SCALE", text.get_text())]
    assert len({text["y"] for text in names}) > 1
    assert all(float(text["x"]) < WIDTH for text in names)
