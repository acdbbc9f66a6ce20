"""Where did a series change for good? Steps and ramps in one noisy figure per revision.

1. *Where*: the split of a stretch that a two-level fit explains best (least squares, CUSUM), found in one pass over
   prefix sums; values far from the stretch's median are clipped first, so that an outlier decides nothing. Both
   sides are searched in the same way (binary segmentation).
2. *Whether*: a place stays when the Wilcoxon-Mann-Whitney test of its two neighbouring parts is certain, at `LEVEL` divided
   by the number of places in the series (Bonferroni); the least certain goes first, and its neighbours join. Ranks need no
   distribution: a test whose peaks jump between two modes has both modes on both sides. In series too short for a
   rank test, both sides must lie further apart than either spreads.
3. *Step or ramp*: neighbouring steps in one direction are compared with a ramp from one level to the other, by
   Schwarz's criterion (BIC) over the same values. Creep of a percent a commit is a ramp, which steps only imitate.

The scheme is that of E-divisive (Matteson and James, "A nonparametric approach for multiple change point analysis of
multivariate data", JASA 109, 2014), which MongoDB introduced to CI (Daly et al., "The use of change point detection to
identify software performance regressions in a continuous integration system", ICPE 2020), with its two costly parts
exchanged: least squares for the energy statistic, and a rank test (Pettitt, "A non-parametric approach to the
change-point problem", Applied Statistics 28, 1979) for permutations. 500 values take about a millisecond.

Values are logarithms wherever relative changes count; nothing here knows of bytes.

A series that was measured in several environments is brought to the level of the first. Another kernel, Python or library moves
every figure at once. Such a step says nothing about the code: it is estimated and taken out, and what remains is searched for
changes. A runner pool that changes from run to run gives many differences between the same two environments, whose median forgets
what else changed beside one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from pytest_membudget.stats.samples import median, tail_bound

#: Probability that an unchanging series of any length is said to have changed, at one look.
LEVEL = 0.005
#: The least number of values on either side of a change.
SHORTEST = 3
#: The same where the rank test has too few values, and the gap between both sides decides.
SHORTEST_BY_GAP = 4
#: Series shorter than this are judged by the gap as well.
_FEW = 24
#: Below this t of its best split a stretch is one piece: chance alone gives as much.
_LEAST_T = 3.0
#: A ramp over fewer revisions is a step.
SHORTEST_RAMP = 4

_CLIP = 6.0
#: Standard deviations in a median absolute deviation, of normally distributed values.
SIGMA_PER_MAD = 1.4826
#: Relative noise below this is rounding, not evidence: 0.05%.
_LEAST_SIGMA = 0.0005
_GRID = 14
#: A ramp has to be this much better than steps, since noise bends many a step.
_RAMP_MARGIN = 2.0

#: How many values on either side of a step its size is estimated from.
_BESIDE = 5
#: How many values on either side of a step its scatter is estimated from.
_AROUND = 20
_SLACK, _MOST_SLACK = 6.0, 15


class Change(NamedTuple):
    """The level changes from `before` to `after`; `first` is the first index that differs, `last` the first of the new level.

    For a step they are the same.
    """

    first: int
    last: int
    before: float
    after: float

    @property
    def is_ramp(self) -> bool:
        """Whether it came bit by bit."""
        return self.last > self.first


def find_changes(
    values: Sequence[float],
    *,
    is_material: Callable[[float, float], bool] = lambda before, after: before != after,
) -> list[Change]:
    """The changes of `values`, in order; those that `is_material` calls too small to matter are left out.

    Fewer than twice `SHORTEST` values have none.
    """
    if not values:
        return []
    steps = _material_steps(values, _splits(values), is_material)
    groups = _one_way(steps)
    starts = [0, *(group[-1].first for group in groups)]
    ends = [*(group[0].first for group in groups), len(values)][1:]
    return [
        change
        for group, start, end in zip(groups, starts, ends, strict=False)
        for change in _as_ramp_or_steps(values[start:end], group, start)
    ]


def _splits(values: Sequence[float]) -> list[int]:
    """The places between parts that differ for certain: all that might, less those that a test of their neighbours rejects.

    Candidates first, since the whole of a series that rose and fell back may look like one kind.
    """
    splits = _candidates(values, 0, len(values))
    while splits:
        edges = [0, *splits, len(values)]
        chances = [
            _chance(values[low:split], values[split:high], places=len(values))
            for low, split, high in zip(edges, splits, edges[2:], strict=False)
        ]
        worst = max(range(len(splits)), key=chances.__getitem__)
        if chances[worst] <= LEVEL:
            break
        del splits[worst]
    return splits


def _candidates(values: Sequence[float], start: int, end: int) -> list[int]:
    split = best_split(values[start:end])
    if split is None:
        return []
    middle = start + split
    return [*_candidates(values, start, middle), middle, *_candidates(values, middle, end)]


def best_split(values: Sequence[float]) -> int | None:
    """The index at which two levels explain `values` best; None where they explain next to nothing."""
    count = len(values)
    if count < 2 * SHORTEST:
        return None
    clipped = clip(values)
    mean = sum(clipped) / count
    sums = list(accumulate(value - mean for value in clipped))
    gains = [
        sums[split - 1] ** 2 / (split * (count - split)) for split in range(SHORTEST, count - SHORTEST + 1)
    ]
    best = max(range(len(gains)), key=gains.__getitem__)
    explained = gains[best] * count
    scatter = max(sum((value - mean) ** 2 for value in clipped) - explained, count * _LEAST_SIGMA**2)
    t_square = explained * (count - 2) / scatter
    return best + SHORTEST if t_square >= _LEAST_T**2 else None


def clip(values: Sequence[float]) -> list[float]:
    """`values` drawn in to within six robust standard deviations of their median."""
    middle = median(values)
    sigma = max(SIGMA_PER_MAD * median([abs(value - middle) for value in values]), _LEAST_SIGMA)
    low, high = middle - _CLIP * sigma, middle + _CLIP * sigma
    return [low if value < low else min(value, high) for value in values]


def _chance(before: Sequence[float], after: Sequence[float], *, places: int) -> float:
    """The probability of two sides as different as these, somewhere in an unchanging series with so many places."""
    if places < _FEW and min(len(before), len(after)) >= SHORTEST_BY_GAP and _lie_apart(before, after):
        return 0.0
    return 2 * tail_bound(before, after) * places


def _lie_apart(one: Sequence[float], other: Sequence[float]) -> bool:
    low, high = (one, other) if max(one) < min(other) else (other, one)
    spread = max(max(low) - min(low), max(high) - min(high), _LEAST_SIGMA)
    return min(high) - max(low) > spread


def _material_steps(
    values: Sequence[float], splits: Sequence[int], is_material: Callable[[float, float], bool]
) -> list[Change]:
    """A step at each split whose levels differ enough; the smallest goes first, since its sides then become one."""
    kept = list(splits)
    while True:
        steps = _steps(values, kept)
        small = [step for step in steps if not is_material(step.before, step.after)]
        if not small:
            return steps
        kept.remove(min(small, key=lambda step: abs(step.after - step.before)).first)


def _steps(values: Sequence[float], splits: Sequence[int]) -> list[Change]:
    edges = [0, *splits, len(values)]
    levels = [median(values[start:end]) for start, end in pairwise(edges)]
    return [Change(split, split, levels[n], levels[n + 1]) for n, split in enumerate(splits)]


def _one_way(steps: Sequence[Change]) -> list[list[Change]]:
    """Neighbouring steps in the same direction, together."""
    groups: list[list[Change]] = []
    for step in steps:
        if groups and (groups[-1][-1].after > groups[-1][-1].before) == (step.after > step.before):
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def _as_ramp_or_steps(stretch: Sequence[float], steps: Sequence[Change], start: int) -> list[Change]:
    """The steps, or the one ramp that explains the same values better for its number of parameters.

    `stretch` begins at `start`, and reaches from the change before these steps to the one after them.
    """
    edges = [0, *(step.first - start for step in steps), len(stretch)]
    parts = [clip(stretch[low:high]) for low, high in pairwise(edges)]
    ramp = _best_ramp([value for part in parts for value in part])
    if ramp is None:
        return list(steps)
    # A level for each part and a place for each step, against two levels and two places.
    of_steps = _bic(sum(map(_scatter, parts)), len(stretch), 2 * len(steps) + 1)
    if _bic(ramp.scatter, len(stretch), 4) + _RAMP_MARGIN >= of_steps:
        return list(steps)
    return [Change(start + ramp.left + 1, start + ramp.right, ramp.before, ramp.after)]


class _Ramp(NamedTuple):
    """`before` up to index `left`, `after` from index `right` on, a line between them."""

    scatter: float
    left: int
    right: int
    before: float
    after: float


def _best_ramp(values: Sequence[float]) -> _Ramp | None:
    """The ramp with the least scatter: the best of a grid, then made better in ever smaller steps."""
    count = len(values)
    if count <= SHORTEST_RAMP:
        return None
    fit = _RampFit(values)
    stride = max(1, count // _GRID)
    ends = [
        (left, right) for left in range(0, count, stride) for right in range(left + 1, count + stride, stride)
    ]
    left, right = max((fit.within(*pair) for pair in ends), key=lambda pair: fit.gain(*pair))
    while stride:
        moves = [(stride, 0), (-stride, 0), (0, stride), (0, -stride), (stride, stride), (-stride, -stride)]
        better = max(
            (fit.within(left + by, right + to) for by, to in moves), key=lambda pair: fit.gain(*pair)
        )
        if fit.gain(*better) > fit.gain(left, right):
            left, right = better
        else:
            stride //= 2
    return fit.ramp(left, right)


class _RampFit:
    """Least squares of y = before + (after - before)·h(t), where h climbs from 0 at `left` to 1 at `right`.

    With prefix sums of y and t·y each pair of places costs the same few operations.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self.count = len(values)
        self.mean = sum(values) / self.count
        centred = [value - self.mean for value in values]
        self.total = sum(value * value for value in centred)
        self.sums = [0.0, *accumulate(centred)]
        self.moments = [0.0, *accumulate(index * value for index, value in enumerate(centred))]

    def within(self, left: int, right: int) -> tuple[int, int]:
        """The nearest places that a ramp may have."""
        left = min(max(left, 0), self.count - 1 - SHORTEST_RAMP)
        return left, min(max(right, left + SHORTEST_RAMP), self.count - 1)

    def gain(self, left: int, right: int) -> float:
        """How much scatter the ramp explains."""
        covariance, variance, _ = self._terms(left, right)
        return covariance * covariance / variance

    def ramp(self, left: int, right: int) -> _Ramp:
        """The fit itself."""
        covariance, variance, h_mean = self._terms(left, right)
        rise = covariance / variance
        before = self.mean - rise * h_mean
        return _Ramp(max(self.total - rise * covariance, 0.0), left, right, before, before + rise)

    def _terms(self, left: int, right: int) -> tuple[float, float, float]:
        """Σ h·y, Σ (h - mean h)², and the mean of h; y has mean 0."""
        width, above = right - left, self.count - right
        h_mean = ((width - 1) / 2 + above) / self.count
        h_squares = (width - 1) * (2 * width - 1) / (6 * width) + above
        climbing = self.moments[right] - self.moments[left] - left * (self.sums[right] - self.sums[left])
        covariance = climbing / width + self.sums[-1] - self.sums[right]
        return covariance, h_squares - self.count * h_mean * h_mean, h_mean


def _scatter(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values)


def _bic(scatter: float, count: int, parameters: int) -> float:
    """Schwarz's criterion for normal residuals, the smaller the better."""
    return count * math.log(max(scatter / count, _LEAST_SIGMA**2)) + parameters * math.log(count)


class Levelled(NamedTuple):
    """`values` as if all had been taken in the first environment; `offsets` by environment; `changes` of what remains."""

    values: list[float]
    offsets: dict[int, float]
    changes: list[Change]


def find_levelled_changes(
    values: Sequence[float], environments: Sequence[int], *, is_material: Callable[[float, float], bool]
) -> Levelled:
    """The changes of `values` beside those that came with another environment (one number a value).

    A change at the very revision of another environment cannot be distinguished from it, and counts as the environment's.
    """
    if len(set(environments)) < 2:
        return Levelled(list(values), {}, find_changes(values, is_material=is_material))
    starts = [n for n in range(1, len(values)) if environments[n] != environments[n - 1]]
    offsets = _offsets(values, environments, starts)
    spanned: set[int] = set()
    for _ in range(2 * len(starts) + 1):
        levelled = [value - offsets[each] for value, each in zip(values, environments, strict=True)]
        changes = find_changes(levelled, is_material=is_material)
        at_start = [(change, _start_of(change, levelled, starts, environments)) for change in changes]
        left_over = next(((change, start) for change, start in at_start if start is not None), None)
        if left_over is not None:
            change, start = left_over
            offsets[environments[start]] += change.after - change.before
            continue
        # A ramp across a step hides it: what lies beside the step says how much of the rise is its.
        inside = [n for n in starts if any(each.first <= n <= each.last for each in changes if each.is_ramp)]
        hidden = next(
            (n for n in inside if n not in spanned and environments[n] not in environments[:n]), None
        )
        if hidden is None:
            break
        spanned.add(hidden)
        offsets[environments[hidden]] += _step_beside(levelled, hidden, 0, len(values))
    return Levelled(levelled, offsets, [change for change, start in at_start if start is None])


def _step_beside(values: Sequence[float], start: int, begin: int, end: int) -> float:
    """How far the values from `start` on lie above those before it; only `begin` to `end` is searched."""
    before, after = values[max(begin, start - _BESIDE) : start], values[start : min(end, start + _BESIDE)]
    return median(after) - median(before)


def _offsets(values: Sequence[float], environments: Sequence[int], starts: Sequence[int]) -> dict[int, float]:
    edges = [0, *starts, len(values)]
    differences: dict[tuple[int, int], list[float]] = {}
    for begin, start, end in zip(edges, starts, edges[2:], strict=False):
        step = _step_beside(values, start, begin, end)
        pair = environments[start - 1], environments[start]
        differences.setdefault(pair, []).append(step)
        differences.setdefault(pair[::-1], []).append(-step)
    offsets = {environments[0]: 0.0}
    for start in starts:
        new = environments[start]
        if new in offsets:
            continue
        if sum(environments[each] == new for each in starts) == 1:
            # Few values beside a single step say little: whether there is one is found like any other change.
            offsets[new] = offsets[environments[start - 1]]
        else:
            offsets[new] = median(
                [offsets[known] + step for known in offsets for step in differences.get((known, new), ())]
            )
    return offsets


def _start_of(
    change: Change, values: Sequence[float], starts: Sequence[int], environments: Sequence[int]
) -> int | None:
    """The first value ever of an environment that a step may stand at; None for a ramp, and where there is none.

    Where a step stands is known to within some (sigma / height)² values (Hinkley, "Inference about the change-point in a
    sequence of random variables", Biometrika 57, 1970).
    """
    if change.is_ramp:
        return None
    near = [
        *(value - change.before for value in values[max(0, change.first - _AROUND) : change.first]),
        *(value - change.after for value in values[change.first : change.first + _AROUND]),
    ]
    variance = sum(distance * distance for distance in near) / len(near)
    slack = 1 + min(_MOST_SLACK, int(_SLACK * variance / (change.after - change.before) ** 2))
    first_ever = [start for start in starts if environments[start] not in environments[:start]]
    nearest = min(first_ever, key=lambda start: abs(change.first - start), default=None)
    return nearest if nearest is not None and abs(change.first - nearest) <= slack else None
