"""Do bounds by two or three predictors hold on inputs that were not run, and at what price, beside bytes alone?"""

import pickle
import random
import shutil

import predicted_functions
import pytest

from pytest_membudget import calibrate, fit_points
from pytest_membudget.calibration.plan import plan_inputs, smallest
from pytest_membudget.calibration.run_executors import run_fresh
from pytest_membudget.calibration.worker import RunInput, refer_to
from pytest_membudget.runtime.prediction.predictors import Predictors
from pytest_membudget.stats.bounds import rate_interval

pytestmark = pytest.mark.timeout(0)
INPUTS, REPEATS, HELD_OUT = 10, 2, 15
FLOOR_BYTES = 16_000_000  # what a figure costs at least, as in the benchmark of calibration


def made(make, folder, seed, count):
    """So many inputs, each in a folder of its own."""
    items = []
    for number in range(count):
        place = folder / f"{seed}-{number}"
        place.mkdir()
        items.append(make(place, random.Random(1000 * seed + number)))
    return items


@pytest.fixture(scope="module")
def judged():
    return {}


@pytest.mark.parametrize("name", predicted_functions.FUNCTIONS)
def test_one_function(name, judged, figure, tmp_path):
    fn, make, predictors = predicted_functions.FUNCTIONS[name]
    known = made(make, tmp_path, 1, INPUTS)
    found = calibrate(fn, inputs=known, repeats=REPEATS, predictors=predictors, progress=False)
    by_bytes = fit_points(found.points) if all(point.size_bytes for point in found.points) else None
    warm_up = smallest(plan_inputs(known, 1, 0, Predictors(predictors))).input
    assert warm_up is not None
    rows = []
    for item in made(make, tmp_path, 2, HELD_OUT):
        held_out = RunInput(pickled=pickle.dumps(item))
        answer = run_fresh(refer_to(fn), warm_up, held_out, tmp_path)
        assert not answer.failed_at, answer.error
        rows.append(
            (
                answer.peak_bytes,
                found.bound(item),
                by_bytes.bound(item) if by_bytes else None,
                found.is_extrapolated(item),
            )
        )
    shutil.rmtree(tmp_path, ignore_errors=True)
    judged[name] = rows
    covered = sum(peak <= bound for peak, bound, _, _ in rows)
    beside = ""
    if by_bytes:
        alone = [(bound, peak) for peak, _, bound, _ in rows if bound is not None]
        kept = sum(bound >= peak for bound, peak in alone)
        beside = f"bytes alone: {kept}/{len(rows)}, {over(alone):+.0%}"
    figure(
        f"{name}: follows {' and '.join(found.predictors)}, held-out runs covered",
        f"{covered}/{len(rows)}, over-allocation {over([(bound, peak) for peak, bound, _, _ in rows]):+.1%}",
        beside,
    )


def test_all_functions_together(judged, figure):
    if len(judged) < len(predicted_functions.FUNCTIONS):
        pytest.skip("only some functions ran")
    rows = [row for each in judged.values() for row in each]
    covered = sum(peak <= bound for peak, bound, _, _ in rows)
    low, high = rate_interval(covered, len(rows))
    inside = [(bound, peak) for peak, bound, _, extrapolated in rows if not extrapolated]
    figure(
        "all: held-out runs covered",
        f"{covered}/{len(rows)} = {covered / len(rows):.1%}",
        f"at least 95%; true rate {low:.1%} to {high:.1%}",
    )
    figure("all: over-allocation within the calibrated range", f"{over(inside):.1%}", "at most 15%")
    alone = [(bound, peak) for peak, _, bound, _ in rows if bound is not None]
    figure(
        "all with a size: bytes alone",
        f"{sum(bound >= peak for bound, peak in alone)}/{len(alone)} covered",
        f"over-allocation {over(alone):.0%}",
    )
    assert len(rows) == 150
    assert covered / len(rows) >= 0.95
    assert over(inside) <= 0.15


def over(pairs):
    return sum(given for given, _ in pairs) / sum(max(peak, FLOOR_BYTES) for _, peak in pairs) - 1
