import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_membudget.calibration.growth_law import assert_law, check_law, fit_law, parse_slope, predict_next
from pytest_membudget.calibration.scales import (
    PRESETS,
    chosen_scales,
    configured_scales,
    default_scales,
    run_scales,
    scale_row,
)
from pytest_membudget.errors import OverBudgetError, UsageError
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.records.run import Feature
from pytest_membudget.records.scale import TaskFigures

MB = 1_000_000
SCALES = default_scales()


def row(name, peak_mb, smaller=(), **options):
    peak = round(peak_mb * MB)
    measurement = Measurement(
        peak_bytes=peak,
        peak_upper_bytes=peak,
        total_peak_bytes=peak + 30 * MB,
        start_bytes=30 * MB,
        end_bytes=30 * MB,
        duration_s=2.0,
        processes=3,
        source="kernel",
    )
    return scale_row(SCALES[name], measurement, limit_bytes=1000 * MB, smaller=smaller, **options)


def rows(*peaks_mb):
    found = []
    for name, peak in zip(SCALES, peaks_mb, strict=False):
        found.append(row(name, peak, tuple(found)))
    return found


def test_the_reference_shapes_are_presets():
    shapes = [(s.rows, s.batches, s.workers, s.in_flight) for s in PRESETS.values()]
    assert shapes == [(50_000, 1, 4, 1), (150_000, 3, 6, 3), (500_000, 10, 8, 10)]


def test_scales_are_chosen_by_name_and_ordered_by_size():
    assert [scale.name for scale in chosen_scales(("medium", "micro", "medium"))] == ["micro", "medium"]
    with pytest.raises(UsageError, match="there is no scale 'tiny'; there are: micro, small"):
        chosen_scales(("tiny",))


def test_a_project_changes_and_adds_scales():
    found = configured_scales(
        {"large": {"size": "64 MB", "in_flight": 3}, "night": {"rows": 7, "size": "1 GB"}}
    )
    assert (found["large"].size_bytes, found["large"].in_flight, found["large"].batches) == (64 * MB, 3, 8)
    assert (found["night"].rows, found["night"].workers) == (7, 2)


@pytest.mark.parametrize(
    "fields",
    [{"colour": 1}, {"rows": 0}, {"workers": True}, {"batches": "3"}, {"size": "3"}, {"size": "0 B"}],
)
def test_a_scale_that_makes_no_sense_is_named(fields):
    with pytest.raises(UsageError, match="scale 'odd' has"):
        configured_scales({"odd": fields})


def test_a_row_is_graded_by_budget_and_by_target():
    assert row("micro", 500).status == "PASS"
    assert row("micro", 701).status == "HIGH"
    assert row("micro", 600, target="50%").status == "HIGH"
    assert row("micro", 500, budget="400 MB").status == "FAIL"


def test_a_larger_scale_is_predicted_from_the_smaller_ones_alone():
    found = rows(22, 28, 53, 148)
    assert [r.predicted_bytes for r in found[:2]] == [None, None]
    assert found[2].predicted_bytes == pytest.approx(52 * MB, rel=0.01)
    assert (
        53 * MB < found[2].predicted_bound_bytes < 100 * MB
    )  # two points: all that the doubt about each allows
    assert found[3].predicted_bytes == pytest.approx(150 * MB, rel=0.03)
    assert found[3].predicted_bound_bytes >= found[3].predicted_bytes
    assert predict_next(found[:1], SCALES["large"]) is None


def test_rows_whose_tasks_ran_elsewhere_predict_nothing():
    def figures(level):
        return TaskFigures(count=2, size_bytes=2_000_000, workers=2, peaks=(), level=level)

    threads = [row(name, peak, tasks=figures("thread")) for name, peak in (("micro", 10), ("small", 12))]
    found = row("medium", 90, smaller=threads, tasks=figures("process"))
    assert found.predicted_bytes is None
    assert (
        "not predicted from micro, small: their tasks ran at level thread, these at process"
        in found.caveats[0]
    )
    alike = row("medium", 90, smaller=threads, tasks=figures("thread"))
    assert alike.predicted_bytes
    assert not alike.caveats


def test_a_law_carries_its_slope_its_bound_and_its_curve():
    law = fit_law(rows(22, 28.1, 52))
    assert (law.shape, law.slope) == ("linear", pytest.approx(4, rel=0.02))
    assert law.slope < law.slope_bound < 4.5
    assert [point.size_bytes for point in law.curve][-1] == SCALES["medium"].size_bytes
    assert fit_law(rows(22)) is None
    assert "no bound" in fit_law(rows(22, 28)).caveats[0]


def test_a_law_that_holds_passes():
    assert assert_law(rows(50, 50.4, 50.1), "flat").shape == "flat"
    assert assert_law(rows(22, 28.1, 52), "linear", "8 B/B").shape == "linear"
    assert assert_law(rows(22, 28.1, 52)).shape == "linear"


@pytest.mark.parametrize(
    ("peaks", "law", "at_most"),
    [
        ((22, 28, 52), "flat", None),
        ((22, 28, 52), "linear", "3 B/B"),
        ((22, 34, 500), "linear", None),
        ((50, 50, 52), "flat", "0.1 B/B"),
        ((22, 28, 52), None, "3 B/B"),
    ],
)
def test_a_law_that_does_not_hold_says_what_was_seen(peaks, law, at_most):
    with pytest.raises(OverBudgetError, match=r"does not hold.*MiB at"):
        assert_law(rows(*peaks), law, at_most)


def test_laws_and_slopes_are_checked_before_anything_runs():
    assert (parse_slope("8 B/B"), parse_slope("1.5kB/B"), parse_slope("2 MB/MB")) == (8, 1500, 2)
    for text in ("8", "8 B", "B/B", "8 B/row"):
        with pytest.raises(UsageError, match="not a slope"):
            check_law("linear", text)
    with pytest.raises(UsageError, match="not a law"):
        check_law("cubic", None)
    with pytest.raises(UsageError, match="at least two scales"):
        assert_law(rows(50), "flat")


amounts = st.one_of(st.sampled_from([0, 1, 4096, MB, 10**9, 10**13]), st.integers(0, 10**13))


@given(st.lists(st.tuples(amounts, amounts, amounts), max_size=7), amounts)
@settings(max_examples=60, deadline=None)
def test_any_rows_give_a_law_and_a_prediction_in_order(figures, size):
    plain = row("micro", 1)
    found = [
        msgspec.structs.replace(
            plain,
            scale=msgspec.structs.replace(plain.scale, name=str(number), size_bytes=size_bytes),
            peak_bytes=peak_bytes,
            peak_upper_bytes=peak_bytes + open_bytes,
        )
        for number, (size_bytes, peak_bytes, open_bytes) in enumerate(figures)
    ]
    predicted = predict_next(found, msgspec.structs.replace(plain.scale, size_bytes=size))
    law = fit_law(found)
    assert (predicted is None) == (law is None) == (len({one[0] for one in figures}) < 2)
    if predicted and law:
        assert 0 <= predicted.expected_bytes <= predicted.bound_bytes
        assert law.slope <= law.slope_bound < math.inf
        assert all(point.expected_bytes <= point.bound_bytes for point in law.curve)


def test_the_first_of_several_runs_is_not_measured():
    runs = []
    table = run_scales(lambda scale: runs.append(scale.name), ("small", "micro"))
    assert runs == ["micro", "micro", "small"]
    assert [row.scale.name for row in table.rows] == ["micro", "small"]


def test_scales_are_run_from_the_rooms_own_name():
    from pytest_membudget import calibration

    assert calibration.run_scales is run_scales
    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        calibration.absent  # noqa: B018


def test_totals_follow_the_predictors_of_the_scale():
    def held(scale):
        return [bytes(10_000) for _ in range(scale.batches**2 * 300)]

    table = run_scales(held, predictors={"squares": lambda scale: scale.batches**2, "bytes": None})
    last = table.rows[-1]
    assert [feature.name for feature in last.features] == ["squares", "bytes"]
    assert last.predicted_bytes is None  # two rows cannot tell two predictors apart
    one = run_scales(held, predictors={"squares": lambda scale: scale.batches**2}).rows[-1]
    assert one.predicted_bytes == pytest.approx(one.peak_bytes, rel=0.3)


def test_several_predictors_of_totals_need_three_rows():
    def of(n, m):
        return Feature("n", n), Feature("m", m)

    places = [(1, 5), (2, 3), (4, 4), (5, 9)]
    smaller = [
        row(name, 20 + 3 * n * m, features=of(n, m)) for name, (n, m) in zip(SCALES, places, strict=True)
    ]
    found = predict_next(smaller, SCALES["large"], of(8, 8))
    assert found.expected_bytes == pytest.approx((20 + 3 * 64) * MB, rel=0.02)
    assert found.bound_bytes > found.expected_bytes
    assert predict_next(smaller[:2], SCALES["large"], of(8, 8)) is None


def test_predictors_of_scales_are_checked_before_anything_runs():
    with pytest.raises(UsageError, match="the predictor 'wrong' fails on Scale"):
        run_scales(print, predictors={"wrong": lambda scale: scale.pages})
    with pytest.raises(UsageError, match="4 predictors given"):
        run_scales(print, predictors=dict.fromkeys("abcd", len))
