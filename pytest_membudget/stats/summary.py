"""The middle of some samples, how sure it is, and the middle of many ratios."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


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
