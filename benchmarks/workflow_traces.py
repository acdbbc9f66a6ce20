"""Recorded runs of workflows, and the yardstick for those who predict them: the best fixed rule in hindsight."""

import csv
import math
import statistics

Run = tuple[int, int, float]
"""Input bytes, peak bytes, seconds."""


def read_kinds(path):
    """For each kind of task its known runs and its arriving ones, as (input bytes, peak bytes, seconds)."""
    kinds: dict[str, tuple[list[Run], list[Run]]] = {}
    with path.open(newline="") as stream:
        for row in sorted(
            csv.DictReader(stream), key=lambda row: (row["role"] == "test", int(row["position"]))
        ):
            known, arriving = kinds.setdefault(row["task"], ([], []))
            run = (int(row["input_bytes"]), int(row["rss_bytes"]), int(row["runtime_ms"]) / 1000)
            (known if row["role"] == "train" else arriving).append(run)
    return kinds


def best_rule_in_hindsight(runs):
    """Least waste in GB·h of a fixed rule that knows all runs: constant, line or power, the best offset, then the largest."""
    sizes, peaks, seconds = zip(*runs, strict=True)
    lines = [
        fitted(sizes, peaks),
        [math.exp(each) for each in fitted(map(log, sizes), list(map(log, peaks)))],
    ]
    wasted = []
    for predicted in ([0.0] * len(runs), *lines):
        for ratio in (False, True) if predicted is lines[1] else (False,):
            for known, peak in zip(predicted, peaks, strict=True):
                offset = peak / known if ratio else peak - known
                given = [each * offset if ratio else each + offset for each in predicted]
                wasted.append(sum(map(one_waste, given, peaks, seconds, [max(peaks)] * len(runs))))
    return min(wasted) / 1e9 / 3600


def one_waste(given, peak, seconds, largest):
    return seconds * (max(0.0, given - peak) if given >= peak - 1 else max(0.0, given) + largest - peak)


def fitted(xs, ys):
    """The least-squares line at each x."""
    xs = list(xs)
    slope = 0.0
    if len(set(xs)) > 1:
        slope = statistics.linear_regression(xs, ys).slope
    start = statistics.fmean(ys) - slope * statistics.fmean(xs)
    return [start + slope * x for x in xs]


def log(value):
    return math.log(max(1.0, value))
