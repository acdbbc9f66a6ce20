import json
import math

import pytest

from pytest_membudget import Calibration, UnreadableFileError, UsageError, fit_points, load_calibration
from pytest_membudget.records.calibration import CalibrationFile, CalibrationPoint
from pytest_membudget.stats.fitting import RUN_TO_RUN_BYTES

MB = 1_000_000
PARSER = [
    (size * MB, 20 * MB + 3 * size * MB + wiggle) for size in (1, 2, 4, 8) for wiggle in (0, 9_000, -9_000)
]


def test_points_become_gamma_and_overhead():
    found = fit_points(PARSER)
    assert (found.gamma, found.overhead_bytes) == (
        pytest.approx(3, rel=1e-3),
        pytest.approx(20 * MB, rel=1e-3),
    )
    assert (found.curved, found.base_bytes, found.max_size_bytes) == (False, 0, 8 * MB)
    assert found.points == tuple(PARSER)


def test_the_bound_lies_above_the_estimate_and_sizes_may_be_text():
    found = fit_points(PARSER)
    assert found.expect("4 MB") < found.bound("4 MB") < found.bound("4 MB", content=0.99) < 1.01 * 32 * MB


def test_the_bound_is_never_below_a_peak_seen_at_that_size_or_a_smaller_one():
    spike = [*PARSER, *PARSER, *PARSER, (2 * MB, 90 * MB)]
    found = fit_points(spike)
    assert found.bound(2 * MB) >= 90 * MB
    assert found.bound(3 * MB) >= 90 * MB
    assert found.bound(1 * MB) < 90 * MB


def test_beyond_a_quarter_more_than_the_largest_size_is_extrapolated():
    found = fit_points(PARSER)
    assert not found.is_extrapolated("10 MB")
    assert found.is_extrapolated(10 * MB + 1)


def test_a_quadratic_peak_gets_a_curved_bound():
    found = fit_points([(size * MB, MB + size * size * MB) for size in (1, 2, 4, 8)])
    assert found.curved
    assert found.expect("16 MB") == pytest.approx(257 * MB, rel=0.01)
    assert any("faster than the size" in caveat for caveat in found.caveats)


def test_quality_is_judged_size_by_size():
    quality = fit_points(PARSER).quality
    assert quality.judged == len(PARSER)
    assert quality.error < 0.001
    assert 0 <= quality.under_low <= quality.under_predicted / quality.judged <= quality.under_high <= 1
    assert quality.over_allocation < 0.01


def test_a_saved_calibration_reads_back(tmp_path):
    found, path = fit_points(PARSER, content=0.9), tmp_path / "parser.json"
    found.save(path)
    again = load_calibration(path)
    assert (again.file, again.bound(5 * MB)) == (found.file, found.bound(5 * MB))
    assert json.loads(path.read_text())["gamma"] == pytest.approx(3, rel=1e-3)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"format": "membudget-report"}',
        b'{"points": [[1, 2], [2, 3]], "content": 0.95, "confidence": 0.95}',
        b'{"points": [[1, 2], [2, 3], [3, -4]], "content": 0.95, "confidence": 0.95}',
        b'{"points": [[1, 2], [2, 3], [3, 4]], "content": 7, "confidence": 0.95}',
        b'{"version": 2, "points": [[1, 2], [2, 3], [3, 4]], "content": 0.9, "confidence": 0.95}',
    ],
)
def test_a_file_that_is_no_calibration_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "odd.json"
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match="is not a calibration"):
        load_calibration(path)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(UsageError, match="at least 3"):
        fit_points(PARSER[:2])
    with pytest.raises(ValueError, match="content"):
        fit_points(PARSER, content=1)
    with pytest.raises(ValueError, match="negative"):
        fit_points([(1, 2), (2, 3), (3, -4)])


def test_one_size_is_said_to_tell_nothing_of_growth():
    found = fit_points([(MB, 5 * MB)] * 3)
    assert (found.gamma, found.quality) == (0, None)
    assert "nothing is known" in found.caveats[0]


def test_a_picture_carries_the_curve_for_a_report():
    picture = fit_points(PARSER).picture("parser")
    assert picture.curve[-1].size_bytes == 10 * MB
    assert all(point.expected_bytes <= point.bound_bytes for point in picture.curve)
    assert isinstance(fit_points(PARSER), Calibration)
    assert not math.isnan(picture.gamma)


def test_a_bound_by_predictors_leaves_what_two_runs_of_one_input_may_differ_by():
    values = [(float(lines),) for lines in (500, 1000, 1500, 2000)] * 3
    points = tuple(CalibrationPoint(0, round(16 * lines * lines)) for (lines,) in values)
    file = CalibrationFile(
        version=2, predictors=("lines",), values=tuple(values), points=points, content=0.95, confidence=0.95
    )
    found = Calibration(file)
    seen_for_less = {"lines": 400}
    assert found.expect(seen_for_less) == pytest.approx(16 * 400**2, rel=0.01)
    assert found.bound(seen_for_less) >= found.expect(seen_for_less) + RUN_TO_RUN_BYTES


@pytest.mark.parametrize(
    ("peaks_mb", "says"),
    [
        ((30, 20, 10, 4, 5, 6), "the peak falls as the size grows, so the estimate is the same for all"),
        ((2, 4, 63, 65, 67, 69), "off on average: the size alone does not predict it; name what it follows"),
        ((10, 13, 16, 19, 22, 25), ""),
        ((20, 20, 20, 20, 20, 20), ""),
    ],
)
def test_a_law_that_is_a_poor_guide_says_so(peaks_mb, says):
    found = fit_points([(size * MB, peak * MB) for size, peak in enumerate(peaks_mb, 1)])
    assert says in " ".join(found.caveats)
    assert bool(found.caveats) == bool(says)


def test_runs_above_the_bound_of_the_others_are_no_praise_of_the_bound():
    found = fit_points(
        [(size * MB, peak * MB) for size, peak in ((1, 10), (2, 10.001), (3, 10), (4, 10.001), (8, 40))]
    )
    assert found.quality.under_predicted == found.quality.under_extrapolated == 1
    assert "1 of 5 runs, all beyond the others, lay above the bound that follows from these" in " ".join(
        found.caveats
    )


def test_two_inputs_cannot_show_which_predictors_help():
    two = fit_points([({"a": n, "b": 3 - n}, (10 + n) * MB) for n in (1, 2, 1)])
    assert "2 different inputs cannot show whether a and b help to predict" in " ".join(two.caveats)
    one = fit_points([({"a": n}, (10 + n) * MB) for n in (1, 2, 1)])
    assert one.predictors == ("a",)
    assert "help to predict" not in " ".join(one.caveats)


def test_points_of_very_many_sizes_are_each_judged_by_others():
    found = fit_points([(1_000_000 + 9_973 * n, 20_000_000 + 3 * n * 9_973) for n in range(40)])
    assert found.quality is not None
    assert found.quality.judged == 40
    assert found.quality.under_predicted == 0


def test_a_line_through_two_inputs_says_that_its_bound_knows_repeats_only():
    two = fit_points([(1 * MB, 10 * MB), (1 * MB, 11 * MB), (2 * MB, 20 * MB)])
    assert "a line goes through any two inputs" in " ".join(two.caveats)
    three = fit_points([(1 * MB, 10 * MB), (2 * MB, 20 * MB), (3 * MB, 30 * MB)])
    assert "any two inputs" not in " ".join(three.caveats)
