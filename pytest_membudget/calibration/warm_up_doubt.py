"""Which scales have to run again before their law is told.

A job's first run in a process also pays for what it loads once and keeps: modules, caches, pools. The peak of such a *cold*
row is only a most: by itself the scale takes anything from nothing to that.

- A law that does not hold is told only when no row is cold: every scale has run again, a second time in its process.
- A law that holds is believed where it would hold whatever the cold rows took by themselves, from nothing to their peak.
  Where it would not, those scales run again first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import product

from msgspec.structs import replace

from pytest_membudget.calibration.growth_law import assert_law
from pytest_membudget.errors import OverBudgetError
from pytest_membudget.records.scale import ScaleRow

_MOST_TRIED = 8
"""First rows whose every combination is tried; with more of them, all are in doubt."""


def scales_in_doubt(
    rows: Sequence[ScaleRow],
    law: str | None,
    at_most: str | None = None,
    *,
    first: Collection[str],
    again: Collection[str],
) -> tuple[str, ...]:
    """The names of the scales to run again, the smallest first; none when the law can be told.

    `first` ran first in their processes; `again` were measured again, by a second run in a process of their own.

    Raises:
        UsageError: see `assert_law`.
    """
    ordered = sorted(rows, key=lambda row: row.scale.size_bytes)
    names = [row.scale.name for row in ordered]
    if not _holds(ordered, law, at_most):
        return tuple(name for name in names if name not in again)
    doubtful = tuple(name for name in names if name in first and name not in again)
    if len(doubtful) > _MOST_TRIED:
        return doubtful
    for kept in product((True, False), repeat=len(doubtful)):
        nothing = {name for name, keeps in zip(doubtful, kept, strict=True) if not keeps}
        supposed = [replace(row, peak_bytes=0) if row.scale.name in nothing else row for row in ordered]
        if not _holds(supposed, law, at_most):
            return doubtful
    return ()


def _holds(rows: Sequence[ScaleRow], law: str | None, at_most: str | None) -> bool:
    try:
        assert_law(rows, law, at_most)
    except OverBudgetError:
        return False
    return True
