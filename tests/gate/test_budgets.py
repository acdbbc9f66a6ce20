import pytest

from pytest_membudget.gate.budgets import judge
from pytest_membudget.records.judgement import Budget
from pytest_membudget.records.measurement import Caveat, Measurement, ProcessShare

MIB = 2**20


def measured(peak, upper=None, *, start=50, end=50, **more):
    upper = peak if upper is None else upper
    return Measurement(
        peak_bytes=peak * MIB,
        peak_upper_bytes=upper * MIB,
        total_peak_bytes=(start + peak) * MIB,
        start_bytes=start * MIB,
        end_bytes=end * MIB,
        duration_s=1.5,
        processes=2,
        **{"source": "kernel", **more},
    )


@pytest.mark.parametrize(
    ("peak", "upper", "verdict", "fails", "fails_strict"),
    [
        (99, 99, "within", False, False),
        (100, 100, "within", False, False),
        (101, 101, "over", True, True),
        (90, 101, "over_upper", False, True),
        (90, 100, "within", False, False),
        (101, 150, "over", True, True),
    ],
)
def test_exactly_at_the_budget_passes_and_only_a_proven_peak_is_over(
    peak, upper, verdict, fails, fails_strict
):
    budget = Budget(peak_bytes=100 * MIB)
    loose, strict = judge(measured(peak, upper), budget), judge(measured(peak, upper), budget, strict=True)
    assert (loose.verdict, loose.failed) == (verdict, fails)
    assert (strict.verdict, strict.failed) == (verdict, fails_strict)
    assert bool(loose.message) == fails
    assert bool(strict.message) == fails_strict


@pytest.mark.parametrize(("kept", "verdict"), [(0, "over"), (20, "over"), (40, "over_upper")])
def test_what_a_librarys_pool_may_keep_is_not_proven_to_be_retained(kept, verdict):
    records = (Caveat("pool-at-end", kept * MIB, "pyarrow"),) if kept else ()
    found = judge(measured(80, start=50, end=100, caveat_records=records), Budget(retained_bytes=20 * MIB))
    assert found.verdict == verdict


def test_a_budget_that_was_written_in_other_units_is_shown_as_it_was_written():
    found = judge(measured(1000), Budget(peak_bytes=500_000_000))
    assert found.message.startswith("peak 0.98 GiB > budget 477 MiB = 500 MB (+523 MiB, 110%)")


def test_one_byte_over_shows_whole_bytes():
    one = Measurement(
        peak_bytes=100 * MIB + 1,
        peak_upper_bytes=100 * MIB + 1,
        total_peak_bytes=200 * MIB,
        start_bytes=0,
        end_bytes=0,
        duration_s=0.1,
        processes=1,
        source="kernel",
    )
    assert judge(one, Budget(peak_bytes=100 * MIB)).message.startswith(
        "peak 104,857,601 B > budget 104,857,600 B (+1 B, 0%)"
    )


@pytest.mark.parametrize(
    ("budget", "headline"),
    [
        (Budget(total_bytes=100 * MIB), "total peak 130 MiB > budget 100 MiB (+30.0 MiB, 30%)"),
        (Budget(retained_bytes=10 * MIB), "retained 20.0 MiB > budget 10.0 MiB (+10.0 MiB, 100%)"),
        (Budget(retained_bytes=0), "retained 20.0 MiB > budget 0 B (+20.0 MiB)"),
    ],
)
def test_total_and_retained_have_budgets_of_their_own(budget, headline):
    judgement = judge(measured(80, end=70), budget)
    assert (judgement.verdict, judgement.message.partition("\n")[0]) == ("over", headline)


def test_what_ends_below_its_start_has_retained_nothing():
    assert judge(measured(80, end=10), Budget(retained_bytes=0)).verdict == "within"


def test_without_a_budget_there_is_no_verdict():
    assert judge(measured(80), Budget()).verdict == "none"


def test_the_doubt_is_a_caveat_with_all_three_numbers():
    judgement = judge(measured(90, 101), Budget(peak_bytes=100 * MIB))
    assert judgement.caveats == ("peak at most 101 MiB > budget 100 MiB, yet only 90.0 MiB is proven",)


def test_the_message_explains_itself():
    shares = (ProcessShare(7, "pytest", 40 * MIB), ProcessShare(9, "worker", 272 * MIB))
    measurement = measured(
        312,
        315,
        source="sampled",
        interval_s=0.01,
        shares=shares,
        caveat_records=(Caveat("process-missed", MIB),),
    )
    judgement = judge(measurement, Budget(peak_bytes=200 * MIB))
    assert judgement.message.splitlines() == [
        "peak 312 MiB > budget 200 MiB (+112 MiB, 56%)",
        "  measured  peak of the whole process tree above its start: at least 312 MiB, at most 315 MiB",
        "  how       process tree sampled every 10 ms; the upper bound covers what may have passed between samples",
        "            2 processes in 1.5 s; start 50.0 MiB, total peak 362 MiB, end 50.0 MiB",
        "  largest   worker (pid 9): 272 MiB",
        "            pytest (pid 7): 40.0 MiB",
        "  note      a process ended before it could be read: its memory, at most 1.00 MiB, is in the upper figure only",
        "  next      see who allocated it: run this test with --membudget-memray",
        '            or, if it may use that much: @pytest.mark.memory_budget("400 MiB")',
    ]


def test_the_headline_fits_the_short_summary():
    headline = judge(measured(312), Budget(peak_bytes=200 * MIB)).message.partition("\n")[0]
    assert len(headline) <= 50
