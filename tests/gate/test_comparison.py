import pytest

from pytest_membudget.gate.comparison import compare_test, judge_comparison, judge_undecided
from pytest_membudget.records.report import TestRecord

MIB = 2**20


def record(peak, samples=(), upper=None):
    return TestRecord(
        nodeid="test_a.py::test_x",
        outcome="passed",
        peak_bytes=peak * MIB,
        peak_upper_bytes=(upper or peak) * MIB,
        samples_bytes=tuple(sample * MIB for sample in samples),
    )


def compared(new, base, samples=(), **more):
    return compare_test(new, base, samples_bytes=[sample * MIB for sample in samples], **more)


def test_a_regression_fails_with_both_numbers_and_what_to_do():
    found = compared(record(150), record(120, [119, 120, 121, 120, 120]), [150, 151, 149, 150, 152])
    judgement = judge_comparison(found, nodeid="test_a.py::test_x")
    assert (judgement.verdict, judgement.failed) == ("regressed", True)
    assert judgement.message.splitlines() == [
        "regressed: peak 150 MiB, baseline 120 MiB (+25.0%), allowed 133 MiB",
        "  how       run again in 5 fresh processes: 150 MiB, 151 MiB, 149 MiB, 150 MiB, 152 MiB",
        "            rank test against the baseline's 5 samples: p = 0.0040",
        '  next      see who allocated it: run this test with --membudget-memray "test_a.py::test_x"',
        "            or, if it may use that much: pytest --membudget-update-baseline",
    ]


def test_too_few_samples_are_a_caveat_that_says_how_many_it_needs():
    alone = compared(record(150), record(120), [150] * 4)
    assert alone.finding == "regressed"
    (caveat,) = alone.caveats
    assert caveat.startswith(
        "judged by the tolerance alone: the baseline has no samples from fresh processes"
    )
    assert caveat.endswith("a rank test against 4 needs 6")
    (once,) = compared(record(150), record(120), [150]).caveats
    assert once.endswith("no samples from fresh processes, and a rank test against 1 needs 199")
    (some,) = compared(record(150), record(120, [120] * 3), [150] * 4).caveats
    assert (
        some == "judged by the tolerance alone: a rank test against the baseline's 3 needs 9 samples, not 4"
    )
    few = compared(record(150), record(120, [120]), [150] * 4)
    assert few.caveats == (
        (
            "judged by the tolerance alone: for a rank test the baseline has too few fresh samples, 1; update it with "
            "--membudget-samples=5"
        ),
    )


def test_like_is_compared_with_like():
    base = record(120, [130] * 5)  # in a fresh process it also pays for what a session had loaded
    assert compared(record(150), base).base_bytes == 120 * MIB
    assert compared(record(150), base, [160] * 5).base_bytes == 130 * MIB


def test_a_rerun_that_does_not_pass_leaves_a_doubt_which_fails_under_strict_alone():
    found = compared(record(150), record(120))
    text = (
        "undecided: peak 150 MiB, baseline 120 MiB (+25.0%), but a run in a fresh process did not pass; "
        "run this test alone to see why"
    )
    lenient, strict = judge_undecided(found), judge_undecided(found, strict=True)
    assert (lenient.verdict, lenient.failed, lenient.finding) == ("inconclusive", False, "")
    assert (strict.verdict, strict.failed, strict.finding) == ("inconclusive", True, text)
    assert lenient.caveats[0] == strict.caveats[0] == text


def test_an_improvement_is_told_with_the_command_that_accepts_it():
    found = compared(record(80), record(120), [80] * 4)
    judgement = judge_comparison(found)
    assert not judgement.failed
    assert judgement.message == (
        "improved: peak 80.0 MiB, baseline 120 MiB (-33.3%); accept it: pytest --membudget-update-baseline"
    )


def test_noise_is_the_same():
    found = compared(record(150), record(120), [120, 121])
    assert (found.finding, found.new_bytes, found.caveats) == ("same", round(120.5 * MIB), ())
    assert judge_comparison(found).message == ""


def test_strict_compares_the_upper_figure():
    assert compared(record(120, upper=150), record(120)).finding == "same"
    assert compared(record(120, upper=150), record(120), strict=True).finding == "regressed"


def test_a_test_without_a_peak_cannot_be_compared():
    with pytest.raises(ValueError, match="has no peak to compare"):
        compare_test(TestRecord(nodeid="t", outcome="skipped"), record(120))


def test_a_multiple_is_told_in_bytes():
    base = TestRecord(nodeid="a", outcome="passed", peak_bytes=4096, peak_upper_bytes=4096)
    message = judge_comparison(compared(record(50), base, [50])).message
    assert message.startswith("regressed: peak 50.0 MiB, baseline 4.00 KiB (+50.0 MiB), allowed ")
