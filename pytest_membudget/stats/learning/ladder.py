"""The allocations, first and after each failure, that would have wasted least on the tasks seen.

A task's allocation is ``predicted + q · unit``; the offsets q that are worth trying are those that would just have
covered some task. Tasks sorted by the offset they needed, the least waste of all tasks above place j is

    waste(j) = min over k > j of  Σ_{i>j} allocation_i(q_k) − Σ_{j<i≤k} peak_i + restart(i>k) + waste(k)

since all of them try q_k, those up to k fit, and the others fail and go on from k. It is solved from the top down.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import NamedTuple

_MOST_RUNGS = 14  # places considered among the tasks seen; the higher, the closer together
_CROWDING = 1.6  # the power that moves those places together towards the top
_TAIL = ((0.15, 0.25), (0.7, 0.35), (1.7, 0.25), (3.0, 0.1), (5.0, 0.05))
"""(distance in scales, weight): the next task lies above n others with probability 1 / (n + 1), and then by an
exponential distance, whose quantiles these are."""


class Price(NamedTuple):
    """What a failed attempt costs beyond its own allocation: a share of it again, and bytes for the restart.

    And how far the next task may lie above all tasks seen. That goes by the top of those: the scale of the tail is how
    much, on average, the share `tail_share` of the tasks with the largest offsets lies above the largest of the others.
    """

    share: float
    restart_bytes: float
    least_cover: float
    """The share of tasks that every allocation has to cover, whatever the others would have saved."""
    tail_weight: float = 1.0
    """Of the tasks imagined above all seen, in tasks: 1 is their probability, less trusts that the next is like the others."""
    tail_share: float = 0.3


class Ladder(NamedTuple):
    """Offsets in ascending order, where to start, and where to go from each; and the waste in hindsight."""

    offsets: list[float]
    following: list[int]
    first: int
    waste: float
    middle: float
    """The median offset: with it the model gives a central estimate."""

    def start(self) -> float:
        """The offset of the first allocation."""
        return self.offsets[self.first]

    def after(self, failed: float) -> float | None:
        """The offset to try after one that was too small, `None` when it is above all."""
        place = bisect.bisect_right(self.offsets, failed)
        if place == 0:
            return self.offsets[self.first]
        following = self.following[place - 1]
        return None if following < 0 else self.offsets[following]


class _Sums(NamedTuple):
    """Weighted sums over the tasks from a place on, in order of their offsets."""

    weight: list[float]
    predicted: list[float]
    unit: list[float]
    peak: list[float]


def build_ladder(
    predicted: Sequence[float],
    units: Sequence[float],
    peaks: Sequence[float],
    weights: Sequence[float],
    price: Price,
) -> Ladder:
    """The ladder for tasks with these predictions (bytes), units (bytes an offset of 1 adds), peaks and weights."""
    tasks = sorted(
        ((peak - guess) / unit, guess, unit, peak, weight)
        for guess, unit, peak, weight in zip(predicted, units, peaks, weights, strict=True)
    )
    middle = tasks[len(tasks) // 2][0]
    tasks += _tail(tasks, price)
    sums = _sums_from_the_top(tasks)
    places = _places(len(peaks), len(tasks), price.least_cover)
    offsets = [tasks[place][0] for place in places]
    waste = [0.0] * len(places)
    following = [-1] * len(places)

    def cheapest(begin: int, lowest: int) -> tuple[float, int]:
        found, chosen = float("inf"), -1
        for rung in range(lowest, len(places)):
            beyond, offset = places[rung] + 1, offsets[rung]
            cost = (
                sums.predicted[begin]
                + offset * sums.unit[begin]
                - (sums.peak[begin] - sums.peak[beyond])
                + price.restart_bytes * sums.weight[beyond]
                + price.share * (sums.predicted[beyond] + offset * sums.unit[beyond])
                + waste[rung]
            )
            if cost < found:
                found, chosen = cost, rung
        return found, chosen

    for rung in range(len(places) - 2, -1, -1):
        waste[rung], following[rung] = cheapest(places[rung] + 1, rung + 1)
    least, first = cheapest(0, 0)
    return Ladder(offsets, following, first, least, middle)


_Task = tuple[float, float, float, float, float]


def _tail(tasks: list[_Task], price: Price) -> list[_Task]:
    """Imagined tasks above all that were seen."""
    count = max(2, int(len(tasks) * price.tail_share))
    below = tasks[-count - 1][0] if len(tasks) > count else tasks[0][0]
    scale = sum(task[0] - below for task in tasks[-count:]) / count
    total = sum(task[4] for task in tasks)
    guess = sum(task[1] * task[4] for task in tasks) / total
    unit = sum(task[2] * task[4] for task in tasks) / total
    weight = price.tail_weight * total / len(tasks)
    offsets = [tasks[-1][0] + scale * distance for distance, _ in _TAIL]
    return [
        (offset, guess, unit, guess + offset * unit, weight * share)
        for offset, (_, share) in zip(offsets, _TAIL, strict=True)
    ]


def _sums_from_the_top(tasks: list[_Task]) -> _Sums:
    sums = _Sums(*([0.0] * (len(tasks) + 1) for _ in range(4)))
    for place in range(len(tasks) - 1, -1, -1):
        _, guess, unit, peak, weight = tasks[place]
        sums.weight[place] = sums.weight[place + 1] + weight
        sums.predicted[place] = sums.predicted[place + 1] + guess * weight
        sums.unit[place] = sums.unit[place + 1] + unit * weight
        sums.peak[place] = sums.peak[place + 1] + peak * weight
    return sums


def _places(seen: int, count: int, least_cover: float) -> list[int]:
    """Places of the rungs: from the least cover up, the closer together the higher; and every imagined one."""
    lowest = min(seen - 1, int(seen * least_cover))
    span = seen - 1 - lowest
    steps = min(span, _MOST_RUNGS - 1)
    chosen = (
        {seen - 1 - round(span * (step / steps) ** _CROWDING) for step in range(steps + 1)}
        if steps
        else {lowest}
    )
    return [*sorted(chosen), *range(seen, count)]
