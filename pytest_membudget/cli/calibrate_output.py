"""What `membudget calibrate` prints: what was found, how sure that is, and the lines to put into the program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_membudget.calibration.function_reference import FunctionReference
from pytest_membudget.calibration.model import Calibration
from pytest_membudget.records.scale import InFlightTable
from pytest_membudget.units import format_as_written, format_count, format_duration, format_share, format_size

_LARGER = (1.25, 4.0)
"""Sizes shown beyond the calibrated ones, as multiples of the largest."""


def print_calibration(found: Calibration) -> None:
    """The fit, each size with what it took, and how good the fit is."""
    sizes = sorted({point.size_bytes for point in found.points})
    shown = [*sizes, *(round(found.max_size_bytes * multiple) for multiple in _LARGER)]
    rows = [["size", "measured", "expected", "bound", ""]]
    for size in shown:
        peaks = [point.peak_bytes for point in found.points if point.size_bytes == size]
        measured = f"{format_size(min(peaks))} to {format_size(max(peaks))}" if peaks else ""
        note = "extrapolated" if found.is_extrapolated(size) else ""
        rows.append(
            [
                format_as_written(size),
                measured,
                format_size(found.expect(size)),
                format_size(found.bound(size)),
                note,
            ]
        )
    print(
        f"{found.file.function} on {found.file.kind}, {format_count(len(found.points), 'run')} in fresh processes"
    )
    print(
        f"γ = {found.gamma:.2f} B/B{' (curved)' if found.curved else ''}, "
        f"overhead {format_size(found.overhead_bytes)}, idle worker {format_size(found.base_bytes)}"
        + (f", {format_duration(found.seconds_per_mb)} per MB" if found.seconds_per_mb else "")
    )
    _print_rows(rows)
    if found.file.environment.hosts:
        print(f"measured on {', '.join(found.file.environment.hosts)}")
    print(
        f"bound: covers {format_share(found.content)} of tasks with {format_share(found.confidence)} confidence, "
        "if they are like these"
    )
    quality = found.quality
    if quality:
        print(
            f"each size from the others: error {format_share(quality.error)}, {quality.under_predicted} of "
            f"{quality.judged} above the bound (true rate {format_share(quality.under_low)} to "
            f"{format_share(quality.under_high)}), over-allocation {format_share(quality.over_allocation)}"
        )
    for caveat in found.caveats:
        print(f"note: {caveat}")


def print_use(found: Calibration, reference: FunctionReference, kept: Path | None) -> None:
    """What one worker holds with a file of the largest calibrated size, and the estimator in the user's own program."""
    largest = found.max_size_bytes
    print(
        f"a worker with one file of {format_as_written(largest)} takes at most "
        f"{format_size(found.base_bytes + found.bound(largest))} above a bare interpreter; in your program:"
    )
    if kept is None:
        _print_imports(reference, "FallbackExecutor, MemoryEstimator")
        estimator = (
            f"MemoryEstimator(gamma={found.gamma:.3g}, overhead={found.overhead_bytes}, base={found.base_bytes})"
            "  # with --save NAME: the bound, too"
        )
    else:
        _print_imports(reference, "FallbackExecutor, load_calibration")
        estimator = f'load_calibration("{kept}").estimator("safe")'
    print(f"    estimator = {estimator}")
    _print_run(reference, "estimator=estimator")


def print_in_flight(table: InFlightTable, reference: FunctionReference, workers: int | None) -> None:
    """The table, the recommended value with its reason, and that value in the user's own program."""
    rows = [["in flight", "peak", "of limit", "files/s", "slowdown", "workers' tasks", "results", ""]]
    for row in table.rows:
        parts = row.breakdown
        note = "predicted" if row.predicted else ""
        if row.verified_bytes is not None:
            note = f"predicted, then measured: {format_size(row.verified_bytes)}"
        rows.append(
            [
                str(row.max_in_flight),
                format_size(row.peak_bytes),
                format_share(row.limit_share),
                f"{row.items_per_s:.3g}",
                format_share(row.slowdown),
                format_size(parts.task_bytes) if parts else "",
                format_size(parts.waiting_results_bytes) if parts else "",
                note,
            ]
        )
    _print_rows(rows)
    print(f"recommended: max_in_flight={table.recommended}, because {table.reason}")
    for caveat in table.doubts:
        print(f"note: {caveat}")
    print("in your program:")
    _print_imports(reference, "FallbackExecutor")
    processes = workers or max(row.max_in_flight for row in table.rows)
    _print_run(reference, f"max_workers={processes}, max_in_flight={table.recommended}")


def _print_imports(reference: FunctionReference, names: str) -> None:
    print(f"    from pytest_membudget import {names}")
    print(f"    from {reference.module} import {reference.name.partition('.')[0]}")


def _print_run(reference: FunctionReference, arguments: str) -> None:
    print(f"    with FallbackExecutor({arguments}) as executor:")
    print(f"        batch = executor.run({reference.name}, paths)")


def _print_rows(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
