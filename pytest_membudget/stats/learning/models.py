"""Simple models of the peak as a function of size, each judged on what it says of a task it has not seen."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

_NEIGHBOURS = 5
_RELATIVE_FLOOR = 0.05  # of the mean peak: no weight grows without limit where a line approaches 0
_MOST_LEVERAGE = 0.95  # a single task that decides a line on its own says little about the line's errors


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
