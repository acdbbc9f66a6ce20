"""Has a test changed against its baseline? A state machine that asks for fresh samples before it says so.

1. One measurement within the tolerance settles it: "same".
2. One beyond it is only a suspicion: the test is run again in fresh processes, "rerun" by "rerun".
3. It is called when the fresh samples agree: at least four of five lie beyond the tolerance as well, and
   where both sides have enough samples the rank test has to agree too.
4. As soon as too many samples lie within the tolerance to agree any more, it was noise: "same".

Fresh samples are held against the baseline's own fresh samples where it has some, so that like is compared
with like: a test in a fresh process also pays for what earlier tests of a session have loaded already.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pytest_membudget.records.report import TestRecord
from pytest_membudget.stats.rank_test import mann_whitney_p, smallest_p
from pytest_membudget.stats.summary import median
from pytest_membudget.units import Tolerance

Step = Literal["rerun", "regressed", "same", "improved"]

DEFAULT_TOLERANCE = Tolerance(share=0.10, absolute_bytes=1024 * 1024)
DEFAULT_SAMPLES = 5
AGREEING_SHARE = 0.8
"""Of the fresh samples, how many have to lie beyond the tolerance: one of five may be an outlier."""
RANK_TEST_LEVEL = 0.05


def next_step(
    base: TestRecord,
    peak_bytes: int,
    samples_bytes: Sequence[int] = (),
    *,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    wanted: int = DEFAULT_SAMPLES,
) -> Step:
    """What to do next about a test that took `peak_bytes` and, in fresh processes, `samples_bytes` so far.

    `wanted` is how many fresh samples may be taken; with 0 the one measurement decides.
    """
    change = direction(base_peak(base), peak_bytes, tolerance)
    if change == "same" or wanted == 0:
        return change
    needed = math.ceil(AGREEING_SHARE * wanted - 1e-9)
    reference = fresh_reference(base)
    agreeing = sum(direction(reference, sample, tolerance) == change for sample in samples_bytes)
    if len(samples_bytes) - agreeing > wanted - needed:
        return "same"
    if agreeing >= needed and rank_test_agrees(base, samples_bytes, change):
        return change
    return "rerun" if len(samples_bytes) < wanted else "same"


def direction(
    base_bytes: int, new_bytes: float, tolerance: Tolerance
) -> Literal["regressed", "same", "improved"]:
    """Beyond the tolerance upwards, within it, or as far below; exactly at its end is within."""
    allowed_bytes = tolerance.allowed_bytes(base_bytes)
    if new_bytes > allowed_bytes:
        return "regressed"
    return "improved" if new_bytes < 2 * base_bytes - allowed_bytes else "same"


def rank_test_p(
    base: TestRecord, samples_bytes: Sequence[int], change: Literal["regressed", "improved"]
) -> float | None:
    """One-sided p of the change; None where no outcome of so few samples could be significant."""
    if not base.samples_bytes or not samples_bytes:
        return None
    if smallest_p(len(base.samples_bytes), len(samples_bytes)) > RANK_TEST_LEVEL:
        return None
    return mann_whitney_p(base.samples_bytes, samples_bytes, "greater" if change == "regressed" else "less")


def rank_test_agrees(
    base: TestRecord, samples_bytes: Sequence[int], change: Literal["regressed", "improved"]
) -> bool:
    """Whether the rank test supports the change, or has too few samples to say anything."""
    p = rank_test_p(base, samples_bytes, change)
    return p is None or p <= RANK_TEST_LEVEL


def base_peak(base: TestRecord) -> int:
    """The baseline's figure for one measurement within a session."""
    return base.peak_bytes or 0


def fresh_reference(base: TestRecord) -> int:
    """The baseline's figure for a fresh process: the median of its fresh samples, else its only figure."""
    return round(median(base.samples_bytes)) if base.samples_bytes else base_peak(base)
