import pytest

from pytest_membudget.gate.baseline import compare_reports
from pytest_membudget.records.report import Environment, Report, TestRecord

MIB = 2**20


def report(system="Linux", **tests):
    return Report(
        environment=Environment(system=system),
        tests=tuple(
            TestRecord(
                nodeid=f"t.py::{name}",
                outcome="passed",
                peak_bytes=peaks[0] * MIB,
                samples_bytes=tuple(peak * MIB for peak in peaks[1:]),
            )
            for name, peaks in tests.items()
        ),
    )


def findings(base, new):
    return {row.nodeid.partition("::")[2]: row.finding for row in compare_reports(base, new).rows}


def test_medians_beyond_the_tolerance_are_called():
    base = report(same=[100], up=[100], down=[100])
    assert findings(base, report(same=[109], up=[120], down=[80])) == {
        "same": "same",
        "up": "regressed",
        "down": "improved",
    }


def test_the_rank_test_has_a_veto_where_it_can_speak():
    wide = [100, 40, 100, 100, 200, 210]
    assert findings(report(t=wide), report(t=[100, 120, 90, 200, 130, 60])) == {"t": "same"}
    (row,) = compare_reports(report(t=[100, 99, 100, 101, 100]), report(t=[130, 129, 130, 131, 130])).rows
    assert (row.finding, row.p) == ("regressed", pytest.approx(2 / 70, abs=0.001))


def test_samples_are_compared_with_samples_and_single_peaks_with_single_peaks():
    # The base has fresh samples of 140, the new report only its one measurement within a session.
    assert findings(report(t=[100, 140, 140, 140]), report(t=[101])) == {"t": "same"}


def test_the_interval_needs_six_samples_and_says_so():
    few = compare_reports(report(t=[100]), report(t=[100]))
    assert few.rows[0].base.spread is None
    assert few.caveats == (
        "an interval for the median at 95% needs 6 samples; some tests have 1",
        "1 judged by the tolerance alone: a rank test needs 4 samples on both sides, there are as few as 1",
    )
    samples = [100, 98, 99, 100, 100, 101, 105]
    many = compare_reports(report(t=samples), report(t=samples))
    assert many.rows[0].base.spread == pytest.approx(0.05)
    assert many.caveats == ()


def test_the_fewest_samples_of_any_test_and_side_are_named():
    base = report(a=[100] * 8, b=[100] * 3, c=[100] * 4)
    new = report(a=[100] * 8, b=[100] * 6, c=[100] * 4)
    assert compare_reports(base, new).caveats == compare_reports(new, base).caveats
    assert compare_reports(base, new).caveats == (
        "an interval for the median at 95% needs 6 samples; some tests have 2",
        "2 judged by the tolerance alone: a rank test needs 4 samples on both sides, there are as few as 2",
    )


def test_the_geometric_mean_of_all_ratios():
    comparison = compare_reports(report(a=[100], b=[100], c=[0]), report(a=[200], b=[50], c=[0]))
    assert comparison.geomean_ratio == pytest.approx(1)


def test_what_only_one_of_them_has_is_named():
    comparison = compare_reports(report(kept=[1], lost=[500]), report("Darwin", kept=[1], fresh=[7]))
    assert (comparison.new, comparison.gone) == (("t.py::fresh",), ("t.py::lost",))
    assert comparison.foreign == ("system Linux there, Darwin here",)
