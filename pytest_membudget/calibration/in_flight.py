"""How many tasks may be in flight? Peak and throughput by max_in_flight, measured, and predicted in between."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from pytest_membudget.calibration.plan import progress_bar
from pytest_membudget.calibration.worker import stop_if_loading
from pytest_membudget.errors import CalibrationError, UsageError
from pytest_membudget.measurement.system.machine import memory_limit
from pytest_membudget.records.run import BatchResult
from pytest_membudget.records.scale import InFlightRow, InFlightTable
from pytest_membudget.runtime.executor.executor import FallbackExecutor
from pytest_membudget.runtime.executor.policy import ExecutorPolicy
from pytest_membudget.stats.fitting import fit_line
from pytest_membudget.units import format_share, format_size, parse_share

_ROUNDS = (
    2  # tasks run for each value, as a multiple of the largest value: the last ones then run side by side too
)
_LEAST_S = 1.0
"""A value is run again until its runs took so long together: a few quick tasks show no speed."""

_MOST_RUNS = 20


def calibrate_in_flight(
    fn: Callable[[Any], Any],
    paths: Sequence[str | os.PathLike[str]],
    values: Sequence[int] = (1, 2, 4, 8),
    target: float | str = 0.70,
    *,
    max_workers: int | None = None,
    progress: bool | None = None,
) -> InFlightTable:
    """Runs `fn` over the files with each value of max_in_flight, and recommends the largest under the target.

    Values are run in ascending order, in a pool of as many processes as the largest of them (or `max_workers`), and
    no further than the first above the target. Values between them are predicted, and one is then run to check.

    Args:
        fn: takes a path; has to be importable by worker processes.
        paths: files like those to be processed; they are gone through again until every value has enough to do.
        values: of max_in_flight to run.
        target: share of the memory limit that the peak of all processes may take.
        max_workers: processes at most.
        progress: a progress bar; by default where standard error is a terminal.

    Raises:
        UsageError: no files, or values that are not whole numbers above 0.
        CalibrationError: a file fails; says which and why.
    """
    stop_if_loading()
    share, wanted = parse_share(target), _checked(values, paths)
    items = list(itertools.islice(itertools.cycle(paths), max(len(paths), _ROUNDS * wanted[-1])))
    limit_bytes = memory_limit().bytes

    def run(value: int) -> BatchResult:
        policy = ExecutorPolicy(small_batch=1)
        workers = max_workers or wanted[-1]
        with FallbackExecutor(workers, value, policy=policy) as executor:
            _without_failures(executor.run(fn, items[:value]))  # so that starting processes is not timed
            found = _run_long_enough(lambda: _without_failures(executor.run(fn, items)))
        bar.update(1)
        return found

    with progress_bar(len(wanted) + 1, "in flight", "value", progress) as bar:
        table = fill_table(run, wanted, share, limit_bytes, len(items))
    if len(items) > len(paths):
        again = "1 file was" if len(paths) == 1 else f"{len(paths)} files were"
        repeated = f"{again} gone through again, to {len(items)} tasks for each value"
        table = msgspec.structs.replace(table, caveats=(*table.caveats, repeated))
    return table


def _checked(values: Sequence[int], paths: Sequence[str | os.PathLike[str]]) -> list[int]:
    if not paths:
        raise UsageError("there are no files to run; give some like those that are to be processed")
    if not values or any(
        isinstance(value, bool) or not isinstance(value, int) or value < 1 for value in values
    ):
        raise UsageError(f"values={values!r} are not whole numbers above 0; write (1, 2, 4, 8)")
    return sorted(set(values))


def _without_failures(batch: BatchResult) -> BatchResult:
    failed = [outcome for outcome in batch.outcomes if not outcome.ok]
    if failed:
        raise CalibrationError(
            f"{len(failed)} of {len(batch.outcomes)} tasks failed, the first on {failed[0].item}: "
            f"{type(failed[0].error).__name__}: {failed[0].error}"
        )
    return batch


def _run_long_enough(run: Callable[[], BatchResult]) -> BatchResult:
    """The batch with the highest peak, and the time of the fastest: in that no worker was new any more."""
    batches = [run()]
    while sum(batch.duration_s for batch in batches) < _LEAST_S and len(batches) < _MOST_RUNS:
        batches.append(run())
    highest = max(batches, key=lambda batch: batch.peak_bytes)
    return msgspec.structs.replace(
        highest,
        duration_s=min(batch.duration_s for batch in batches),
        caveats=(*highest.caveats, *_elsewhere(highest)),
    )


def _elsewhere(batch: BatchResult) -> Iterator[str]:
    """Says so where tasks did not run in worker processes, as they would."""
    levels = sorted({outcome.level for outcome in batch.outcomes} - {"process"})
    if levels:
        causes = [event.cause for event in batch.events if event.kind == "fallback"]
        yield f"tasks ran at level {', '.join(levels)}{f' ({causes[0]})' if causes else ''}"


_MOST_PREDICTED = 16  # values shown between those that were run
_AS_FAST = 0.95  # of the recommended value's speed: a smaller value that reaches it is named

Run = Callable[[int], BatchResult]


def fill_table(run: Run, values: Sequence[int], target: float, limit_bytes: int, items: int) -> InFlightTable:
    """Runs the ascending `values` until one is above the target, predicts the others and checks one of them."""
    measured: list[InFlightRow] = []
    for value in values:
        measured.append(_row(value, run(value), limit_bytes, items))
        if measured[-1].limit_share > target:
            break
    predicted = [_predict(value, measured, limit_bytes) for value in _untried(values, measured)]
    checked = _to_check(predicted, target)
    if checked is not None:
        actual = run(checked.max_in_flight)
        place = predicted.index(checked)
        predicted[place] = msgspec.structs.replace(checked, verified_bytes=actual.peak_bytes)
    rows = sorted((*measured, *predicted), key=lambda row: row.max_in_flight)
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
    return untried[:: max(1, -(-len(untried) // _MOST_PREDICTED))]


def _predict(value: int, measured: Sequence[InFlightRow], limit_bytes: int) -> InFlightRow:
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


def _to_check(predicted: Sequence[InFlightRow], target: float) -> InFlightRow | None:
    """The largest predicted value under the target; it may become the recommended one."""
    safe = [row for row in predicted if row.limit_share <= target]
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
