"""What a call holds over its time, learned from finished calls; and whether one more fits beside those that run.

A profile is normalized: time as a share of the call's duration, memory as a share of its peak. How far a call has come is
not known while it runs. So what it is charged at an age is the most that its profile has at any progress which the
durations seen allow for that age, and a call that is late is charged its peak.

    age a, progress q:   a / longest_s <= q <= a / shortest_s,   charge(a) = peak * max of the profile over these q

What it is read to hold says more: only where the profile knows such a share can it be, which narrows both durations.

`fits` adds the charges of all calls at every instant to come. A sum of piecewise constant functions changes only at their
edges, so it is computed at these alone.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pytest_membudget.stats.allocation_models import least_squares_line
from pytest_membudget.stats.fitting import RUN_TO_RUN_BYTES

BINS = 20
"""Equal parts of a call's duration."""

LEAST_RUNS = 5
"""Calls of a function that must have finished before it has a profile."""

_LATEST_RUNS = 32
_MOST_FUNCTIONS = 1024
_MOST_READINGS = 256

_SHARE_MARGIN = 0.02
"""Of the peak: by so much two runs of one function differ although they do the same."""

_TIME_MARGIN = 1.05

READING_LAG_S = 0.02
"""What a call holds may be read so much later than its age says."""

_NEAR = 1.25
"""A profile holds for sizes up to this factor beyond those that were seen."""


class Timeline:
    """What one call held, as it was read while it ran; a long one keeps the largest reading of each interval."""

    __slots__ = ("_readings", "_stride", "_unmerged")

    def __init__(self) -> None:
        self._readings: list[tuple[float, int]] = []
        self._stride = 1
        self._unmerged = 0

    def add(self, age_s: float, held_bytes: int) -> None:
        """Keeps a reading, `age_s` after the call began."""
        if self._unmerged:
            held_bytes = max(held_bytes, self._readings.pop()[1])
        self._readings.append((age_s, held_bytes))
        self._unmerged = (self._unmerged + 1) % self._stride
        if len(self._readings) == _MOST_READINGS and not self._unmerged:
            pairs = zip(self._readings[::2], self._readings[1::2], strict=True)
            self._readings = [(later_s, max(one, other)) for (_, one), (later_s, other) in pairs]
            self._stride *= 2

    def shares(self, duration_s: float, peak_bytes: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The most and the least that was held in each part of the duration, as shares of the peak.

        Between two readings the call may have held what either shows, so each part that they touch knows both. What the
        kernel's peak shows above all readings may have been held at any time: it is added to the most everywhere.
        """
        top_bytes = max((held for _, held in self._readings), default=0)
        unseen_bytes = max(0, peak_bytes - top_bytes)
        whole_bytes = max(1, top_bytes, peak_bytes)
        most, least = [0] * BINS, [whole_bytes] * BINS
        before_s, before_bytes = 0.0, 0
        for age_s, held_bytes in [*self._readings, (duration_s, 0)]:
            first, last = (min(BINS - 1, int(BINS * t / duration_s)) for t in (before_s, age_s))
            for place in range(first, last + 1):
                most[place] = max(most[place], before_bytes, held_bytes)
                least[place] = min(least[place], before_bytes, held_bytes)
            before_s, before_bytes = age_s, held_bytes
        return (
            tuple((held + unseen_bytes) / whole_bytes for held in most),
            tuple(held / whole_bytes for held in least),
        )


class Profile(NamedTuple):
    """What a call holds in each of equal parts of its duration, as shares of what it is charged; and its duration in seconds."""

    #: the most; above 1 where calls took more than they were charged, which raises no charge above the peak
    shares: tuple[float, ...]
    shortest_s: float
    longest_s: float
    #: the least; empty where nothing is known of that
    least: tuple[float, ...] = ()

    def within(self, age_s: float, low_share: float, high_share: float) -> Profile | None:
        """The profile of a call that holds between these shares at its age; `None` where it has that at no progress possible."""
        if age_s >= self.longest_s:
            return self  # late, whatever it holds
        count = len(self.shares)
        first = min(count - 1, int(count * age_s / self.longest_s))
        last = min(count - 1, int(count * (age_s + READING_LAG_S) / self.shortest_s))
        possible = [
            place
            for place in range(first, last + 1)
            if low_share <= self.shares[place] and high_share >= (self.least[place] if self.least else 0)
        ]
        if not possible:
            return None
        begins, ends = possible[0] / count, (possible[-1] + 1) / count
        longest_s = _TIME_MARGIN * (age_s + READING_LAG_S) / begins if begins else self.longest_s
        shortest_s = age_s / ends / _TIME_MARGIN
        return self._replace(
            shortest_s=min(self.longest_s, max(self.shortest_s, shortest_s)),
            longest_s=max(self.shortest_s, min(self.longest_s, longest_s)),
        )


class ChargedCall(NamedTuple):
    """A call that runs or is to start. Without a profile it is charged its peak until it ends, whenever that is.

    `age_s` is the most that it can have; `may_wait_s` by how much it may have begun later, where that is not known.
    """

    peak_bytes: int
    profile: Profile | None = None
    age_s: float = 0.0
    may_wait_s: float = 0.0

    @property
    def is_late(self) -> bool:
        """Whether it should have ended."""
        return self.profile is not None and self.age_s >= self.profile.longest_s

    def steps(self) -> list[tuple[float, int]]:
        """`(after_s, bytes)`: charged from so many seconds from now until the next step; the first is now."""
        if self.profile is None or self.is_late:
            return [(0.0, self.peak_bytes)]
        shares, shortest_s, longest_s, _ = self.profile
        enters_s = [place * shortest_s / len(shares) - self.age_s for place in range(len(shares))]
        leaves_s = [
            (place + 1) * longest_s / len(shares) - self.age_s + self.may_wait_s
            for place in range(len(shares))
        ]
        edges = sorted({0.0, *(edge for edge in (*enters_s, *leaves_s) if edge > 0)})
        steps = []
        for after_s in edges:
            possible = shares[bisect_right(leaves_s, after_s) : bisect_right(enters_s, after_s)]
            steps.append((after_s, math.ceil(min(1.0, max(possible, default=0.0)) * self.peak_bytes)))
        return steps


def largest_sum(calls: Iterable[ChargedCall]) -> int:
    """The most that these calls are charged together at any instant from now on, in bytes."""
    changes: list[tuple[float, int]] = []
    for call in calls:
        before_bytes = 0
        for after_s, charged_bytes in call.steps():
            changes.append((after_s, charged_bytes - before_bytes))
            before_bytes = charged_bytes
    changes.sort(key=lambda change: change[0])
    total = largest = 0
    for place, (after_s, change_bytes) in enumerate(changes):
        total += change_bytes
        if place + 1 == len(changes) or changes[place + 1][0] > after_s:
            largest = max(largest, total)
    return largest


def fits(call: ChargedCall, running: Sequence[ChargedCall], budget_bytes: int) -> bool:
    """Whether `call` may start now: with what runs it is charged no more than the budget at any instant to come."""
    return largest_sum([*running, call]) <= budget_bytes


class _Run(NamedTuple):
    size: float
    duration_s: float
    most: tuple[float, ...]
    least: tuple[float, ...]


class ProfileLearner:
    """The profile of one function: the envelope of its latest runs.

    Durations follow a line in the size; the range of their ratios to it is widened by what as many runs may have missed.
    """

    def __init__(self) -> None:
        self._runs: deque[_Run] = deque(maxlen=_LATEST_RUNS)
        self._most: tuple[float, ...] = ()
        self._least: tuple[float, ...] = ()
        self._start_s = self._slope = 0.0
        self._fastest = self._slowest = 1.0

    def observe(
        self, size: float, duration_s: float, peak_bytes: int, timeline: Timeline, charged_bytes: int = 0
    ) -> None:
        """A call has ended well; without a duration or a peak it teaches nothing."""
        if duration_s <= 0 or peak_bytes <= 0:
            return
        most, least = timeline.shares(duration_s, peak_bytes)
        taken = peak_bytes / charged_bytes if charged_bytes else 1.0
        most = tuple(max(1.0, taken) * share for share in most)
        least = tuple(min(1.0, taken) * share for share in least)
        self._runs.append(_Run(size, duration_s, most, least))
        if len(self._runs) >= LEAST_RUNS:
            self._fit()

    def profile(self, size: float) -> Profile | None:
        """For a call of this size; `None` where too little was seen, or nothing near that size."""
        if len(self._runs) < LEAST_RUNS:
            return None
        sizes = [run.size for run in self._runs]
        if not min(sizes) / _NEAR <= size <= max(sizes) * _NEAR:
            return None
        usual_s = self._usual_s(size)
        return Profile(self._most, usual_s * self._fastest, usual_s * self._slowest, self._least)

    def _fit(self) -> None:
        durations = [run.duration_s for run in self._runs]
        sizes = [run.size for run in self._runs]
        weights = [duration**-2 for duration in durations]
        self._start_s, self._slope, _ = least_squares_line(sizes, durations, weights)
        ratios = [run.duration_s / self._usual_s(run.size) for run in self._runs]
        # Of n draws the next lies outside their range with probability 2 / (n + 1): as much is added to it.
        missed = (max(ratios) / min(ratios)) ** (2 / (len(ratios) - 1))
        widened = max(_TIME_MARGIN, missed)
        self._fastest, self._slowest = min(ratios) / widened, max(ratios) * widened
        highest = map(max, zip(*(run.most for run in self._runs), strict=True))
        lowest = map(min, zip(*(run.least for run in self._runs), strict=True))
        self._most = tuple(share + _SHARE_MARGIN for share in highest)
        self._least = tuple(max(0.0, share - _SHARE_MARGIN) for share in lowest)

    def _usual_s(self, size: float) -> float:
        least_s = min(run.duration_s for run in self._runs) / 2
        return max(least_s, self._start_s + self._slope * size)


class CallProfile(NamedTuple):
    """The profile of one call: that of its function at its size."""

    learner: ProfileLearner
    size: float

    def now(self) -> Profile | None:
        """As far as it is known."""
        return self.learner.profile(self.size)


class FollowedCall:
    """A call that runs: what it was read to hold, and how far it can have come by that.

    Args:
        known: the profile of its function.
        charged_bytes: what it is charged at most.
    """

    def __init__(self, known: CallProfile, charged_bytes: int) -> None:
        self._known = known
        self._charged_bytes = max(1, charged_bytes)
        self._timeline = Timeline()
        self._shortest_s, self._longest_s = 0.0, math.inf
        self._is_off_profile = False

    def read(self, age_s: float, held_bytes: int) -> None:
        """At this age it holds so much."""
        self._timeline.add(age_s, held_bytes)
        profile = self.profile()
        if profile is None:
            return
        low_share = (held_bytes - RUN_TO_RUN_BYTES) / self._charged_bytes
        high_share = (held_bytes + RUN_TO_RUN_BYTES) / self._charged_bytes
        narrowed = profile.within(age_s, low_share, high_share)
        if narrowed is None:
            self._is_off_profile = True
        else:
            self._shortest_s, self._longest_s = narrowed.shortest_s, narrowed.longest_s

    def profile(self) -> Profile | None:
        """What it will hold; `None` where nothing is known, or it held what its profile has at no time possible."""
        known = None if self._is_off_profile else self._known.now()
        if known is None:
            return None
        shortest_s = min(known.longest_s, max(known.shortest_s, self._shortest_s))
        return known._replace(
            shortest_s=shortest_s, longest_s=max(shortest_s, min(known.longest_s, self._longest_s))
        )

    def ended(self, duration_s: float, peak_bytes: int) -> None:
        """It ended well, and teaches the profile of its function."""
        self._known.learner.observe(
            self._known.size, duration_s, peak_bytes, self._timeline, self._charged_bytes
        )


class Profiles:
    """What was learned of each function that was called lately."""

    def __init__(self) -> None:
        self._learners: OrderedDict[str, ProfileLearner] = OrderedDict()

    def of(self, function: str, size: float | None) -> CallProfile:
        """The profile of a call of `function`; one without a size counts as size 0."""
        learner = self._learners.setdefault(function, ProfileLearner())
        if len(self._learners) > _MOST_FUNCTIONS:
            self._learners.popitem(last=False)
        return CallProfile(learner, size or 0)
