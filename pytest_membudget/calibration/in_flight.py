"""How many tasks may be in flight? Peak and throughput by max_in_flight, measured, and foretold in between."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from pytest_membudget.calibration.function_reference import FunctionReference, find_function, stop_if_loading
from pytest_membudget.calibration.in_flight_table import fill_table
from pytest_membudget.errors import CalibrationError, UsageError
from pytest_membudget.measurement.system.limit import memory_limit
from pytest_membudget.records.run import BatchResult
from pytest_membudget.records.scale import InFlightTable
from pytest_membudget.runtime.executor.executor import FallbackExecutor
from pytest_membudget.runtime.executor.policy import ExecutorPolicy
from pytest_membudget.units import parse_share

_ROUNDS = (
    2  # tasks run for each value, as a multiple of the largest value: the last ones then run side by side too
)
_LEAST_S = 1.0
"""A value is run again until its runs took so long together: of a few quick tasks no speed can be told."""

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
    no further than the first above the target. Values between them are foretold, and one is then run to check.

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
            return _run_long_enough(lambda: _without_failures(executor.run(fn, items)))

    with _advancing(len(wanted) + 1, progress) as advance:
        table = fill_table(lambda value: advance(run(value)), wanted, share, limit_bytes, len(items))
    if len(items) > len(paths):
        again = "1 file was" if len(paths) == 1 else f"{len(paths)} files were"
        note = f"{again} gone through again, to {len(items)} tasks for each value"
        table = msgspec.structs.replace(table, caveats=(*table.caveats, note))
    return table


def load_here(reference: FunctionReference) -> Callable[[Any], Any]:
    """The function of a reference, imported by this process; its workers import it again.

    Raises:
        UsageError: it cannot be imported.
    """
    try:
        return find_function(reference)
    except Exception as error:  # whatever importing the user's module raises
        raise UsageError(f"{reference} cannot be imported: {type(error).__name__}: {error}") from error


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


@contextmanager
def _advancing(total: int, progress: bool | None) -> Iterator[Callable[[BatchResult], BatchResult]]:
    from tqdm import tqdm

    disable = None if progress is None else not progress
    with tqdm(total=total, desc="in flight", unit="value", disable=disable, leave=False) as bar:

        def advance(batch: BatchResult) -> BatchResult:
            bar.update(1)
            return batch

        yield advance
