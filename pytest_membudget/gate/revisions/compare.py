"""Two revisions compared, and the commit between two revisions that made a test use more.

`Comparing` runs everything for screening, then the suspected tests alone until each is clear.

`bisect` is a binary search whose every answer takes as few runs as the noise allows. Both ends are run first: how far apart they
are, against how much they scatter, says how many runs an answer needs. A commit is good or bad once the mean of its runs is
`_SIGMAS` standard errors away from the middle between both levels; a quiet test needs one run a commit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from pytest_membudget.errors import MeasurementError
from pytest_membudget.records.comparison import (
    Bisection,
    BisectStep,
    RevisionComparison,
    RevisionTest,
    RevisionVerdict,
    StackComparison,
)
from pytest_membudget.stats.samples import Plan, is_equivalent, judge_pairs, median, plan
from pytest_membudget.units import Tolerance, format_count

#: What differs by less is equivalent.
REVISIONS_TOLERANCE = Tolerance(share=0.03, absolute_bytes=512 * 1024)
DEFAULT_ERROR_RATE = 0.01
#: Pairs of runs of everything at most, before the suspected tests are run alone.
SCREENING_PAIRS = 3

_ORDER: Sequence[RevisionVerdict] = ("regressed", "improved", "inconclusive", "equivalent")

Measure = Callable[[str], int | None]
"""The peak of one fresh run at a commit; None where the test does not pass there."""
MOST_RUNS_OF_A_COMMIT = 12
_FIRST_RUNS = 2
_SIGMAS = 3.0
#: Two runs may agree by chance: less scatter than this is not believed.
_LEAST_SIGMA = 0.002


class Runs(Protocol):
    """One revision whose tests can be run."""

    def run(self, nodeids: Sequence[str] | None, seed: int) -> Mapping[str, int]:
        """The peaks of all tests, or of some, in a fresh process; of those that passed."""


class Comparing:
    """Runs both sides in turn until each test is clear, or the time is over."""

    def __init__(
        self,
        base: Runs,
        head: Runs,
        *,
        tolerance: Tolerance = REVISIONS_TOLERANCE,
        error_rate: float = DEFAULT_ERROR_RATE,
        budget_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._sides = base, head
        self._tolerance = tolerance
        self._error_rate = error_rate
        self._clock = clock
        self._progress = progress
        self._start_s = clock()
        self._end_s = None if budget_s is None else self._start_s + budget_s
        self._slowest_s = 0.0
        self.sessions = 0

    def compare(self) -> RevisionComparison:
        """Both stages; the names of the revisions are the caller's to fill in."""
        screened, others = self._screen()
        clear = {nodeid for nodeid, samples in screened.items() if self._is_equivalent(samples)}
        suspected = [nodeid for nodeid in screened if nodeid not in clear]
        tests = [self._record(nodeid, "equivalent", screened[nodeid]) for nodeid in clear]
        tests += self._confirm({nodeid: screened[nodeid] for nodeid in suspected})
        tests.sort(key=lambda test: (_ORDER.index(test.verdict), -(test.change_bytes or 0), test.nodeid))
        return RevisionComparison(
            base="",
            head="",
            base_name="",
            head_name="",
            tolerance=str(self._tolerance),
            error_rate=self._error_rate,
            tests=tuple(tests),
            only_base=others[0],
            only_head=others[1],
            suspected=len(suspected),
            sessions=self.sessions,
            duration_s=self._clock() - self._start_s,
        )

    def _screen(self) -> tuple[dict[str, _Samples], tuple[tuple[str, ...], tuple[str, ...]]]:
        """Two pairs of runs of everything, and more of the tests that are neither equivalent nor plainly apart."""
        taken: list[_Pair] = []
        samples: dict[str, _Samples] = {}
        open_tests: list[str] | None = None
        while len(taken) < SCREENING_PAIRS and (len(taken) < 2 or self._has_time()):
            what = "all tests" if open_tests is None else format_count(len(open_tests), "test")
            self._progress(f"{what}, pair {len(taken) + 1} of at most {SCREENING_PAIRS}")
            taken.append(self._pair(open_tests, len(taken)))
            both = [nodeid for nodeid in taken[0].head if nodeid in taken[0].base]
            samples = {nodeid: _samples(nodeid, taken) for nodeid in both}
            if len(taken) > 1:
                open_tests = [nodeid for nodeid in both if not self._is_clear(samples[nodeid])]
                if not open_tests:
                    break
        base, head = taken[0]
        only = (
            tuple(name for name in base if name not in head),
            tuple(name for name in head if name not in base),
        )
        return samples, only

    def _is_clear(self, samples: _Samples) -> bool:
        """Whether more screening would not help: equivalent, or beyond the tolerance in each pair."""
        apart = all(
            abs(new - old) > self._tolerance.allowed_bytes(old) - old
            for old, new in zip(samples.base, samples.head, strict=True)
        )
        return apart or self._is_equivalent(samples)

    def _confirm(self, screened: Mapping[str, _Samples]) -> list[RevisionTest]:
        """New runs of the suspected tests, all in one process a side, until the last of them is clear."""
        if not screened:
            return []
        looks = plan(len(screened), self._error_rate)
        open_tests = {nodeid: _Samples() for nodeid in screened}
        found: list[RevisionTest] = []
        pairs = 0
        while open_tests and self._has_time():
            self._progress(
                f"{format_count(len(open_tests), 'test')}, pair {pairs + 1} of at most {looks.last}"
            )
            pair = self._pair(list(open_tests), pairs)
            pairs += 1
            for nodeid, samples in list(open_tests.items()):
                verdict, caveats = self._judged(nodeid, pair, samples, looks)
                if verdict is not None:
                    del open_tests[nodeid]
                    found.append(self._confirmed(nodeid, verdict, screened[nodeid], samples, caveats))
        late = ("the time was over before enough runs were taken",)
        return found + [
            self._confirmed(nodeid, "inconclusive", screened[nodeid], samples, late)
            for nodeid, samples in open_tests.items()
        ]

    def _judged(
        self, nodeid: str, pair: _Pair, samples: _Samples, looks: Plan
    ) -> tuple[RevisionVerdict | None, tuple[str, ...]]:
        old, new = pair.base.get(nodeid), pair.head.get(nodeid)
        if old is None or new is None:
            where = "base" if old is None else "head"
            return "inconclusive", (f"it did not pass at the {where} without the tests before it",)
        samples.base.append(old)
        samples.head.append(new)
        share, absolute_bytes = self._tolerance
        return judge_pairs(samples.base, samples.head, looks, share=share, absolute_bytes=absolute_bytes), ()

    def _confirmed(
        self,
        nodeid: str,
        verdict: RevisionVerdict,
        screened: _Samples,
        samples: _Samples,
        caveats: tuple[str, ...],
    ) -> RevisionTest:
        record = self._record(nodeid, verdict, samples if samples.base else screened, caveats)
        return msgspec.structs.replace(record, runs=2 * (len(screened.base) + len(samples.base)))

    def _pair(self, nodeids: Sequence[str] | None, number: int) -> _Pair:
        """One run of each side, the order changing from pair to pair, so that a machine that warms up favours neither."""
        start_s = self._clock()
        found: list[Mapping[str, int]] = [{}, {}]
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            found[side] = self._sides[side].run(nodeids, number + 1)
            self.sessions += 1
        self._slowest_s = max(self._slowest_s, self._clock() - start_s)
        return _Pair(*found)

    def _has_time(self) -> bool:
        """Whether one more pair is likely to end in time."""
        return self._end_s is None or self._clock() + self._slowest_s <= self._end_s

    def _is_equivalent(self, samples: _Samples) -> bool:
        return is_equivalent(
            samples.base,
            samples.head,
            share=self._tolerance.share,
            absolute_bytes=self._tolerance.absolute_bytes,
        )

    def _record(
        self, nodeid: str, verdict: RevisionVerdict, samples: _Samples, caveats: tuple[str, ...] = ()
    ) -> RevisionTest:
        base_bytes = round(median(samples.base)) if samples.base else None
        return RevisionTest(
            nodeid=nodeid,
            verdict=verdict,
            base_bytes=base_bytes,
            head_bytes=round(median(samples.head)) if samples.head else None,
            allowed_bytes=None if base_bytes is None else self._tolerance.allowed_bytes(base_bytes),
            base_samples_bytes=tuple(samples.base),
            head_samples_bytes=tuple(samples.head),
            runs=2 * len(samples.base),
            caveats=caveats,
        )


class _Pair(NamedTuple):
    """What one run of each side gave, by test."""

    base: Mapping[str, int]
    head: Mapping[str, int]


class _Samples:
    """Peaks of one test, a pair at the same index of both lists."""

    def __init__(self) -> None:
        self.base: list[int] = []
        self.head: list[int] = []


def _samples(nodeid: str, pairs: Sequence[_Pair]) -> _Samples:
    samples = _Samples()
    for old, new in pairs:
        if nodeid in old and nodeid in new:
            samples.base.append(old[nodeid])
            samples.head.append(new[nodeid])
    return samples


def with_stacks(test: RevisionTest, found: StackComparison) -> RevisionTest:
    """The record of a regressed test with what its captures showed."""
    return msgspec.structs.replace(
        test, stacks=found.stacks, flame=found.flame, caveats=(*test.caveats, *found.caveats)
    )


def bisect(commits: Sequence[str], measure: Measure) -> Bisection:
    """The first bad one of `commits`, of which the first is good and the last is bad.

    Commits at which the test does not pass are left out; where the first bad one may be among them, all are named.

    Raises:
        MeasurementError: the test does not pass at an end, or the ends cannot be distinguished.
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
        """Runs both ends in turn until they can be distinguished."""
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
            if runs >= MOST_RUNS_OF_A_COMMIT:
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
            if (
                abs(distance) > _SIGMAS * self._sigma / math.sqrt(len(peaks))
                or len(peaks) >= MOST_RUNS_OF_A_COMMIT
            ):
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
