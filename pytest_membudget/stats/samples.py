"""The middle of some samples and how sure it is, whether two groups differ (Mann-Whitney), and the middle of ratios."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal


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

_LARGEST_EXACT = 120


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
