"""The middle of some samples and how sure it is, whether two groups differ (Mann-Whitney), and the middle of ratios.

Whether two versions use the same memory (`plan`, `is_equivalent`, `judge_pairs`) is decided from as few pairs of runs as the noise
allows, in two stages, so that the many tests that did not change cost little and the few that did are called with care:

1. *Screening*: some pairs of runs of everything. A test is equivalent when a t interval of its paired differences lies
   within the tolerance (Schuirmann's two one-sided tests, J. Pharmacokinetics and Biopharmaceutics 15, 1987). The rest is suspected.
2. *Confirmation*: new runs of the m suspected tests, judged by the exact rank test of both sides, whatever the distribution.
   Screening used none of these figures, so Bonferroni over the m tests and both directions bounds the error rate of the suite:
   P(any unchanged test is called) ≤ m · 2 · α / (2 m) = α.

Each test is judged twice, after `first` and after `last` pairs, with half of its α each; `plan` says after how many. A
rise that is certain, yet within the tolerance at its median, is no regression.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

from pytest_membudget.stats.bounds import t_quantile

_LARGEST_EXACT = 120

#: Confidence at which an interval has to lie within the tolerance: 97.5% on either side.
EQUIVALENCE_LEVEL = 0.025
#: How the α of a test is shared between its two looks.
FIRST_SHARE = 0.5
#: Pairs between the first and the last look.
MORE_PAIRS = 14
#: Figures are multiples of a page, and the counters behind them are kept in batches: less scatter than this is luck.
_LEAST_SIGMA = 0.001


def median(samples: Sequence[float]) -> float:
    """The middle sample, or the mean of the two in the middle.

    Raises:
        ValueError: there are none.
    """
    if not samples:
        raise ValueError("a median needs at least one sample, got none")
    return float(statistics.median(samples))


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Two order statistics that hold the true median with at least `confidence`; None with too few samples.

    The number of samples below the median is binomial(n, 1/2), whatever the distribution (the sign test).
    """
    ordered = sorted(samples)
    count = len(ordered)
    outside, rank = 0.0, 0
    while True:
        outside += 2 * math.comb(count, rank) / 2**count
        if outside > 1 - confidence:
            break
        rank += 1
    return None if rank == 0 else (ordered[rank - 1], ordered[count - rank])


def samples_for_interval(confidence: float = 0.95) -> int:
    """The least number of samples for which `median_interval` has an answer: 6 at 95%."""
    return math.ceil(1 - math.log2(1 - confidence))


def geometric_mean(ratios: Sequence[float]) -> float | None:
    """The mean of `ratios` on a logarithmic scale; None where there are none or one is not above zero."""
    if not ratios or min(ratios) <= 0:
        return None
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))


Alternative = Literal["greater", "less", "two-sided"]


def mann_whitney_p(
    base: Sequence[float], new: Sequence[float], alternative: Alternative = "two-sided"
) -> float:
    """The probability of ranks as far apart as these if both groups came from one distribution.

    "greater" asks whether `new` is greater than `base`. Up to 120 samples in all, every way to deal out the
    pooled midranks is counted, which stays exact with ties; beyond, the normal approximation with the tie
    correction is used (Lehmann, Nonparametrics, 1975, sections 1.2 and 1.5).

    Raises:
        ValueError: a group is empty.
    """
    if not base or not new:
        raise ValueError(f"a rank test needs samples on both sides, got {len(base)} and {len(new)}")
    ranks = _doubled_midranks([*base, *new])
    rank_sum = sum(ranks[len(base) :])
    tails = _exact_tails if len(ranks) <= _LARGEST_EXACT else _normal_tails
    below, above = tails(ranks, len(new), rank_sum)
    if alternative == "greater":
        return above
    return below if alternative == "less" else min(1.0, 2 * min(below, above))


def tail_bound(base: Sequence[float], new: Sequence[float]) -> float:
    """One-sided p in the direction in which the groups differ, quickly, and never too small.

    Where no value of one group reaches the other it is exact; else it is the normal approximation, whose tails are
    wider than the exact ones.
    """
    if max(base) < min(new) or max(new) < min(base):
        return smallest_p(len(base), len(new))
    ranks = _doubled_midranks([*base, *new])
    return min(_normal_tails(ranks, len(new), sum(ranks[len(base) :])))


def smallest_p(base_count: int, new_count: int) -> float:
    """The least one-sided p that so many samples can give: one deal among all."""
    return 1 / math.comb(base_count + new_count, new_count)


def samples_needed(base_count: int, level: float) -> int | None:
    """How many new samples a one-sided test at `level` needs against `base_count`; None where it has no base."""
    if base_count < 1:
        return None
    count = 1
    while smallest_p(base_count, count) > level:
        count += 1
    return count


def _doubled_midranks(samples: Sequence[float]) -> list[int]:
    """Twice the rank of each sample, ties sharing their mean rank, so that all are whole numbers."""
    order = sorted(range(len(samples)), key=lambda index: samples[index])
    ranks = [0] * len(samples)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and samples[order[end + 1]] == samples[order[start]]:
            end += 1
        for position in range(start, end + 1):
            ranks[order[position]] = start + end + 2
        start = end + 1
    return ranks


def _exact_tails(ranks: Sequence[int], chosen: int, rank_sum: int) -> tuple[float, float]:
    """P(sum <= rank_sum) and P(sum >= rank_sum) over all ways to choose `chosen` of the ranks."""
    ways: list[dict[int, int]] = [{0: 1}, *({} for _ in range(chosen))]
    for rank in ranks:
        for size in range(chosen, 0, -1):
            target = ways[size]
            for total, count in ways[size - 1].items():
                target[total + rank] = target.get(total + rank, 0) + count
    all_ways = math.comb(len(ranks), chosen)
    below = sum(count for total, count in ways[chosen].items() if total <= rank_sum)
    above = sum(count for total, count in ways[chosen].items() if total >= rank_sum)
    return below / all_ways, above / all_ways


def _normal_tails(ranks: Sequence[int], chosen: int, rank_sum: int) -> tuple[float, float]:
    """The same by the normal approximation; the variance of a sum drawn without replacement minds ties."""
    count = len(ranks)
    mean = sum(ranks) / count
    variance = chosen * (count - chosen) / (count - 1) * sum((rank - mean) ** 2 for rank in ranks) / count
    if variance == 0:
        return 1.0, 1.0
    deviation = rank_sum - chosen * mean
    scale = math.sqrt(variance)
    normal = NormalDist()
    return normal.cdf((deviation + 1) / scale), normal.cdf((1 - deviation) / scale)


PairedVerdict = Literal["regressed", "improved", "equivalent", "inconclusive"]


class Plan(NamedTuple):
    """The two interim analyses ("looks") of a suspected test: after how many pairs of runs, and the one-sided α of each."""

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
