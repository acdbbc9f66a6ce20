"""Tests against their baseline as bars: one lane for the baseline, one for now, a tick for each fresh sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pytest_membudget.records.report import Comparison, TestRecord
from pytest_membudget.report.wording import signed_share
from pytest_membudget.units import format_size

_MOST_TESTS = 50
_ROOM = 1.04
"""The longest bar ends before the edge, so that a tick at its end is seen."""


class Lane(NamedTuple):
    """A bar and its ticks, in percent of the picture's width."""

    title: str
    width: float
    ticks: tuple[float, ...]
    size: str


class Change(NamedTuple):
    """One test: its two lanes, and where the tolerance ends."""

    nodeid: str
    finding: str
    spoken: str
    lanes: tuple[Lane, Lane]
    allowed_at: float
    allowed: str


def changes(tests: Sequence[TestRecord]) -> tuple[Change, ...]:
    """Regressed tests first, then improved ones, then those that were run again; each to its own scale."""
    found = [
        (test.nodeid, test.comparison)
        for test in tests
        if test.comparison is not None
        and (test.comparison.finding in {"regressed", "improved"} or test.comparison.samples_bytes)
    ]
    order = {"regressed": 0, "improved": 1}
    found.sort(key=lambda each: (order.get(each[1].finding, 2), -abs(each[1].change), each[0]))
    return tuple(_change(nodeid, comparison) for nodeid, comparison in found[:_MOST_TESTS])


def _change(nodeid: str, found: Comparison) -> Change:
    sizes = (found.base_bytes, found.new_bytes, found.allowed_bytes)
    most_bytes = _ROOM * max(*sizes, *found.samples_bytes, *found.base_samples_bytes, 1)

    def lane(title: str, size_bytes: int, samples: Sequence[int]) -> Lane:
        ticks = tuple(round(100 * sample / most_bytes, 2) for sample in samples)
        return Lane(title, round(100 * size_bytes / most_bytes, 2), ticks, format_size(size_bytes))

    base, now, allowed = map(format_size, sizes)
    return Change(
        nodeid=nodeid,
        finding=found.finding,
        spoken=f"baseline {base}, now {now} ({signed_share(found.change)}), allowed {allowed}",
        lanes=(
            lane("baseline", found.base_bytes, found.base_samples_bytes),
            lane("now", found.new_bytes, found.samples_bytes),
        ),
        allowed_at=round(100 * found.allowed_bytes / most_bytes, 2),
        allowed=allowed,
    )
