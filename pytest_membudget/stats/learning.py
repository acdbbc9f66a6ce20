"""Learns from finished tasks how much memory to allocate for the next one.

`allocation_models` are simple answers to "what does a task of this size take?". Here they vote, each as strongly as it would have
wasted little; what was learned is forgotten when the workload changes.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol, get_args

from pytest_membudget.stats.allocation_models import (
    RETRY,
    Model,
    Rules,
    fit_models,
    fit_neighbours,
    judge_rules,
)
from pytest_membudget.stats.fitting import LEAST_BYTES, PeakFit, fit_peaks

Aim = Literal["safe", "cheap"]


class Learner(Protocol):
    """What a learner answers. Sizes and peaks are bytes."""

    def expect(self, size_bytes: float) -> float:
        """The central estimate of the peak."""

    def allocate(self, size_bytes: float) -> int:
        """What to allocate for a task of this size."""

    def observe(self, size_bytes: float, peak_bytes: float, duration_s: float | None = None) -> None:
        """Learns from a finished task."""

    def observe_at_least(self, size_bytes: float, peak_bytes: float) -> None:
        """Learns that a task took at least so much, and no more than that."""

    def retry(self, size_bytes: float, failed_bytes: float) -> int:
        """What to allocate after an attempt with `failed_bytes` ran out: always more."""


class AimConfig(NamedTuple):
    """What an aim means in figures."""

    restart_bytes: float
    """What a failed attempt costs beyond its own allocation, whatever the task: small tasks are given room, large ones may fail."""
    quantile: float
    """The allocation is this quantile of the rules' votes."""
    sharpness: float
    """How fast a rule's vote falls with its waste, for each task seen."""
    patience: int
    """So many tasks may have been given too little before the models are fitted again at once."""
    one_may_fail: bool = False
    """Whether a task that stands apart from all others is left to fail: see `judge_rules`."""


AIMS: dict[Aim, AimConfig] = {
    "cheap": AimConfig(restart_bytes=2.5e8, quantile=0.5, sharpness=0.5, patience=1, one_may_fail=True),
    "safe": AimConfig(restart_bytes=5e9, quantile=0.9, sharpness=0.2, patience=0),
}
_STEP = 1.15  # a retry allocates at least this much more
_LEAP = 1.33  # and above everything seen this much
_WINDOW = 112  # tasks remembered: enough for a tail of 1 in 100, few enough for a decision within a few milliseconds
_NEWS = 24  # models are fitted again when one task in so many is new, or when tasks were given too little
_STREAK = 16  # so many tasks in a row beyond what seven of eight before them took: that is no chance any more
_BEYOND = 1.25  # above this multiple of the largest size seen only models that grow may vote
_FEW = 30  # while the tasks are fewer, "safe" adds the tolerance bound of the line where a line fits
_FAIR = 0.8  # a line fits when its waste is at most 1 / 0.8 of the least waste of any model
_SAFE_CONTENT, _SAFE_CONFIDENCE = 0.99, 0.95
_LEAST_EXPONENT = -600.0


class _WeightedModel(NamedTuple):
    model: Model
    rules: Rules
    relative: bool
    weights: list[float]
    """Of each of its rules; those of all models add up to 1."""

    @property
    def weight(self) -> float:
        return sum(self.weights)

    @property
    def least_waste(self) -> float:
        return min(self.rules.wastes)

    def at(self, size_bytes: float, offset: float) -> float:
        guess, unit = self._guess(size_bytes)
        return guess + offset * unit

    def votes(self, size_bytes: float) -> list[tuple[float, float]]:
        """What each of its rules allocates, with its weight."""
        guess, unit = self._guess(size_bytes)
        rules = zip(self.rules.offsets, self.weights, strict=True)
        return [(guess + offset * unit, weight) for offset, weight in rules]

    def _guess(self, size_bytes: float) -> tuple[float, float]:
        guess = self.model.predict(size_bytes)
        return guess, max(LEAST_BYTES, guess) if self.relative else 1.0


class AllocationLearner:
    """Allocates so that the expected waste is least ("cheap"), or so that few attempts fail ("safe").

    Waste is weighted by how long tasks run: by their durations where all are known, else by their sizes, which
    durations follow closely in file processing. At least one task has to be known before anything is asked.

    "safe" never allocates less than the largest peak seen near a size, also after it has forgotten the tasks: no
    sequence of small peaks talks it out of a large one.
    """

    def __init__(
        self,
        points: Iterable[tuple[float, float]] = (),
        *,
        aim: Aim = "safe",
        config: AimConfig | None = None,
    ) -> None:
        if aim not in get_args(Aim):
            raise ValueError(f'aim={aim!r} is neither "safe" nor "cheap"')
        self.aim: Aim = aim
        self._config = config or AIMS[aim]
        self._tasks: list[tuple[float, float, float | None]] = []
        self._voters: list[_WeightedModel] | None = None
        self._line: PeakFit | None = None
        self._news = self._short = 0
        self._largest = PeaksNearby()
        for size_bytes, peak_bytes in points:
            self.observe(size_bytes, peak_bytes)

    def __len__(self) -> int:
        """How many tasks are remembered."""
        return len(self._tasks)

    def observe(self, size_bytes: float, peak_bytes: float, duration_s: float | None = None) -> None:
        """Remembers a finished task; forgets the oldest, and all older ones when the workload has changed."""
        self._tasks.append((float(size_bytes), float(peak_bytes), duration_s))
        self._largest.add(size_bytes, peak_bytes)
        self._news += 1
        if len(self._tasks) >= 2 * _WINDOW:
            del self._tasks[:-_WINDOW]
        self._short += self._was_short(size_bytes, peak_bytes)
        if self._short > self._config.patience or self._news > len(self._tasks) // _NEWS:
            self._voters = None

    def observe_at_least(self, size_bytes: float, peak_bytes: float) -> None:
        """Raises what "safe" allocates near that size; the models learn nothing from half a figure."""
        self._largest.add(size_bytes, peak_bytes)

    def expect(self, size_bytes: float) -> float:
        """The central estimate: the vote of the models, each with its median offset."""
        voters = self._fitted()
        if not voters:
            return self._from_few(size_bytes)
        votes = [(voter.at(size_bytes, voter.rules.middle), voter.weight) for voter in voters]
        return max(0.0, _weighted_quantile(votes, 0.5))

    def allocate(self, size_bytes: float) -> int:
        """What to allocate for a first attempt."""
        least = self._largest.near(size_bytes) if self.aim == "safe" else 0.0
        return max(math.ceil(least), self._voted(size_bytes))

    def _voted(self, size_bytes: float) -> int:
        voters = self._fitted()
        if not voters:
            return round(self._from_few(size_bytes) * _STEP)
        votes = [vote for voter in self._entitled(voters, size_bytes) for vote in voter.votes(size_bytes)]
        least = min(peak for _, peak, _ in self._tasks)
        chosen = max(least, _weighted_quantile(votes, self._config.quantile))
        if self._line is not None:
            chosen = max(
                chosen, self._line.bound(size_bytes, content=_SAFE_CONTENT, confidence=_SAFE_CONFIDENCE)
            )
        return round(chosen) + 1

    def retry(self, size_bytes: float, failed_bytes: float) -> int:
        """What to allocate after an attempt with `failed_bytes` ran out: always more."""
        voters = self._entitled(self._fitted(), size_bytes)
        votes = [(voter.at(size_bytes, voter.rules.above_all), voter.weight) for voter in voters]
        most = RETRY * max((peak for _, peak, _ in self._tasks[-_WINDOW:]), default=0.0)
        following = min(most, _weighted_quantile(votes, self._config.quantile)) if votes else 0.0
        if following > failed_bytes:
            chosen = following
        else:  # no task of late took as much, but older ones of this size may have
            chosen = max(_LEAP * failed_bytes, RETRY * self._largest.near(size_bytes))
        return round(max(chosen, _STEP * failed_bytes, self.allocate(size_bytes))) + 1

    def _was_short(self, size_bytes: float, peak_bytes: float) -> bool:
        return bool(self._voters) and peak_bytes > self.allocate(size_bytes)

    def _fitted(self) -> list[_WeightedModel]:
        if self._voters is None:
            self._news = self._short = 0
            if _has_changed(self._tasks[-_WINDOW:]):
                del self._tasks[:-_STREAK]
            tasks = self._tasks[-_WINDOW:]
            self._voters = _elect(tasks, self._config) if len(tasks) >= 3 else []
            self._line = self._fitting_line(tasks)
        return self._voters

    def _fitting_line(self, tasks: list[tuple[float, float, float | None]]) -> PeakFit | None:
        if self.aim == "cheap" or not self._voters or len(tasks) >= _FEW:
            return None
        lines = [voter.least_waste for voter in self._voters if "line" in voter.model.name]
        fits = _FAIR * min(lines, default=0.0) <= min(voter.least_waste for voter in self._voters)
        return fit_peaks([(size, peak) for size, peak, _ in tasks]) if fits else None

    def _entitled(self, voters: list[_WeightedModel], size_bytes: float) -> list[_WeightedModel]:
        if not voters or size_bytes <= _BEYOND * max(size for size, _, _ in self._tasks):
            return voters
        best = max(voters, key=lambda voter: voter.weight)
        if best.model.name == "constant":
            return voters
        return [voter for voter in voters if voter.model.grows] or voters

    def _from_few(self, size_bytes: float) -> float:
        """The largest of one or two tasks, raised in proportion for a larger size."""
        if not self._tasks:
            raise ValueError("nothing has been observed yet, so nothing can be predicted")
        largest = max(size for size, _, _ in self._tasks)
        ratio = max(1.0, size_bytes / largest) if largest else 1.0
        return ratio * max(peak for _, peak, _ in self._tasks)


def _elect(tasks: list[tuple[float, float, float | None]], config: AimConfig) -> list[_WeightedModel]:
    sizes = [size for size, _, _ in tasks]
    peaks = [peak for _, peak, _ in tasks]
    durations = [duration for _, _, duration in tasks if duration]
    weights = durations if len(durations) == len(tasks) else [max(1.0, size) for size in sizes]
    judged = []
    for model in fit_models(sizes, peaks):
        for relative in (False, True) if model.name != "constant" else (False,):
            units = [max(LEAST_BYTES, guess) if relative else 1.0 for guess in model.left_out]
            rules = judge_rules(
                model.left_out,
                units,
                peaks,
                weights,
                config.restart_bytes,
                one_may_fail=config.one_may_fail,
            )
            judged.append((model, relative, rules))
    least = max(1.0, min(waste for _, _, rules in judged for waste in rules.wastes))
    # The exponentially weighted forecaster (Cesa-Bianchi and Lugosi 2006) with waste in units of the least as its loss.
    # Beyond all sizes seen only some models vote: none of their weights may vanish.
    rate = config.sharpness * len(tasks)
    shares = [
        [math.exp(max(_LEAST_EXPONENT, rate * (1 - max(1.0, waste) / least))) for waste in rules.wastes]
        for _, _, rules in judged
    ]
    total = sum(map(sum, shares))
    return [
        _WeightedModel(model, rules, relative, [share / total for share in theirs])
        for (model, relative, rules), theirs in zip(judged, shares, strict=True)
    ]


def _has_changed(tasks: list[tuple[float, float, float | None]]) -> bool:
    """Whether the last tasks all took more, or all less, than seven of eight older ones, size taken into account."""
    older, recent = tasks[:-_STREAK], tasks[-_STREAK:]
    if len(older) < _STREAK:
        return False
    model = fit_neighbours([size for size, _, _ in older], [peak for _, peak, _ in older])
    ratios = sorted(peak / max(1.0, guess) for (_, peak, _), guess in zip(older, model.left_out, strict=True))
    low, high = ratios[len(ratios) // 8], ratios[-1 - len(ratios) // 8]
    found = [peak / max(1.0, model.predict(size)) for size, peak, _ in recent]
    return min(found) > high or max(found) < low


def _weighted_quantile(votes: list[tuple[float, float]], quantile: float) -> float:
    ordered = sorted(votes)
    wanted = quantile * sum(weight for _, weight in ordered)
    reached = 0.0
    for value, weight in ordered:
        reached += weight
        if reached >= wanted:
            return value
    return ordered[-1][0]


_BELOW = 1.25
_ABOVE = 1.05
"""Near a size: from 1.25 times smaller to 1.05 times larger. Peaks rise with size, so less is said by the larger ones."""

_BIN = math.log(1.025)  # sizes within 2.5% share a bin: a terabyte of sizes takes about 1,100 of them


class PeaksNearby:
    """The largest peak near a size. Sizes and peaks are bytes."""

    def __init__(self) -> None:
        self._largest: dict[int, float] = {}

    def add(self, size_bytes: float, peak_bytes: float) -> None:
        """Keeps one more peak."""
        place = _bin(size_bytes)
        self._largest[place] = max(peak_bytes, self._largest.get(place, 0.0))

    def near(self, size_bytes: float) -> float:
        """The largest peak near that size; where there is none, that of the next smaller size; else 0."""
        places = range(_bin(size_bytes / _BELOW), _bin(size_bytes * _ABOVE) + 1)
        found = [self._largest[place] for place in places if place in self._largest]
        if not found:
            smaller = max((place for place in self._largest if place < places.start), default=None)
            found = [0.0 if smaller is None else self._largest[smaller]]
        return max(found)


class PeakStairs:
    """The largest peak at a size or any smaller one: stairs that only go up. Sizes and peaks are bytes."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._peaks: list[int] = []

    def up_to(self, size_bytes: int) -> int:
        """The height of the stairs there; 0 before the first step."""
        place = bisect.bisect_right(self._sizes, size_bytes)
        return self._peaks[place - 1] if place else 0

    def add(self, size_bytes: int, peak_bytes: int) -> None:
        """Raises the stairs from that size on, where they are lower."""
        if peak_bytes <= self.up_to(size_bytes):
            return
        place = bisect.bisect_left(self._sizes, size_bytes)
        last = place
        while last < len(self._sizes) and self._peaks[last] <= peak_bytes:
            last += 1
        self._sizes[place:last] = [size_bytes]
        self._peaks[place:last] = [peak_bytes]


def _bin(size_bytes: float) -> int:
    return math.floor(math.log(size_bytes) / _BIN) if size_bytes >= 1 else -1
