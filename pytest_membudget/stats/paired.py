"""Do two versions use the same memory? Decided from as few pairs of runs as the noise allows.

Two stages, so that the many tests that did not change cost little and the few that did are called with care:

1. *Screening*: some pairs of runs of everything. A test is equivalent when a t interval of its paired differences lies
   within the tolerance (Schuirmann's two one-sided tests, J. Pharmacokinetics and Biopharmaceutics 15, 1987). The rest is suspected.
2. *Confirmation*: new runs of the m suspected tests, judged by the exact rank test of both sides, whatever the distribution.
   Screening used none of these figures, so Bonferroni over the m tests and both directions bounds the error rate of the suite:
   P(any unchanged test is called) ≤ m · 2 · α / (2 m) = α.

Each test is looked at twice, after `first` and after `last` pairs, with half of its α each; `plan` says after how many. A
rise that is certain, yet within the tolerance at its median, is no regression.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pytest_membudget.stats.bounds import t_quantile
from pytest_membudget.stats.samples import mann_whitney_p, median, smallest_p

PairedVerdict = Literal["regressed", "improved", "equivalent", "inconclusive"]

#: Confidence at which an interval has to lie within the tolerance: 97.5% on either side.
EQUIVALENCE_LEVEL = 0.025
#: How the α of a test is shared between its two looks.
FIRST_SHARE = 0.5
#: Pairs between the first and the last look.
MORE_PAIRS = 14
#: Figures are multiples of a page, and the counters behind them are kept in batches: less scatter than this is luck.
_LEAST_SIGMA = 0.001


class Plan(NamedTuple):
    """When a suspected test is looked at, in pairs of runs, and the α of each look in one direction."""

    first: int
    last: int
    first_level: float
    last_level: float


def plan(suspected: int, error_rate: float) -> Plan:
    """The looks at each of `suspected` tests that keep the error rate of all of them together.

    The first comes as soon as sides that lie wholly apart are certain: 1 / C(2k, k) ≤ its level.

    Raises:
        ValueError: no test, or an error rate that is not between 0 and 1.
    """
    if suspected < 1 or not 0 < error_rate < 1:
        raise ValueError(f"{suspected} tests at an error rate of {error_rate} cannot be planned")
    level = error_rate / (2 * suspected)
    first = 2
    while smallest_p(first, first) > FIRST_SHARE * level:
        first += 1
    return Plan(first, first + MORE_PAIRS, FIRST_SHARE * level, (1 - FIRST_SHARE) * level)


def is_equivalent(base: Sequence[int], head: Sequence[int], *, share: float, absolute_bytes: int) -> bool:
    """Whether the paired differences lie within the tolerance of the base's median, as a t interval has it."""
    pairs = min(len(base), len(head))
    if pairs < 2:
        return False
    level_bytes = median(base[:pairs])
    allowed = level_bytes * share + absolute_bytes
    differences = [new - old for old, new in zip(base, head, strict=False)]
    mean = sum(differences) / pairs
    sigma = math.sqrt(sum((each - mean) ** 2 for each in differences) / (pairs - 1))
    sigma = max(sigma, _LEAST_SIGMA * level_bytes)
    half = t_quantile(1 - EQUIVALENCE_LEVEL, pairs - 1) * sigma / math.sqrt(pairs)
    return -allowed < mean - half and mean + half < allowed


def judge_pairs(
    base: Sequence[int], head: Sequence[int], looks: Plan, *, share: float, absolute_bytes: int
) -> PairedVerdict | None:
    """What the pairs of the confirmation say so far; None where more pairs are needed.

    Args:
        base: peaks in bytes, one a run.
        head: likewise, of as many runs.
        looks: from `plan`.
        share: how far the median may move, relative.
        absolute_bytes: and in bytes, summed with that.
    """
    pairs = min(len(base), len(head))
    if pairs > 2 and is_equivalent(base, head, share=share, absolute_bytes=absolute_bytes):
        return "equivalent"
    if pairs not in {looks.first, looks.last}:
        return None
    level = looks.first_level if pairs == looks.first else looks.last_level
    change = median(head) - median(base)
    is_beyond = abs(change) > median(base) * share + absolute_bytes
    if is_beyond and mann_whitney_p(base, head, "greater" if change > 0 else "less") <= level:
        return "regressed" if change > 0 else "improved"
    return "inconclusive" if pairs == looks.last else None
