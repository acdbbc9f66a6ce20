"""Two reports or baselines compared, without measuring again."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_membudget.gate.baseline import environment_differences, match_baseline
from pytest_membudget.gate.comparison import DEFAULT_TOLERANCE, direction
from pytest_membudget.records.comparison import ReportComparison, Summary, TestChange
from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.stats.samples import (
    geometric_mean,
    mann_whitney_p,
    median,
    median_interval,
    samples_for_interval,
    samples_needed,
    smallest_p,
)
from pytest_membudget.units import Tolerance

CONFIDENCE = 0.95
RANK_TEST_LEVEL = 0.05
"""Two-sided, as benchstat has it: a reader looks at one table, where a gate judges every suite."""


def compare_reports(
    base: Report,
    new: Report,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    *,
    base_path: str = "base",
    new_path: str = "new",
    tolerance_text: str = "10% + 1 MiB",
) -> ReportComparison:
    """Every test of both, in the order of `new`.

    A change is called where the medians lie further apart than the tolerance and, where both sides have enough
    samples, the two-sided rank test agrees at the 5% level. Samples from fresh processes are used where both
    sides have them, else the one measurement of each.
    """
    matching = match_baseline(base, new.tests, tolerance=tolerance)
    tests = {test.nodeid: test for test in new.tests}
    rows = tuple(_change(old, tests[nodeid], tolerance) for nodeid, old in matching.pairs.items())
    ratios = [row.new.median_bytes / row.base.median_bytes for row in rows if row.base.median_bytes]
    return ReportComparison(
        base_path=base_path,
        new_path=new_path,
        tolerance=tolerance_text,
        rows=rows,
        geomean_ratio=geometric_mean([ratio for ratio in ratios if ratio > 0]),
        new=matching.new,
        gone=matching.gone,
        skipped=matching.skipped,
        foreign=environment_differences(base.environment, new.environment),
        caveats=_caveats(rows),
    )


def _change(old: TestRecord, now: TestRecord, tolerance: Tolerance) -> TestChange:
    fresh = bool(old.samples_bytes and now.samples_bytes)
    before = old.samples_bytes if fresh else (old.peak_bytes or 0,)
    after = now.samples_bytes if fresh else (now.peak_bytes or 0,)
    base_bytes = round(median(before))
    finding = direction(base_bytes, median(after), tolerance)
    p = None
    if 2 * smallest_p(len(before), len(after)) <= RANK_TEST_LEVEL:
        p = mann_whitney_p(before, after)
        if p > RANK_TEST_LEVEL:
            finding = "same"
    return TestChange(
        nodeid=now.nodeid,
        base=_summary(before),
        new=_summary(after),
        allowed_bytes=tolerance.allowed_bytes(base_bytes),
        finding=finding,
        p=p,
        renamed_from=old.nodeid if old.nodeid != now.nodeid else "",
    )


def _summary(samples_bytes: Sequence[int]) -> Summary:
    low, high = median_interval(samples_bytes, CONFIDENCE) or (None, None)
    return Summary(
        median_bytes=median(samples_bytes), samples=len(samples_bytes), low_bytes=low, high_bytes=high
    )


def _caveats(rows: Sequence[TestChange]) -> tuple[str, ...]:
    found = []
    fewest = min(
        (min(row.base.samples, row.new.samples) for row in rows), default=samples_for_interval(CONFIDENCE)
    )
    if fewest < samples_for_interval(CONFIDENCE):
        found.append(
            f"an interval for the median at {CONFIDENCE:.0%} needs {samples_for_interval(CONFIDENCE)} samples; "
            f"some tests have {fewest}"
        )
    untested = [row for row in rows if row.p is None]
    if untested:
        least = min(min(row.base.samples, row.new.samples) for row in untested)
        needed = next(
            count for count in range(1, 20) if (samples_needed(count, RANK_TEST_LEVEL / 2) or 99) <= count
        )
        found.append(
            f"{len(untested)} judged by the tolerance alone: a rank test needs {needed} samples on both sides, "
            f"there are as few as {least}"
        )
    return tuple(found)
