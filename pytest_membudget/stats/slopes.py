"""The slope of a line through points that a few wild ones cannot bend, and its interval.

The slope is Theil's: the median of the slopes between all pairs of points. Its interval is Sen's (P. K. Sen,
"Estimates of the regression coefficient based on Kendall's tau", Journal of the American Statistical Association,
1968): from the ranks of those slopes, with no assumption about the distribution of the noise but that it is
independent from point to point.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, inf, sqrt
from statistics import NormalDist
from typing import NamedTuple

_MOST_POINTS = 40


class Slope(NamedTuple):
    """A slope and the ends of its interval, in units of y for one unit of x."""

    value: float
    low: float
    high: float


def robust_slope(x: Sequence[float], y: Sequence[float], confidence: float) -> Slope:
    """Theil's slope with Sen's interval; `x` rises strictly. Without a limit of doubt where points are too few.

    Of many points, evenly spaced ones are used, the last among them: 40 to 79.
    """
    stride = max(1, len(x) // _MOST_POINTS)
    points = list(zip(x, y, strict=True))[::-1][::stride]
    slopes = sorted(
        (later - earlier) / (at - before)
        for index, (at, later) in enumerate(points)
        for before, earlier in points[index + 1 :]
    )
    if not slopes:
        return Slope(0.0, -inf, inf)
    middle = (slopes[(len(slopes) - 1) // 2] + slopes[len(slopes) // 2]) / 2
    count = len(points)
    spread = NormalDist().inv_cdf((1 + confidence) / 2) * sqrt(count * (count - 1) * (2 * count + 5) / 18)
    below = floor((len(slopes) - spread) / 2)
    if below < 0:
        return Slope(middle, -inf, inf) if count < 4 else Slope(middle, slopes[0], slopes[-1])
    return Slope(middle, slopes[below], slopes[len(slopes) - 1 - below])
