"""The table of max_in_flight: what was run, what is foretold between, and which value to use. Pure figures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import msgspec

from pytest_membudget.records.run import BatchResult
from pytest_membudget.records.scale import InFlightRow, InFlightTable
from pytest_membudget.stats.fitting import fit_line
from pytest_membudget.units import format_share, format_size

_MOST_FORETOLD = 16  # values shown between those that were run
_AS_FAST = 0.95  # of the recommended value's speed: a smaller value that reaches it is worth a word

Run = Callable[[int], BatchResult]


def fill_table(run: Run, values: Sequence[int], target: float, limit_bytes: int, items: int) -> InFlightTable:
    """Runs the ascending `values` until one is above the target, foretells the others and checks one of them."""
    measured: list[InFlightRow] = []
    for value in values:
        measured.append(_row(value, run(value), limit_bytes, items))
        if measured[-1].limit_share > target:
            break
    foretold = [_foretell(value, measured, limit_bytes) for value in _untried(values, measured)]
    checked = _to_check(foretold, target)
    if checked is not None:
        actual = run(checked.max_in_flight)
        place = foretold.index(checked)
        foretold[place] = msgspec.structs.replace(checked, verified_bytes=actual.peak_bytes)
    rows = sorted((*measured, *foretold), key=lambda row: row.max_in_flight)
    fastest = max(row.items_per_s for row in measured)
    rows = [msgspec.structs.replace(row, slowdown=1 - _share(row.items_per_s, fastest)) for row in rows]
    recommended, reason = _recommend(rows, target)
    return InFlightTable(
        rows=tuple(rows),
        target=target,
        recommended=recommended,
        reason=reason,
        caveats=tuple(_enough(rows, recommended)),
    )


def _row(value: int, batch: BatchResult, limit_bytes: int, items: int) -> InFlightRow:
    return InFlightRow(
        max_in_flight=value,
        peak_bytes=batch.peak_bytes,
        limit_bytes=limit_bytes,
        items_per_s=items / batch.duration_s if batch.duration_s else 0.0,
        slowdown=0.0,
        breakdown=batch.breakdown,
        caveats=batch.caveats,
    )


def _untried(values: Sequence[int], measured: Sequence[InFlightRow]) -> list[int]:
    """Whole numbers up to the largest value that were not run, thinned out where they are many."""
    tried = {row.max_in_flight for row in measured}
    untried = [value for value in range(1, values[-1] + 1) if value not in tried]
    return untried[:: max(1, -(-len(untried) // _MOST_FORETOLD))]


def _foretell(value: int, measured: Sequence[InFlightRow], limit_bytes: int) -> InFlightRow:
    return InFlightRow(
        max_in_flight=value,
        peak_bytes=round(_at(value, [(row.max_in_flight, row.peak_bytes) for row in measured])),
        limit_bytes=limit_bytes,
        items_per_s=_at(value, [(row.max_in_flight, row.items_per_s) for row in measured], beyond=False),
        slowdown=0.0,
        predicted=True,
    )


def _at(value: int, points: Sequence[tuple[float, float]], *, beyond: bool = True) -> float:
    """Between two measured values the straight line between them; beyond all, the fitted line or the last figure."""
    for (left, at_left), (right, at_right) in itertools.pairwise(points):
        if left <= value <= right:
            return at_left + (at_right - at_left) * (value - left) / (right - left)
    nearest = points[0] if value < points[0][0] else points[-1]
    if not beyond or len(points) < 2:
        return nearest[1] * (value / nearest[0] if beyond else 1)
    return max(fit_line(points).expect(value), nearest[1] if value > nearest[0] else 0.0)


def _to_check(foretold: Sequence[InFlightRow], target: float) -> InFlightRow | None:
    """The largest foretold value under the target; it may become the recommended one."""
    safe = [row for row in foretold if row.limit_share <= target]
    return max(safe, key=lambda row: row.max_in_flight, default=None)


def _recommend(rows: Sequence[InFlightRow], target: float) -> tuple[int, str]:
    """The largest value whose measured peak stays under the target, and why."""
    proven = [row for row in rows if not row.predicted or row.verified_bytes is not None]
    under = [row for row in proven if _proven_share(row) <= target]
    if not under:
        least = proven[0]
        return least.max_in_flight, (
            f"even that takes {format_share(_proven_share(least))} of the limit, above the target of "
            f"{format_share(target)}; use smaller files or fewer workers"
        )
    best = under[-1]
    above = [row for row in rows if row.max_in_flight > best.max_in_flight]
    taken = f"it takes {format_size(best.verified_bytes or best.peak_bytes)}, {format_share(_proven_share(best))} of the limit"
    if not above:
        return (
            best.max_in_flight,
            f"{taken}, under the target of {format_share(target)}; nothing larger was asked for",
        )
    next_row = above[0]
    word = "would take" if next_row.predicted else "takes"
    return best.max_in_flight, (
        f"{taken}, under the target of {format_share(target)}, while {next_row.max_in_flight} {word} "
        f"{format_share(_proven_share(next_row))}"
    )


def _enough(rows: Sequence[InFlightRow], recommended: int) -> Iterator[str]:
    """The least value that was run and is as good as as fast: more in flight only takes memory then."""
    best = next(row for row in rows if row.max_in_flight == recommended)
    for row in rows:
        if row.max_in_flight == recommended:
            return
        if not row.predicted and row.items_per_s >= _AS_FAST * best.items_per_s:
            yield (
                f"{row.max_in_flight} in flight is {format_share(_share(row.items_per_s, best.items_per_s))} as fast and takes "
                f"{format_size(row.peak_bytes)}: use that where memory is short"
            )
            return


def _share(speed: float, fastest: float) -> float:
    """At most 1, also where no time could be taken."""
    return min(1.0, speed / fastest) if fastest else 1.0


def _proven_share(row: InFlightRow) -> float:
    return (row.verified_bytes or row.peak_bytes) / row.limit_bytes if row.limit_bytes else 0.0
