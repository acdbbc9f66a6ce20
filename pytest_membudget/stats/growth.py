"""Does a figure go on growing with the number of calls? The decision, on scripted or measured samples.

The samples are (calls made so far, what was held then). Their *floor* is what was never given back later: the least
of all later samples. A leak raises the floor for ever; a cache that fills up raises it until it is full; memory that a
function keeps at random, or frees late, does not raise it at all. The floor is looked at in windows that end at the
last sample and each start at half the calls of the one after: [n/8, n/4], [n/4, n/2] and [n/2, n].

* *growing*: all three windows grow by more than is allowed, the last not much slower than the two before it, and by
  more than the figure ever fell back;
* *flat*: the last two windows grow by no more than is allowed;
* *unclear*: anything else. More calls will tell.

The slope and its interval are those of `slopes.robust_slope`, over the floor of the last two windows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import inf, isfinite
from typing import Literal, NamedTuple

from pytest_membudget.stats.slopes import Slope, robust_slope

CONFIDENCE = 0.99
RESOLUTION_BYTES_PER_CALL = 4.0
FEWEST_SAMPLES = 6
_NOT_SLOWING = 0.7
_NO_BOUND = 2.0**63

Direction = Literal["growing", "flat", "unclear"]


class Trend(NamedTuple):
    """Growth per call with its interval, and whether it goes on. `fallback` is the largest drop that was seen."""

    direction: Direction
    slope: float
    low: float
    high: float
    fallback: float

    def bounds(self) -> tuple[float, float]:
        """The ends of the interval; as far as any number goes where there were too few samples for one."""
        low = self.low if isfinite(self.low) else -_NO_BOUND
        return low, self.high if isfinite(self.high) else _NO_BOUND


class Effort(NamedTuple):
    """How far a check has come: calls made, seconds taken, and whether it may go on."""

    calls: int
    elapsed_s: float
    exhausted: bool = False
    """The time limit is reached, or going on would take too much of what grows."""


class Patience(NamedTuple):
    """How many calls and how many seconds each verdict needs.

    Either both of `calls` and `seconds` are reached, or `enough_s` alone: slow functions cannot make thousands of calls.
    A leak needs more than a clean bill: until a bounded cache is full it grows like a leak.
    """

    clean_calls: int = 2048
    clean_s: float = 0.2
    clean_enough_s: float = 2.0
    leak_calls: int = 8192
    leak_s: float = 0.2
    leak_enough_s: float = 8.0
    fewest_calls: int = 16

    def may_decide(self, effort: Effort) -> bool:
        """Whether any verdict may be given already."""
        return effort.exhausted or self.may_call_clean(effort) or self.may_call_leak(effort)

    def may_call_clean(self, effort: Effort) -> bool:
        """Whether a flat figure may be called clean already."""
        thorough = effort.calls >= self.clean_calls and effort.elapsed_s >= self.clean_s
        return thorough or (effort.calls >= self.fewest_calls and effort.elapsed_s >= self.clean_enough_s)

    def may_call_leak(self, effort: Effort) -> bool:
        """Whether a growing figure may be called a leak already."""
        thorough = effort.calls >= self.leak_calls and effort.elapsed_s >= self.leak_s
        return thorough or (effort.calls >= self.fewest_calls and effort.elapsed_s >= self.leak_enough_s)


def trend(
    calls: Sequence[int],
    held: Sequence[float],
    *,
    allowed: float = 0.0,
    resolution: float = RESOLUTION_BYTES_PER_CALL,
) -> Trend:
    """Judges one figure: `held[i]` is what was in use after `calls[i]` calls (strictly rising).

    `allowed` is the growth per call that is fine, and `resolution` what cannot be told from it.
    """
    if len(calls) < FEWEST_SAMPLES or calls[-1] < FEWEST_SAMPLES:
        return Trend("unclear", 0.0, -inf, inf, 0.0)
    bound = allowed + resolution
    if held[-1] == min(held) == max(held):
        return Trend("flat", 0.0, 0.0, 0.0, 0.0)
    begin = max(0, bisect_right(calls, calls[-1] // 8) - 1)
    tail_calls, tail = list(calls[begin:]), list(held[begin:])
    fallback = _largest_drop(tail)
    floor = _floor(tail)
    if fallback > bound * tail_calls[-1] / 4:
        # The floor of the last samples is not known yet: too few came after them.
        known = bisect_right(tail_calls, tail_calls[-1] / 2)
        tail_calls, floor = tail_calls[:known], floor[:known]
    slope, low, high = _slope(tail_calls, floor, tail_calls[-1] / 4)
    rates = _window_rates(tail_calls, floor)
    grown = floor[-1] - _at(tail_calls, floor, tail_calls[-1] / 8)
    growing = (
        min(rates) > bound
        and low > bound
        and rates[2] >= _NOT_SLOWING * (rates[0] + rates[1]) / 2
        and grown > 2 * fallback
    )
    if growing:
        return Trend("growing", slope, low, high, fallback)
    flat = max(rates[1:]) <= bound and high <= bound
    return Trend("flat" if flat else "unclear", slope, low, high, fallback)


def decide(
    trends: Sequence[Trend], effort: Effort, patience: Patience
) -> Literal["leak", "clean", "inconclusive"] | None:
    """The verdict over all figures of one function, or None while more calls should be made.

    One growing figure makes a leak; a clean bill needs all of them flat.
    """
    if any(figure.direction == "growing" for figure in trends):
        if effort.exhausted or patience.may_call_leak(effort):
            return "leak"
    elif all(figure.direction == "flat" for figure in trends) and (
        effort.exhausted or patience.may_call_clean(effort)
    ):
        return "clean"
    return "inconclusive" if effort.exhausted else None


def next_step(calls: int) -> int:
    """How many calls to make before the next sample, after `calls`: the samples lie ever farther apart."""
    return max(1, calls // 4 if calls < 256 else calls // 8)


def _largest_drop(values: Sequence[float]) -> float:
    highest, drop = values[0], 0.0
    for value in values:
        highest = max(highest, value)
        drop = max(drop, highest - value)
    return drop


def _floor(values: Sequence[float]) -> list[float]:
    floor = list(values)
    for index in range(len(floor) - 2, -1, -1):
        floor[index] = min(floor[index], floor[index + 1])
    return floor


def _at(calls: Sequence[int], floor: Sequence[float], wanted: float) -> float:
    """The floor at `wanted` calls, on the straight line between its neighbours."""
    after = bisect_left(calls, wanted)
    if after == 0:
        return floor[0]
    if after == len(calls):
        return floor[-1]
    before = after - 1
    share = (wanted - calls[before]) / (calls[after] - calls[before])
    return floor[before] + share * (floor[after] - floor[before])


def _window_rates(calls: Sequence[int], floor: Sequence[float]) -> list[float]:
    last = calls[-1]
    ends = [max(last / 2**halvings, calls[0]) for halvings in (3, 2, 1, 0)]
    levels = [_at(calls, floor, end) for end in ends]
    return [
        (level_to - level_from) / (to - begin) if to > begin else 0.0
        for (begin, to), (level_from, level_to) in zip(pairwise(ends), pairwise(levels), strict=True)
    ]


def _slope(calls: Sequence[int], floor: Sequence[float], begin: float) -> Slope:
    """The slope of the floor from `begin` calls on."""
    first = max(0, min(bisect_left(calls, begin), len(calls) - FEWEST_SAMPLES))
    return robust_slope(calls[first:], floor[first:], CONFIDENCE)
