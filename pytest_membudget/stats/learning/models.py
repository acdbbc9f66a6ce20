"""Simple models of the peak as a function of size, and the allocations that would have wasted least with each.

A model is judged on what it says of a task that it has not seen. Its allocation for a task is ``predicted + q · unit``; the
offsets q that are worth trying, first and after each failure, are those that would just have covered some task: its ladder.
Tasks sorted by the offset they needed, the least waste of all tasks above place j is

    waste(j) = min over k > j of  Σ_{i>j} allocation_i(q_k) − Σ_{j<i≤k} peak_i + restart(i>k) + waste(k)

since all of them try q_k, those up to k fit, and the others fail and go on from k. It is solved from the top down.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

_NEIGHBOURS = 5
_RELATIVE_FLOOR = 0.05  # of the mean peak: no weight grows without limit where a line approaches 0
_MOST_LEVERAGE = 0.95  # a single task that decides a line on its own says little about the line's errors

_MOST_RUNGS = 14  # places considered among the tasks seen; the higher, the closer together
_CROWDING = 1.6  # the power that moves those places together towards the top
_TAIL = ((0.15, 0.25), (0.7, 0.35), (1.7, 0.25), (3.0, 0.1), (5.0, 0.05))
"""(distance in scales, weight): the next task lies above n others with probability 1 / (n + 1), and then by an
exponential distance, whose quantiles these are."""


class Model(NamedTuple):
    """A fitted model: `predict(size)` in bytes, and what it says of each task when fitted without that task."""

    name: str
    predict: Callable[[float], float]
    left_out: list[float]
    grows: bool
    """Whether it has something to say beyond the sizes it was fitted on."""


def fit_models(sizes: Sequence[float], peaks: Sequence[float]) -> list[Model]:
    """Every model fitted to the same tasks, at least three of them."""
    mean = sum(peaks) / len(peaks)
    constant = Model("constant", lambda _size: mean, [mean] * len(peaks), grows=False)
    if min(sizes) == max(sizes):
        return [constant]
    return [
        constant,
        _line("line", sizes, peaks, relative=False),
        _line("relative line", sizes, peaks, relative=True),
        _power(sizes, peaks),
        fit_neighbours(sizes, peaks),
    ]


def _line(name: str, sizes: Sequence[float], peaks: Sequence[float], *, relative: bool) -> Model:
    """A least-squares line; `relative` weighs each task by 1 / fitted², for scatter that grows with the peak."""
    start, slope, leverage = least_squares_line(sizes, peaks, [1.0] * len(sizes))
    if relative:
        floor = _RELATIVE_FLOOR * sum(peaks) / len(peaks) or 1.0
        for _ in range(2):
            weights = [max(start + slope * size, floor) ** -2 for size in sizes]
            start, slope, leverage = least_squares_line(sizes, peaks, weights)
    least = min(peaks) / 2
    left_out = [
        max(least, peak - (peak - start - slope * size) / (1 - lever))
        for size, peak, lever in zip(sizes, peaks, leverage, strict=True)
    ]
    return Model(name, lambda size: max(least, start + slope * size), left_out, grows=True)


def _power(sizes: Sequence[float], peaks: Sequence[float]) -> Model:
    """Peak = a · size^b: a line through the logarithms."""
    xs = [math.log(max(1.0, size)) for size in sizes]
    ys = [math.log(max(1.0, peak)) for peak in peaks]
    start, slope, leverage = least_squares_line(xs, ys, [1.0] * len(xs))
    # In logarithms a line that is extended far soon predicts what no task has ever taken.
    low, high = min(ys) - 1, max(ys) + 1

    def at(log_peak: float) -> float:
        return math.exp(min(max(log_peak, low), high))

    left_out = [
        at(y - (y - start - slope * x) / (1 - lever)) for x, y, lever in zip(xs, ys, leverage, strict=True)
    ]
    return Model("power", lambda size: at(start + slope * math.log(max(1.0, size))), left_out, grows=True)


def fit_neighbours(sizes: Sequence[float], peaks: Sequence[float]) -> Model:
    """The mean of the tasks nearest in the logarithm of their size."""
    order = sorted(range(len(sizes)), key=lambda index: sizes[index])
    xs = [math.log(max(1.0, sizes[index])) for index in order]
    ys = [peaks[index] for index in order]

    def near(x: float, place: int, *, skipped: int) -> float:
        low, high, total, found = place - 1, place, 0.0, 0
        while found < _NEIGHBOURS and (low >= 0 or high < len(xs)):
            if high >= len(xs) or (low >= 0 and x - xs[low] <= xs[high] - x):
                taken, low = low, low - 1
            else:
                taken, high = high, high + 1
            if taken != skipped:
                total, found = total + ys[taken], found + 1
        return total / found

    def predict(size: float) -> float:
        x = math.log(max(1.0, size))
        return near(x, bisect.bisect_left(xs, x), skipped=-1)

    left_out = [0.0] * len(xs)
    for place, index in enumerate(order):
        left_out[index] = near(xs[place], place, skipped=place)
    return Model("neighbours", predict, left_out, grows=False)


def least_squares_line(
    xs: Sequence[float], ys: Sequence[float], weights: Sequence[float]
) -> tuple[float, float, list[float]]:
    """Start and slope of the weighted line, and the leverage of each point on its own fitted value."""
    total = sum(weights)
    x_mean = sum(w * x for w, x in zip(weights, xs, strict=True)) / total
    y_mean = sum(w * y for w, y in zip(weights, ys, strict=True)) / total
    spread = sum(w * (x - x_mean) ** 2 for w, x in zip(weights, xs, strict=True))
    if spread <= 1e-12 * total * x_mean * x_mean:
        return y_mean, 0.0, [min(_MOST_LEVERAGE, w / total) for w in weights]
    shared = sum(w * (x - x_mean) * (y - y_mean) for w, x, y in zip(weights, xs, ys, strict=True))
    slope = shared / spread
    leverage = [
        min(_MOST_LEVERAGE, w / total + w * (x - x_mean) ** 2 / spread)
        for w, x in zip(weights, xs, strict=True)
    ]
    return y_mean - slope * x_mean, slope, leverage


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
