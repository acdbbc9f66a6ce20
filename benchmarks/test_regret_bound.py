"""How near to the best fixed rule in hindsight can any learner come on tasks like the recorded ones?

Tasks are drawn from each kind as it was recorded: pairs of size and duration as they are, and peaks from the law (constant, line
or power) whose best rule wastes least on the kind, with its errors drawn from a smoothed distribution of those recorded. Two
prophets allocate what is best in expectation, every repeat included:

- one knows the law and the whole distribution of the errors, so it has nothing to learn;
- one knows the law and the shape of this distribution, and learns its place and width from the tasks so far, by Bayes with a
  flat prior of the place and of the logarithm of the width.

What the first wastes is lost to hindsight itself: no learner's expectation is below it. `MEMBUDGET_DRAWS` says how many draws.
"""

import math
import os
from typing import NamedTuple

import numpy as np
import pytest
from workflow_traces import best_rule_in_hindsight, fitted, log

from pytest_membudget.stats.learning import AllocationLearner

pytestmark = pytest.mark.timeout(0)
DRAWS = int(os.environ.get("MEMBUDGET_DRAWS", "2"))
PRICES = {"cheap": 1e-4, "safe": 0.02}
"""What a failed attempt costs beside its waste, in units of all that the best rule in hindsight wastes on the workflow: "safe" fails
on about 0.5% of tasks then."""

PLACES = np.linspace(-2, 2, 41)
WIDTHS = np.exp(np.linspace(-1.6, 1.6, 33))
SUPPORT = 160


class Kind(NamedTuple):
    """Peaks are guess + unit·(place + width·z), with z from the smoothed shape."""

    known: int
    arriving: int
    sizes: np.ndarray
    seconds: np.ndarray
    guess: np.ndarray
    unit: np.ndarray
    place: float
    width: float
    z: np.ndarray
    bandwidth: float

    def shape(self):
        """The density of z on a fine grid, and its distribution function."""
        grid = np.linspace(self.z[0] - 6 * self.bandwidth, self.z[-1] + 6 * self.bandwidth, 1200)
        apart = (grid[:, None] - self.z[None, :]) / self.bandwidth
        density = np.exp(-0.5 * apart**2).mean(1) / (self.bandwidth * math.sqrt(2 * math.pi))
        cumulated = np.cumsum(density)
        return grid, np.log(density + 1e-300), cumulated / cumulated[-1]


def kind_of(known, arriving):
    """The kind by its best law; `None` where all peaks are one."""
    sizes, peaks, seconds = (np.array(column, float) for column in zip(*known, *arriving, strict=True))
    seconds = np.maximum(seconds, 1e-3)
    nothing, one = np.zeros(len(sizes)), np.ones(len(sizes))
    power = np.exp(fitted(map(log, sizes), [log(peak) for peak in peaks]))
    laws = [
        (nothing, one),
        (np.array(fitted(sizes, peaks)), one),
        (power, one),
        (nothing, power),
    ]
    guess, unit = min(laws, key=lambda law: least_waste(law, peaks, seconds))
    errors = np.sort((peaks - guess) / unit)
    if errors.std() <= 1e-9 * max(1.0, abs(errors.mean())):
        return None
    z = (errors - errors.mean()) / errors.std()
    spread = np.subtract(*np.percentile(z, [75, 25])) / 1.34 or 1.0
    bandwidth = max(0.02, 0.9 * min(1.0, spread) * len(z) ** -0.2)  # Silverman's rule
    return Kind(
        len(known), len(arriving), sizes, seconds, guess, unit, errors.mean(), errors.std(), z, bandwidth
    )


def least_waste(law, peaks, seconds):
    """What the law's best offset would have wasted on these tasks, with the largest peak after a failure."""
    guess, unit = law
    given = guess + np.outer((peaks - guess) / unit, unit)  # a row for each offset
    wasted = np.where(given >= peaks - 1, given - peaks, np.maximum(given, 0.0) + peaks.max() - peaks)
    return float((np.maximum(wasted, 0.0) @ seconds).min())


def best_ladder(peaks, chances, price):
    """Which of these ascending peaks to allocate when the first, second, … of them are known to be too little, by dynamic programming.

    V(i) = min over j >= i of  peak_j·P(i…) − Σ p·peak (i…j) + price·P(j+1…) + V(j+1)
    """
    count = len(peaks)
    left = np.append(np.cumsum(chances[::-1])[::-1], 0.0)
    taken = np.append(0.0, np.cumsum(chances * peaks))
    value, choice = np.zeros(count + 1), np.zeros(count, int)
    for i in range(count - 1, -1, -1):
        costs = peaks[i:] * left[i] - (taken[i + 1 :] - taken[i]) + price * left[i + 1 :] + value[i + 1 :]
        choice[i] = i + costs.argmin()
        value[i] = costs.min()
    return choice


def waste_of_ladder(choice, allocations, peak):
    """Bytes wasted and attempts failed."""
    step = wasted = failed = 0
    while step < len(choice):
        given = allocations[choice[step]]
        if given >= peak:
            return wasted + given - peak, failed
        wasted, failed, step = wasted + given, failed + 1, choice[step] + 1
    return wasted, failed  # above all that it thought possible: it is given exactly what it takes


def draw(kind, source):
    """So many tasks as the kind has: which recorded ones, their z, and their peaks."""
    count = kind.known + kind.arriving
    which = source.integers(0, len(kind.sizes), count)
    z = source.choice(kind.z, count) + kind.bandwidth * source.standard_normal(count)
    peaks = kind.guess[which] + kind.unit[which] * (kind.place + kind.width * z)
    return which, z, np.maximum(peaks, 1.0)


def prophets_waste(kind, which, z, peaks, price):
    """`(byte-seconds, failed attempts)` of who knows the distribution, and of who knows its shape, on the arriving tasks."""
    grid, log_density, cumulated = kind.shape()
    support = np.append(
        np.linspace(grid[0] - 0.3, grid[-1] + 0.3, SUPPORT), grid[-1] + np.geomspace(0.5, 20, 20)
    )
    places, widths = (each.ravel() for each in np.meshgrid(PLACES, WIDTHS, indexing="ij"))
    knows = np.diff(np.interp(support, grid, cumulated), prepend=0.0)
    belief = np.zeros(len(places))
    wasted, failed = np.zeros(2), np.zeros(2, int)
    for number, (task, each, peak) in enumerate(zip(which, z, peaks, strict=True)):
        if number >= kind.known:
            allocations = np.maximum(
                0.0, kind.guess[task] + kind.unit[task] * (kind.place + kind.width * support)
            )
            weights = np.exp(belief - belief.max())
            likely = weights > 1e-6
            inside = (support - places[likely, None]) / widths[likely, None]
            predicted = weights[likely] @ np.interp(inside, grid, cumulated) / weights[likely].sum()
            for who, chances in enumerate((knows, np.diff(predicted, prepend=0.0))):
                ladder = best_ladder(allocations, chances, price / kind.seconds[task])
                lost, attempts = waste_of_ladder(ladder, allocations, peak)
                wasted[who] += lost * kind.seconds[task]
                failed[who] += attempts
        belief += np.interp((each - places) / widths, grid, log_density, left=-690, right=-690) - np.log(
            widths
        )
    return wasted, failed


def learners_waste(kind, which, peaks, aim):
    """The same of our learner."""
    tasks = [(kind.sizes[task], peak) for task, peak in zip(which, peaks, strict=True)]
    learner = AllocationLearner(tasks[: kind.known], aim=aim)
    wasted = failed = 0
    for (size, peak), task in zip(tasks[kind.known :], which[kind.known :], strict=True):
        given = learner.allocate(size)
        while given < peak:
            wasted, failed = wasted + given * kind.seconds[task], failed + 1
            given = learner.retry(size, given)
        wasted += (given - peak) * kind.seconds[task]
        learner.observe(size, peak)
    return wasted, failed


@pytest.mark.parametrize("aim", ["cheap", "safe"])
def test_what_prophets_waste_on_tasks_like_the_recorded_ones(aim, traces, figure):
    who = ("knows the distribution", "knows its shape", "learns all")
    kinds = {
        name: [found for runs in each.values() if (found := kind_of(*runs))] for name, each in traces.items()
    }
    least = {
        name: sum(best_rule_in_hindsight(arriving) for _, arriving in each.values())
        for name, each in traces.items()
    }
    logs, failed, tasks = [], np.zeros(3), 0
    for seed in range(DRAWS):
        source = np.random.default_rng(seed)
        ratios = []
        for name, found in kinds.items():
            wasted, hindsight = np.zeros(3), 0.0
            for kind in found:
                which, z, peaks = draw(kind, source)
                arriving = slice(kind.known, None)
                columns = (kind.sizes[which], peaks, kind.seconds[which])
                runs = list(zip(*(column[arriving].tolist() for column in columns), strict=True))
                hindsight += best_rule_in_hindsight(runs) * 3.6e12
                told, attempts = prophets_waste(kind, which, z, peaks, PRICES[aim] * least[name] * 3.6e12)
                ours, our_attempts = learners_waste(kind, which, peaks, aim)
                wasted += [*told, ours]
                failed += [*attempts, our_attempts]
                tasks += kind.arriving
            ratios.append(wasted / hindsight)
        logs.append(np.log(ratios).mean(0))
    for place, name in enumerate(who):
        each = np.exp([row[place] for row in logs])
        figure(
            f"{aim}: who {name}, of the best fixed rule in hindsight",
            f"{each.mean():.2f} ({each.min():.2f} to {each.max():.2f} in {DRAWS} draws)",
            f"{failed[place] / tasks:.2%} failed",
        )
    assert np.all(np.isfinite(logs))
