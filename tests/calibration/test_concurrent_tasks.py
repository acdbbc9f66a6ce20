"""A larger scale is put together from what the tasks of the smaller ones took."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget.calibration.growth_law import MOST_PEAKS, predict_next, task_figures
from pytest_membudget.records.run import BatchResult, Breakdown, Feature, Outcome
from pytest_membudget.records.scale import Scale, ScaleRow, TaskFigures, TaskPeak

MB = 1_000_000
START_MB, BASE_MB = 30, 8


def scale(batches, batch_mb=2, workers=2):
    size_bytes = batches * batch_mb * MB
    return Scale(
        name=f"{batches}x{batch_mb}",
        rows=1,
        size_bytes=size_bytes,
        batches=batches,
        workers=workers,
        in_flight=workers,
    )


def row(ran, overlap=1.0, task_mb_per_mb=9, coordinator_mb=40, loose_mb=0):
    """A row of two-worker batches whose tasks' high moments met as far as `overlap` says."""
    workers, one_mb = min(ran.workers, ran.batches), ran.size_bytes / ran.batches / MB
    task_mb = task_mb_per_mb * one_mb
    most_mb = coordinator_mb + workers * (BASE_MB + task_mb) - START_MB
    peak_mb = most_mb - (1 - overlap) * workers * task_mb
    return ScaleRow(
        scale=ran,
        peak_bytes=round(peak_mb * MB),
        peak_upper_bytes=round((most_mb + loose_mb) * MB),
        limit_bytes=10**9,
        budget_bytes=None,
        duration_s=1.0,
        status="PASS",
        breakdown=Breakdown(
            peak_bytes=round((peak_mb + START_MB) * MB),
            coordinator_bytes=coordinator_mb * MB,
            workers_base_bytes=workers * BASE_MB * MB,
            task_bytes=round(workers * task_mb * overlap * MB),
            waiting_results_bytes=0,
            other_bytes=0,
        ),
        tasks=TaskFigures(
            count=ran.batches,
            size_bytes=ran.size_bytes,
            workers=workers,
            peaks=(TaskPeak(round(one_mb * MB), round(task_mb * MB)),) * ran.batches,
        ),
    )


def mb(predicted):
    return predicted.expected_bytes / MB, predicted.bound_bytes / MB


def test_chance_meetings_are_not_taken_for_growth():
    truth = row(scale(12))
    met_late = [row(scale(2), overlap=0.4), row(scale(6), overlap=0.95)]
    expected, at_most = mb(predict_next(met_late, truth.scale))
    assert expected == pytest.approx(truth.peak_bytes / MB, rel=0.05)
    assert truth.peak_bytes / MB <= at_most < 1.1 * truth.peak_bytes / MB
    by_totals = [msgspec.structs.replace(one, tasks=None) for one in met_late]
    assert mb(predict_next(by_totals, truth.scale))[0] > 1.4 * truth.peak_bytes / MB


def test_what_a_smaller_scale_took_is_not_gone_below():
    missed = row(scale(2), overlap=0.0)  # its tasks ran one after the other
    missed = msgspec.structs.replace(missed, peak_upper_bytes=missed.peak_bytes)
    met = row(scale(6), overlap=0.9)
    expected, at_most = mb(predict_next([missed, met], scale(12)))
    assert expected == pytest.approx(met.peak_bytes / MB, rel=0.02)
    assert at_most >= row(scale(12)).peak_bytes / MB


def test_files_and_workers_that_grow_are_followed():
    truth = row(scale(8, batch_mb=4, workers=4))
    expected, at_most = mb(
        predict_next([row(scale(1, 0.5)), row(scale(2, 1)), row(scale(4, 2))], truth.scale)
    )
    assert expected == pytest.approx(truth.peak_bytes / MB, rel=0.02)
    assert at_most >= expected


def test_a_coordinator_that_keeps_what_came_back_grows_with_the_job():
    before = [row(scale(2), coordinator_mb=40), row(scale(6), coordinator_mb=56)]
    truth = row(scale(12), coordinator_mb=80)
    assert mb(predict_next(before, truth.scale))[0] == pytest.approx(truth.peak_bytes / MB, rel=0.02)


def test_a_coordinator_that_differs_a_little_is_not_taken_to_grow():
    before = [row(scale(2), coordinator_mb=130), row(scale(6), coordinator_mb=138)]
    truth = row(scale(12), coordinator_mb=130)
    expected, at_most = mb(predict_next(before, truth.scale))
    assert expected == pytest.approx(truth.peak_bytes / MB, rel=0.08)
    assert at_most > mb(predict_next([row(scale(2)), row(scale(6))], truth.scale))[1] + 90  # it may


def test_one_loose_upper_figure_widens_the_bound_alone():
    rows = [row(scale(2), loose_mb=30), row(scale(6))]
    expected, at_most = mb(predict_next(rows, scale(12)))
    assert expected == pytest.approx(rows[1].peak_bytes / MB, rel=0.02)
    assert at_most >= expected + 29


@pytest.mark.parametrize(
    "odd",
    [
        scale(12, batch_mb=3),  # tasks of 2 MB say nothing of those
        Scale(name="whole", rows=1, size_bytes=24 * MB, batches=0, workers=2, in_flight=2),
    ],
)
def test_what_the_tasks_do_not_tell_is_left_to_the_totals(odd):
    rows = [row(scale(2)), row(scale(6))]
    by_totals = [msgspec.structs.replace(one, tasks=None) for one in rows]
    assert predict_next(rows, odd) == predict_next(by_totals, odd)


def test_a_job_that_is_cut_otherwise_than_its_scale_is_left_to_the_totals():
    whole = [msgspec.structs.replace(row(scale(2)), scale=scale(2, 5)), row(scale(6))]
    by_totals = [msgspec.structs.replace(one, tasks=None) for one in whole]
    assert predict_next(whole, scale(12)) == predict_next(by_totals, scale(12))


@given(
    st.lists(
        st.tuples(
            st.integers(1, 40), st.floats(0.1, 50), st.integers(1, 8), st.floats(0, 1), st.floats(0, 500)
        ),
        min_size=2,
        max_size=4,
    ),
    st.integers(1, 100),
)
def test_the_bound_is_never_below_the_estimate(shapes, batches):
    rows = [
        row(scale(count, round(size, 1), workers), overlap, loose_mb=loose)
        for count, size, workers, overlap, loose in shapes
    ]
    predicted = predict_next(rows, scale(batches))
    if predicted is not None:
        assert 0 <= predicted.expected_bytes <= predicted.bound_bytes


def batch(*outcomes):
    return BatchResult(
        outcomes=outcomes,
        peak_bytes=1,
        duration_s=1.0,
        budget_bytes=1,
        limit_bytes=1,
        workers=3,
        max_in_flight=3,
    )


def test_figures_of_many_tasks_are_few_and_keep_the_largest():
    outcomes = [Outcome(item=n, size_bytes=10, peak_bytes=n if n != 101 else 9999) for n in range(1000)]
    found = task_figures(batch(*outcomes))
    assert (found.count, found.size_bytes, found.workers) == (1000, 10_000, 3)
    assert len(found.peaks) <= MOST_PEAKS + 1
    assert max(peak.peak_bytes for peak in found.peaks) == 9999


@pytest.mark.parametrize(
    "odd", [{"error": ValueError()}, {"peak_bytes": None}, {"size_bytes": None}, {"attempts": 2}]
)
def test_a_batch_whose_tasks_are_not_all_known_gives_no_figures(odd):
    plain = Outcome(item=1, size_bytes=10, peak_bytes=20)
    assert task_figures(batch(plain, plain)) is not None
    assert task_figures(batch(plain, msgspec.structs.replace(plain, **odd))) is None
    assert task_figures(batch()) is None


def by_cells(ran, cells, workers=2):
    """A row whose tasks follow the cells of a table and have no size."""
    one_mb = 10 + cells / 1000
    features = (Feature("cells", cells),)
    tasks = TaskFigures(
        count=ran.batches,
        size_bytes=0,
        workers=workers,
        peaks=(TaskPeak(0, round(one_mb * MB), features),) * ran.batches,
    )
    return msgspec.structs.replace(
        row(ran, task_mb_per_mb=one_mb * ran.batches * MB / ran.size_bytes), tasks=tasks
    )


def test_tasks_that_go_by_predictors_are_predicted_by_those_of_the_scale():
    smaller = [by_cells(scale(2), 1_000), by_cells(scale(6), 5_000)]
    truth = by_cells(scale(8), 20_000)
    expected, at_most = mb(predict_next(smaller, truth.scale, (Feature("cells", 20_000),)))
    assert expected == pytest.approx(truth.peak_bytes / MB, rel=0.05)
    assert at_most >= expected
    assert predict_next(smaller[:1], truth.scale, (Feature("cells", 20_000),)) is None


def test_tasks_without_a_size_are_known_by_their_predictors():
    one = Outcome(item=3, peak_bytes=5 * MB, features=(Feature("n", 3.0),))
    assert task_figures(batch(one)).peaks == (TaskPeak(0, 5 * MB, (Feature("n", 3.0),)),)
