"""Simple models of the peak as a function of size, and what each would have wasted with each of its offsets.

A model is judged on what it says of a task that it has not seen. A rule is a model and an offset q: it allocates
``predicted + q · unit``, where the unit is a byte or the prediction itself. Every finished task shows what every rule would
have wasted on it:

    allocation − peak                                 where the task fits,
    (1 + share) · allocation + retry − peak + restart where it fails and is repeated with the most that any task took.

With tasks sorted by the offset that each needed, the sums of all tasks above an offset give its waste at once.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

_NEIGHBOURS = 5
_RELATIVE_FLOOR = 0.05  # of the mean peak: no weight grows without limit where a line approaches 0
_MOST_LEVERAGE = 0.95  # a single task that decides a line on its own says little about the line's errors

_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97)  # quantiles of the offsets needed that are tried
_BEYOND = (0.0, 0.1, 0.3, 0.7, 1.3, 2.0, 3.0)  # and above the largest of them, in scales of the tail
_TAIL = ((0.15, 0.25), (0.7, 0.35), (1.7, 0.25), (3.0, 0.1), (5.0, 0.05))
"""(distance in scales, weight): the next task lies above n others with probability 1 / (n + 1), and then by an
exponential distance, whose quantiles these are."""

_RETRY_REACH = 0.3
RETRY = 1.04  # times the largest peak seen: the most that is tried after a failure before it leaps


class Model(NamedTuple):
    """A fitted model: `predict(size)` in bytes, and what it says of each task when fitted without that task."""

    name: str
    predict: Callable[[float], float]
    left_out: list[float]
    grows: bool
    """Whether it has something to say beyond the sizes it was fitted on."""


class Price(NamedTuple):
    """What a failed attempt costs beyond its own allocation: a share of it again, and bytes for the restart.

    And how many tasks are imagined above all seen: 1 is their probability, less trusts that the next is like the others. The
    scale of that tail is how much, on average, the share `tail_share` of the tasks lies above the largest of the others, and
    at least `tail_least` of the mean peak: peaks that agree to the megabyte say little of how far the next one strays, and a
    failed attempt costs all of it.
    """

    share: float
    restart_bytes: float
    tail_tasks: float
    tail_share: float = 0.6
    tail_least: float = 0.0


class Rules(NamedTuple):
    """The offsets of one model in ascending order, and what each would have wasted on a task, in bytes."""

    offsets: list[float]
    wastes: list[float]
    middle: float
    """The median offset: with it the model gives a central estimate."""

    @property
    def above_all(self) -> float:
        """An offset with which all tasks seen would have fitted, and some to come that need more."""
        return self.offsets[len(_LEVELS) + _BEYOND.index(_RETRY_REACH)]


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


def judge_rules(
    predicted: Sequence[float],
    units: Sequence[float],
    peaks: Sequence[float],
    weights: Sequence[float],
    price: Price,
) -> Rules:
    """The rules of a model with these predictions (bytes), units (bytes an offset of 1 adds), peaks and weights; two tasks or more.

    The task that needed most is judged by what the others alone would have tried.
    """
    total = sum(weights)
    tasks = sorted(
        ((peak - guess) / unit, guess, unit, peak, weight / total)
        for guess, unit, peak, weight in zip(predicted, units, peaks, weights, strict=True)
    )
    needed = [task[0] for task in tasks]
    above = _sums_from_the_top(tasks)
    guess, unit, peak = above.predicted[0], above.unit[0], above.peak[0]  # means, as weights add up to 1
    scale = max(_tail_scale(needed, price.tail_share), price.tail_least * peak / unit)
    tries = [(_quantile(needed, level), _quantile(needed[:-1], level)) for level in _LEVELS]
    tries += [(needed[-1] + reach * scale, needed[-2] + reach * scale) for reach in _BEYOND]
    retry_bytes = RETRY * max(peaks)
    imagined = price.tail_tasks / len(tasks)

    def waste(offset: float, without_top: float) -> float:
        first = min(bisect.bisect_right(needed, offset), len(tasks) - 1)
        failed = (above.weight[first], above.predicted[first] + offset * above.unit[first])
        if without_top >= needed[-1]:
            _, top_guess, top_unit, _, top_weight = tasks[-1]
            failed = (failed[0] - top_weight, failed[1] - top_weight * (top_guess + offset * top_unit))
        found = guess + offset * unit - peak + _price_of(*failed, price, retry_bytes)
        for distance, share in _TAIL:
            beyond, given = guess + (needed[-1] + distance * scale) * unit, guess + offset * unit
            over = given - beyond
            if over < 0:
                over += price.share * given + max(beyond, retry_bytes) + price.restart_bytes
            found += imagined * share * over
        return found

    return Rules([offset for offset, _ in tries], [waste(*each) for each in tries], needed[len(needed) // 2])


def _price_of(weight: float, allocated: float, price: Price, retry_bytes: float) -> float:
    """What failures cost beside ``allocation − peak``: the retry, the restart, and a share of what was allocated."""
    return weight * (retry_bytes + price.restart_bytes) + price.share * allocated


class _Sums(NamedTuple):
    """Weighted sums over the tasks from a place on, in order of their offsets."""

    weight: list[float]
    predicted: list[float]
    unit: list[float]
    peak: list[float]


def _sums_from_the_top(tasks: Sequence[tuple[float, float, float, float, float]]) -> _Sums:
    sums = _Sums(*([0.0] * (len(tasks) + 1) for _ in range(4)))
    for place in range(len(tasks) - 1, -1, -1):
        _, guess, unit, peak, weight = tasks[place]
        sums.weight[place] = sums.weight[place + 1] + weight
        sums.predicted[place] = sums.predicted[place + 1] + guess * weight
        sums.unit[place] = sums.unit[place + 1] + unit * weight
        sums.peak[place] = sums.peak[place + 1] + peak * weight
    return sums


def _tail_scale(needed: Sequence[float], share: float) -> float:
    count = max(2, int(len(needed) * share))
    below = needed[-count - 1] if len(needed) > count else needed[0]
    return sum(each - below for each in needed[-count:]) / count


def _quantile(ordered: Sequence[float], level: float) -> float:
    place = level * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
