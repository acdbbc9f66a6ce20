"""Simple models of the peak as a function of size, and what each would have wasted with each of its offsets.

A model is judged on what it says of a task that it has not seen. A rule is a model and an offset q: it allocates
``predicted + q · unit``, where the unit is a byte or the prediction itself. Every finished task shows what every rule would
have wasted on it:

    allocation − peak                     where the task fits,
    allocation + retry − peak + restart   where it fails and is repeated with the most that any task took.

With tasks sorted by the offset that each needed, the weight of all tasks above an offset gives its waste at once.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

_NEIGHBOURS = 5
_RELATIVE_FLOOR = 0.05  # of the mean peak: no weight grows without limit where a line approaches 0
_MOST_LEVERAGE = 0.95  # a single task that decides a line on its own says little about the line's errors

_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97)  # quantiles of the offsets needed that are tried
_BEYOND = (0.0, 0.1, 0.3, 0.7, 1.3, 2.0, 3.0)  # and above the largest of them, in scales of the tail
_TAIL = ((0.15, 0.25), (0.7, 0.35), (1.7, 0.25), (3.0, 0.1), (5.0, 0.05))
"""(distance in scales, weight): the next task lies above n others with probability m / n, and then by an exponential
distance, whose quantiles these are. Its scale is how much the tasks in the upper `_TAIL_SHARE` lie above the largest of the
others on average, and at least `_TAIL_LEAST` of the mean peak: peaks that agree to the megabyte say little of how far the
next one strays, and a failed attempt costs all of it."""

_TAIL_TASKS = 0.1
"""m: 1 is the probability for tasks in random order, less trusts that the next is like the others."""

_TAIL_SHARE = 0.6
_TAIL_LEAST = 0.004

_RETRY_REACH = 0.3
_ABOVE_OTHERS = 0.3  # scales of their tail above all tasks but the one that needed most
RETRY = 1.04  # times the largest peak seen: the most that is tried after a failure before it leaps


class Model(NamedTuple):
    """A fitted model: `predict(size)` in bytes, and what it says of each task when fitted without that task."""

    name: str
    predict: Callable[[float], float]
    left_out: list[float]
    grows: bool
    """Whether it has something to say beyond the sizes it was fitted on."""


class Rules(NamedTuple):
    """The offsets of one model, and what each would have wasted on a task, in bytes."""

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
    restart_bytes: float,
    *,
    tail_tasks: float = _TAIL_TASKS,
    one_may_fail: bool = False,
) -> Rules:
    """The rules of a model, from two tasks or more.

    The task that needed most is judged by what the others alone would have tried.

    Args:
        predicted: the model's prediction of each task, in bytes.
        units: the bytes that an offset of 1 adds.
        peaks: what each took.
        weights: how much each counts.
        restart_bytes: what a failed attempt costs beyond its own allocation.
        tail_tasks: how many tasks above all of these are imagined.
        one_may_fail: also tries an offset a little above what all but one needed, and takes how far the others stray from
            the others alone.
    """
    total = sum(weights)
    tasks = sorted(
        ((peak - guess) / unit, weight / total)
        for guess, unit, peak, weight in zip(predicted, units, peaks, weights, strict=True)
    )
    needed = [offset for offset, _ in tasks]
    failing = list(itertools.accumulate((weight for _, weight in reversed(tasks)), initial=0.0))[::-1]
    guess, unit, peak = (
        sum(value * weight for value, weight in zip(values, weights, strict=True)) / total
        for values in (predicted, units, peaks)
    )
    least_scale = _TAIL_LEAST * peak / unit
    scale = max(_tail_scale(needed), least_scale)
    others = needed[:-1] if one_may_fail and len(needed) > 3 else needed
    scale_of_others = max(_tail_scale(others), least_scale)
    tries = [(_quantile(needed, level), _quantile(needed[:-1], level)) for level in _LEVELS]
    tries += [(needed[-1] + reach * scale, needed[-2] + reach * scale_of_others) for reach in _BEYOND]
    above_others = others[-1] + _ABOVE_OTHERS * scale_of_others
    if above_others < needed[-1]:
        tries.append((above_others, needed[-2]))
    retry_bytes = RETRY * max(peaks)

    def waste(offset: float, without_top: float) -> float:
        given = guess + offset * unit
        failed = failing[min(bisect.bisect_right(needed, offset), len(tasks) - 1)]
        if without_top >= needed[-1]:
            failed -= tasks[-1][1]
        found = given - peak + failed * (retry_bytes + restart_bytes)
        for distance, share in _TAIL:
            beyond = guess + (needed[-1] + distance * scale) * unit
            cost = (
                given - beyond if given >= beyond else given + max(0.0, retry_bytes - beyond) + restart_bytes
            )
            found += tail_tasks / len(tasks) * share * cost
        return found

    return Rules([offset for offset, _ in tries], [waste(*each) for each in tries], needed[len(needed) // 2])


def _tail_scale(needed: Sequence[float]) -> float:
    count = max(2, int(len(needed) * _TAIL_SHARE))
    below = needed[-count - 1] if len(needed) > count else needed[0]
    return sum(each - below for each in needed[-count:]) / count


def _quantile(ordered: Sequence[float], level: float) -> float:
    place = level * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
