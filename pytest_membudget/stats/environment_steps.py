"""A series that was measured in several environments, brought to the level of the first.

Another kernel, Python or library moves every figure at once. Such a step says nothing about the code: it is estimated and
taken out, and what remains is searched for changes. A runner pool that changes from run to run gives many
differences between the same two environments, whose median forgets what else changed beside one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pytest_membudget.stats.change_points import Change, find_changes
from pytest_membudget.stats.samples import median

#: How many values on either side of a step its size is estimated from.
_BESIDE = 5
#: How many values on either side of a step its scatter is estimated from.
_AROUND = 20
_SLACK, _MOST_SLACK = 6.0, 15


class Levelled(NamedTuple):
    """`values` as if all had been taken in the first environment; `offsets` by environment; `changes` of what remains."""

    values: list[float]
    offsets: dict[int, float]
    changes: list[Change]


def find_levelled_changes(
    values: Sequence[float], environments: Sequence[int], *, is_material: Callable[[float, float], bool]
) -> Levelled:
    """The changes of `values` beside those that came with another environment (one number a value).

    A change at the very revision of another environment cannot be told from it, and counts as the environment's.
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
    """How far the values from `start` on lie above those before it; only `begin` to `end` is looked at."""
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
