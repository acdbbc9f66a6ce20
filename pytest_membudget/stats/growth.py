"""Does a figure go on growing with the number of calls? The decision, on scripted or measured samples.

The samples are (calls made so far, what was held then). Their *floor* is what was never given back later: the least
of all later samples. A leak raises the floor for ever; a cache that fills up raises it until it is full; memory that a
function keeps at random, or frees late, does not raise it at all. Three windows end at the last sample and each start at half
the calls of the one after: [n/8, n/4], [n/4, n/2] and [n/2, n].

* *growing*: all three windows grow by more than is allowed, the last not much slower than the two before it, by more than the figure ever fell back, by more than the figure's allowance in all, its largest single step left out, `evidence` rules chance out, and the samples after the last
  window, where it had to end early, lie as much higher;
* *flat*: the last two windows grow by no more than is allowed, or by next to nothing in all;
* *slowing*: it still grows, but the last window by less than one before, as where a cache fills up, not for its largest step alone, and not
  in so few steps that chance may have made the last ones fewer;
* *unclear*: anything else. More calls are needed.

The slope and its interval are those of `robust_slope`, over the floor of the last two windows.

The probability of a false alarm, whenever the check stops: let each further window of a function that keeps nothing be as likely
to rise by less than is allowed as by more, whatever came before. Then a bet of the share λ of one's stake on each rise is fair,
and E = Π(1 + λ s_i), with s_i = 1 for a rise and -1 else, has mean 1 at most: it reaches 1/α with probability α at most, at
any time (Ville's inequality; Shafer, "Testing by betting", Journal of the Royal Statistical Society A, 2021). So does a mean of
several such E. Windows are laid out afresh each time the calls have doubled, so `STAGES` times at most: with E > STAGES / ALPHA
the probability is at most `ALPHA` for the figure and the whole check. A cache that is filled for longer than the check lasts
is no chance: of that the number of calls in the verdict speaks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import floor, inf, isfinite, sqrt
from statistics import NormalDist
from typing import Literal, NamedTuple

CONFIDENCE = 0.99
RESOLUTION_BYTES_PER_CALL = 4.0
FEWEST_SAMPLES = 6
CACHES_BYTES = 256 << 10
"""What malloc keeps for each further thread at most."""
LITTLE_BYTES = 16 << 10
"""Growth that slows down is *clean so far* up to here. Beyond it keys may become ever rarer, which no number of calls tells from a cache."""
ALPHA = 0.05
"""Probability of calling a figure growing that rises by chance."""
STAGES = 12
"""So often a check can double its calls from the first verdict that it may give to the last: from 8,192 to 33 million."""
_STAKES = (0.5, 0.9, 1.0)
_NOT_SLOWING = 0.7
_FADING = 0.45
"""A logarithm grows half as fast in each window as in the one before."""
_QUIET = 10
_NEXT_TO_NOTHING_BYTES = 512.0
_MOST_RISES = 0.75
_NO_BOUND = 2.0**63

Direction = Literal["growing", "flat", "slowing", "unclear"]


class Trend(NamedTuple):
    """Growth per call with its interval, and whether it goes on.

    `fallback` is the largest drop that was seen, `grown` the growth from the first call on that was never given back.
    """

    direction: Direction
    slope: float
    low: float
    high: float
    fallback: float
    grown: float = 0.0
    falls: int = 0
    """How often it fell by at least half of that: so often its floor was seen."""
    fades: bool = False
    """It grows by less and less, as a cache does that is nearly full; a figure that grows like a logarithm does not."""

    def bounds(self) -> tuple[float, float]:
        """The ends of the interval; as far as any number goes where there were too few samples for one."""
        low = self.low if isfinite(self.low) else -_NO_BOUND
        return low, self.high if isfinite(self.high) else _NO_BOUND


class Effort(NamedTuple):
    """How far a check has come: calls made, seconds taken, and whether it may go on."""

    calls: int
    elapsed_s: float
    exhausted: bool = False
    """The time limit is reached, or going on would take too much of what grows."""


class Patience(NamedTuple):
    """How many calls and how many seconds each verdict needs.

    Either both of `calls` and `seconds` are reached, or `enough_s` alone: slow functions cannot make thousands of calls.
    A leak needs more than a clean bill: until a bounded cache is full it grows like a leak. What has grown in very many calls, or
    by very much in some hundreds, is no cache of the usual sizes: entries are many or large, not both.
    """

    clean_calls: int = 2048
    clean_s: float = 0.2
    clean_enough_s: float = 1.0
    leak_calls: int = 8192
    leak_s: float = 0.2
    leak_enough_s: float = 8.0
    large_calls: int = 256
    large_s: float = 1.0
    large_byte_calls: int = 16 << 30
    """Calls times bytes grown: 64 MiB in 256 calls, 16 MiB in 1,024, 4 MiB in 4,096."""
    fewest_calls: int = 16
    caches_bytes: int = LITTLE_BYTES

    def may_decide(self, effort: Effort) -> bool:
        """Whether any verdict may be given already."""
        return (
            effort.exhausted
            or self.may_call_clean(effort)
            or self.may_call_leak(effort, grown_bytes=self.large_byte_calls)
        )

    def may_call_clean(self, effort: Effort) -> bool:
        """Whether a flat figure may be called clean already."""
        thorough = effort.calls >= self.clean_calls and effort.elapsed_s >= self.clean_s
        return thorough or (effort.calls >= self.fewest_calls and effort.elapsed_s >= self.clean_enough_s)

    def may_call_leak(self, effort: Effort, grown_bytes: float = 0.0) -> bool:
        """Whether a figure that grows, and has grown by so much, may be called a leak already."""
        thorough = effort.calls >= self.leak_calls and effort.elapsed_s >= self.leak_s
        enough = effort.calls >= self.fewest_calls and effort.elapsed_s >= self.leak_enough_s
        large = effort.calls >= self.large_calls and effort.elapsed_s >= self.large_s
        return thorough or enough or (large and effort.calls * grown_bytes >= self.large_byte_calls)


class Precision(NamedTuple):
    """What cannot be distinguished from no growth: per call, in all, and in the last half of the calls."""

    per_call: float = RESOLUTION_BYTES_PER_CALL
    in_all: float = 0.0
    lately: float = _NEXT_TO_NOTHING_BYTES


def trend(
    calls: Sequence[int], held: Sequence[float], *, allowed: float = 0.0, precision: Precision | None = None
) -> Trend:
    """Judges one figure: `held[i]` is what was in use after `calls[i]` calls (strictly rising).

    `allowed` is the growth per call that is fine, and `precision` what cannot be distinguished from it.
    """
    if len(calls) < FEWEST_SAMPLES or calls[-1] < FEWEST_SAMPLES:
        return Trend("unclear", 0.0, -inf, inf, 0.0)
    precision = precision or Precision()
    bound = allowed + precision.per_call
    if held[-1] == min(held) == max(held):
        return Trend("flat", 0.0, 0.0, 0.0, 0.0)
    whole_floor = _floor(held)
    risen = whole_floor[-1] - whole_floor[0]
    begin = max(0, bisect_right(calls, calls[-1] // 8) - 1)
    fallback = _largest_drop(held[begin:])
    falls_back = fallback > bound * calls[-1] / 4
    part = _Part.of(calls, whole_floor, begin, 1 / 2 if falls_back else 1.0)
    won = evidence(calls[: part.until], whole_floor[: part.until], bound)
    falls = _count_drops(held[begin:], fallback / 2)
    found = Trend("unclear", part.slope.value, part.slope.low, part.slope.high, fallback, risen, falls)
    late = bisect_left(calls, calls[-1] * 3 / 4)
    more_calls = max(0, calls[late] - part.calls[-1])
    went_on = not more_calls or min(held[late:]) - part.floor[-1] >= part.slope.value * more_calls / 2
    if went_on and _grows(part, won, bound) and _is_more_than_noise(part, fallback, precision.in_all):
        return found._replace(direction="growing")
    proven = won > STAGES / ALPHA
    # Where the last samples are left out, or little growth is let pass, they must not speak of growth all the same.
    no_growth = not proven and not _rises_at_the_end(calls, whole_floor, bound)
    no_growth = no_growth and not (falls_back and _rises_among_noise(calls, held, bound))
    parts = [part, _Part.of(calls, whole_floor, begin, 2 / 3)] if falls_back else [part]
    is_flat = (no_growth or not falls_back) and any(each.is_flat(bound) for each in parts)
    if is_flat or (no_growth and any(each.grown_lately(allowed) <= precision.lately for each in parts)):
        return found._replace(direction="flat")
    is_sporadic = fallback < risen / _QUIET and _is_sporadic(part.calls, part.floor, bound)
    if not _slows_down(part.rates) or is_sporadic or _is_steady_but_for_a_step(part, bound):
        return found
    return found._replace(direction="slowing", fades=_fades(part.calls, part.floor, part.rates))


class _Part(NamedTuple):
    """The floor from an eighth of the calls until where it is known: of the last samples it is not where others may fall below them."""

    calls: Sequence[int]
    floor: Sequence[float]
    until: int
    """Position after its last sample."""
    slope: Slope
    rates: list[float]
    """Growth per call in its last three windows."""

    @classmethod
    def of(cls, calls: Sequence[int], floor: Sequence[float], begin: int, known_share: float) -> _Part:
        until = bisect_right(calls, calls[-1] * known_share)
        part = calls[begin:until], floor[begin:until]
        return cls(*part, until, _slope(*part, part[0][-1] / 4), _window_rates(*part))

    def is_flat(self, bound: float) -> bool:
        return max(self.rates[1:]) <= bound and self.slope.high <= bound

    def grown_lately(self, allowed: float) -> float:
        """By how much more than is allowed in the last half of its calls."""
        half = self.calls[-1] / 2
        return self.floor[-1] - _at(self.calls, self.floor, half) - allowed * half


def _grows(part: _Part, won: float, bound: float) -> bool:
    """Whether all windows grow, the last not much more slowly than those before, and by no chance."""
    first, second, last = part.rates
    grow = won > STAGES / ALPHA and min(part.rates) > bound and part.slope.low > bound
    return grow and last >= _NOT_SLOWING * (first + second) / 2 and not _has_just_stopped(part, bound)


def _has_just_stopped(part: _Part, bound: float) -> bool:
    """Whether nearly every step rose but the last: a cache may just have become full."""
    *before, last = pairwise(range(len(part.calls)))
    has_risen = _rises(part.calls, part.floor, before, bound) > _MOST_RISES * len(before)
    return has_risen and not _rises(part.calls, part.floor, [last], bound)


def _is_more_than_noise(part: _Part, fallback: float, in_all: float) -> bool:
    """Whether it grew by more than it ever fell back, and by more than the figure's allowance without its largest step."""
    grown = part.floor[-1] - _at(part.calls, part.floor, part.calls[-1] / 8)
    largest_step = max((later - earlier for earlier, later in pairwise(part.floor)), default=0.0)
    return grown > max(2 * fallback, in_all) and (not in_all or grown - largest_step > in_all)


def evidence(calls: Sequence[int], floor: Sequence[float], bound: float) -> float:
    """How much a bet on growth has won: the mean of bets on windows of equal width and on ever longer ones.

    The first show what grows with every call or every so many, the others what grows in rare large steps, as lists do.
    """
    stage = 1 << (calls[-1].bit_length() - 1)
    layouts = (
        _windows(calls, stage / 8, lambda _: stage / 16),
        _windows(calls, stage / 64, lambda reached: reached * 0.27),
    )
    return sum(_winnings(calls, floor, ends, bound) for ends in layouts) / len(layouts)


def _fades(calls: Sequence[int], floor: Sequence[float], rates: Sequence[float]) -> bool:
    """Whether each window, and each half of the last one, grows much more slowly than the one before."""
    half, three_quarters, now = (_at(calls, floor, calls[-1] * share) for share in (1 / 2, 3 / 4, 1))
    windows_fade = all(later <= _FADING * earlier for earlier, later in pairwise(rates))
    return windows_fade and now - three_quarters <= _FADING * min(
        rates[1] * calls[-1] / 4, three_quarters - half
    )


def _slows_down(rates: Sequence[float]) -> bool:
    return rates[2] < _NOT_SLOWING * max(rates[0], rates[1])


def _is_steady_but_for_a_step(part: _Part, bound: float) -> bool:
    """Whether it goes on as fast as before once its largest step is left out: a table that was enlarged once, say."""
    steps = [later - earlier for earlier, later in pairwise(part.floor)]
    largest = max(range(len(steps)), key=steps.__getitem__)
    level = [*part.floor[: largest + 1], *(each - steps[largest] for each in part.floor[largest + 1 :])]
    rates = _window_rates(part.calls, level)
    return part.slope.low > bound and rates[2] > bound and not _slows_down(rates)


def _is_sporadic(calls: Sequence[int], floor: Sequence[float], bound: float) -> bool:
    """Whether many steps before the last window did not rise: so few rises that chance may have made the last ones fewer."""
    steps = list(pairwise(range(bisect_right(calls, calls[-1] / 2))))
    return _rises(calls, floor, steps, bound) < _MOST_RISES * len(steps)


def _rises_at_the_end(calls: Sequence[int], floor: Sequence[float], bound: float) -> bool:
    """Whether nearly every step of the last quarter rises: what fell before has hidden a leak until then."""
    steps = list(pairwise(range(bisect_left(calls, calls[-1] * 3 / 4), len(calls))))
    return len(steps) > 1 and _rises(calls, floor, steps, bound) > _MOST_RISES * len(steps)


def _rises_among_noise(calls: Sequence[int], held: Sequence[float], bound: float) -> bool:
    """Whether the figures themselves rise over the last three quarters, and are not back by now: low ones that came late hide a leak from the floor."""
    quarter = calls[-1] / 4
    return held[-1] > held[bisect_left(calls, quarter)] and _slope(calls, held, quarter).low > bound


def _rises(
    calls: Sequence[int], floor: Sequence[float], steps: Sequence[tuple[int, int]], bound: float
) -> int:
    """How many of the steps, from one position to another, grow by more than `bound` a call."""
    return sum(floor[last] - floor[first] > bound * (calls[last] - calls[first]) for first, last in steps)


def _windows(calls: Sequence[int], begin: float, width: Callable[[float], float]) -> list[int]:
    """Positions of the samples that the windows end at, the first of them begun at `begin` calls."""
    ends = [bisect_left(calls, begin)]
    while ends[-1] < len(calls):
        reached = calls[ends[-1]]
        ends.append(bisect_left(calls, max(reached + 1, reached + width(reached))))
    return ends[:-1]


def _winnings(calls: Sequence[int], floor: Sequence[float], ends: Sequence[int], bound: float) -> float:
    windows = list(pairwise(ends))
    rises = _rises(calls, floor, windows, bound)
    others = len(windows) - rises
    return sum((1 + stake) ** rises * (1 - stake) ** others for stake in _STAKES) / len(_STAKES)


def decide(
    trends: Sequence[Trend], effort: Effort, patience: Patience
) -> Literal["leak", "clean", "inconclusive"] | None:
    """The verdict over all figures of one function, or None while more calls should be made.

    One growing figure makes a leak; a clean bill needs all of them flat, or in the end so slow that little came of it.
    """
    growing = [figure for figure in trends if figure.direction == "growing"]
    if growing:
        grown_bytes = max(figure.grown for figure in growing)
        if effort.exhausted or patience.may_call_leak(effort, grown_bytes):
            return "leak"
    elif all(figure.direction == "flat" for figure in trends):
        if effort.exhausted or patience.may_call_clean(effort):
            return "clean"
    elif effort.exhausted and all(is_bounded_so_far(figure, patience.caches_bytes) for figure in trends):
        return "clean"
    return "inconclusive" if effort.exhausted else None


def is_bounded_so_far(figure: Trend, caches_bytes: int = LITTLE_BYTES) -> bool:
    """Whether it does not grow, or so slowly by now that it is a cache which fills up: by little in all, or by less and less."""
    if figure.direction != "slowing":
        return figure.direction == "flat"
    return figure.fades or figure.grown <= caches_bytes


def next_step(calls: int) -> int:
    """How many calls to make before the next sample, after `calls`: the samples lie ever farther apart."""
    return max(1, calls // 4 if calls < 256 else calls // 8)


def _largest_drop(values: Sequence[float]) -> float:
    highest, drop = values[0], 0.0
    for value in values:
        highest = max(highest, value)
        drop = max(drop, highest - value)
    return drop


def _count_drops(values: Sequence[float], least: float) -> int:
    """How often a value lies at least so far below the highest since the drop before."""
    highest, count = values[0], 0
    for value in values:
        highest = max(highest, value)
        if 0 < least <= highest - value:
            highest, count = value, count + 1
    return count


def _floor(values: Sequence[float]) -> list[float]:
    floor = list(values)
    for index in range(len(floor) - 2, -1, -1):
        floor[index] = min(floor[index], floor[index + 1])
    return floor


def _at(calls: Sequence[int], floor: Sequence[float], wanted: float) -> float:
    """The floor at `wanted` calls, on the straight line between its neighbours."""
    after = bisect_left(calls, wanted)
    if after == 0:
        return floor[0]
    if after == len(calls):
        return floor[-1]
    before = after - 1
    share = (wanted - calls[before]) / (calls[after] - calls[before])
    return floor[before] + share * (floor[after] - floor[before])


def _window_rates(calls: Sequence[int], floor: Sequence[float]) -> list[float]:
    last = calls[-1]
    ends = [max(last / 2**halvings, calls[0]) for halvings in (3, 2, 1, 0)]
    levels = [_at(calls, floor, end) for end in ends]
    return [
        (level_to - level_from) / (to - begin) if to > begin else 0.0
        for (begin, to), (level_from, level_to) in zip(pairwise(ends), pairwise(levels), strict=True)
    ]


def _slope(calls: Sequence[int], floor: Sequence[float], begin: float) -> Slope:
    """The slope of the floor from `begin` calls on."""
    first = max(0, min(bisect_left(calls, begin), len(calls) - FEWEST_SAMPLES))
    return robust_slope(calls[first:], floor[first:], CONFIDENCE)


_MOST_POINTS = 40


class Slope(NamedTuple):
    """A slope and the ends of its interval, in units of y for one unit of x."""

    value: float
    low: float
    high: float


def robust_slope(x: Sequence[float], y: Sequence[float], confidence: float) -> Slope:
    """Theil's slope with Sen's interval; `x` rises strictly. Without a limit of doubt where points are too few.

    Of many points, evenly spaced ones are used, the last among them: 40 to 79.
    """
    stride = max(1, len(x) // _MOST_POINTS)
    points = list(zip(x, y, strict=True))[::-1][::stride]
    slopes = sorted(
        (later - earlier) / (at - before)
        for index, (at, later) in enumerate(points)
        for before, earlier in points[index + 1 :]
    )
    if not slopes:
        return Slope(0.0, -inf, inf)
    middle = (slopes[(len(slopes) - 1) // 2] + slopes[len(slopes) // 2]) / 2
    count = len(points)
    spread = NormalDist().inv_cdf((1 + confidence) / 2) * sqrt(count * (count - 1) * (2 * count + 5) / 18)
    below = floor((len(slopes) - spread) / 2)
    if below < 0:
        return Slope(middle, -inf, inf) if count < 4 else Slope(middle, slopes[0], slopes[-1])
    return Slope(middle, slopes[below], slopes[len(slopes) - 1 - below])
