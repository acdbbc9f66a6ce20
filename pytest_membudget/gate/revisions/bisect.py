"""Which commit made a test use more? A binary search whose every answer takes as few runs as the noise allows.

Both ends are run first: how far apart they are, against how much they scatter, says how many runs an answer needs. A
commit is good or bad once the mean of its runs is `_SIGMAS` standard errors away from the middle between both levels; a quiet test
needs one run a commit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pytest_membudget.errors import MeasurementError
from pytest_membudget.records.comparison import Bisection, BisectStep
from pytest_membudget.stats.samples import median

Measure = Callable[[str], int | None]
"""The peak of one fresh run at a commit; None where the test does not pass there."""

MOST_RUNS = 12
_FIRST_RUNS = 2
_SIGMAS = 3.0
#: Two runs may agree by chance: less scatter than this is not believed.
_LEAST_SIGMA = 0.002


def bisect(commits: Sequence[str], measure: Measure) -> Bisection:
    """The first bad one of `commits`, of which the first is good and the last is bad.

    Commits at which the test does not pass are left out; where the first bad one may be among them, all are named.

    Raises:
        MeasurementError: the test does not pass at an end, or the ends cannot be told apart.
    """
    search = _Search(commits, measure)
    search.measure_ends()
    low, high = 0, len(commits) - 1
    skipped: set[int] = set()
    while True:
        between = [index for index in range(low + 1, high) if index not in skipped]
        if not between:
            break
        middle = min(between, key=lambda index: abs(2 * index - low - high))
        answer = search.is_bad(middle)
        if answer is None:
            skipped.add(middle)
        elif answer:
            high = middle
        else:
            low = middle
    return search.result(low, high)


class _Search:
    """The runs so far, and the two levels between which an answer lies."""

    def __init__(self, commits: Sequence[str], measure: Measure) -> None:
        self._commits = commits
        self._measure = measure
        self._peaks: dict[int, list[int]] = {}
        self._steps: list[BisectStep] = []
        self._runs = 0
        self._sigma = 0.0
        self._middle = 0.0

    def measure_ends(self) -> None:
        """Runs both ends in turn until they are told apart."""
        ends = {0: "good", len(self._commits) - 1: "bad"}
        good, bad = ends
        while True:
            for index, name in ends.items():
                if not self._run(index):
                    raise MeasurementError(
                        f"the test did not pass at the {name} revision {self._commits[index][:12]}"
                    )
            runs = len(self._peaks[good])
            if runs < _FIRST_RUNS:
                continue
            levels = median(self._peaks[good]), median(self._peaks[bad])
            self._middle = sum(levels) / 2
            self._sigma = max(_spread(self._peaks[good], self._peaks[bad]), _LEAST_SIGMA * self._middle, 1.0)
            if levels[1] - levels[0] > 2 * _SIGMAS * self._sigma / math.sqrt(runs):
                break
            if runs >= MOST_RUNS:
                raise MeasurementError(
                    f"the bad revision uses no more than the good one, as far as {runs} runs of each can tell: "
                    f"medians {levels[1]:,.0f} and {levels[0]:,.0f} B, scatter {self._sigma:,.0f} B"
                )
        self._steps += [self._step(good, "good"), self._step(bad, "bad")]

    def is_bad(self, index: int) -> bool | None:
        """Which end a commit is like; None where the test does not pass there."""
        while True:
            if not self._run(index):
                self._steps.append(self._step(index, "skipped"))
                return None
            peaks = self._peaks[index]
            distance = sum(peaks) / len(peaks) - self._middle
            if abs(distance) > _SIGMAS * self._sigma / math.sqrt(len(peaks)) or len(peaks) >= MOST_RUNS:
                self._steps.append(self._step(index, "bad" if distance > 0 else "good"))
                return distance > 0

    def result(self, low: int, high: int) -> Bisection:
        """The commit at `high`, with its neighbour at `low` to compare with."""
        suspects = tuple(self._commits[low + 1 : high + 1])
        caveats = []
        if len(suspects) > 1:
            caveats.append(
                f"the test does not pass at {len(suspects) - 1} commits before it, any of which may be the one"
            )
        good, bad = (median(self._peaks[end]) for end in (0, len(self._commits) - 1))
        off = max(median(self._peaks[low]) - good, bad - median(self._peaks[high]))
        if off > (bad - good) / 4:
            caveats.append("its level lies between those of both ends: the rise came in several commits")
        return Bisection(
            commit=self._commits[high],
            suspects=suspects,
            before_bytes=round(median(self._peaks[low])),
            after_bytes=round(median(self._peaks[high])),
            runs=self._runs,
            steps=tuple(self._steps),
            caveats=tuple(caveats),
        )

    def _run(self, index: int) -> bool:
        peak_bytes = self._measure(self._commits[index])
        self._runs += 1
        if peak_bytes is not None:
            self._peaks.setdefault(index, []).append(peak_bytes)
        return peak_bytes is not None

    def _step(self, index: int, answer: str) -> BisectStep:
        return BisectStep(
            commit=self._commits[index], answer=answer, peaks_bytes=tuple(self._peaks.get(index, ()))
        )


def _spread(*groups: Sequence[int]) -> float:
    """The standard deviation within groups, pooled."""
    squares = [(value - sum(group) / len(group)) ** 2 for group in groups for value in group]
    return math.sqrt(sum(squares) / max(1, len(squares) - len(groups)))
