"""The tables of jobs: scales and where their peaks went, values of max_in_flight, calibrations, batches, monitors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pytest_membudget.records.monitor import MonitorReport
from pytest_membudget.records.report import CalibrationPicture
from pytest_membudget.records.run import BatchSummary
from pytest_membudget.records.scale import InFlightRow, InFlightTable, LawFit, ScaleRow, ScaleTable
from pytest_membudget.report.text import NONE, Column, Row, Table, name, number, rate_text, size_or_none
from pytest_membudget.units import format_duration, format_share, format_size

_SHAPES = {"flat": "constant", "linear": "linear", "worse": "superlinear"}
_FIGURE = re.compile(r"\d[\d.,]*(?: [kKMGT]?i?B)?")


def scale_table(table: ScaleTable) -> Table:
    """Rows, batches, workers, in-flight, peak, % of limit, budget, throughput, status: one row a scale."""
    columns = (
        Column("scale"),
        number("rows"),
        number("batches"),
        number("workers"),
        number("in flight"),
        number("peak"),
        number("of limit"),
        number("budget"),
        number("rows/s"),
        Column("status"),
    )
    notes = [*_law_notes(table.law), *filter(None, map(_prediction_note, table.rows)), *_caveats(table.rows)]
    return Table("scales", table.title, columns, tuple(_scale_row(row) for row in table.rows), tuple(notes))


def breakdown_table(table: ScaleTable) -> Table | None:
    """Where each scale's peak went; the parts add up to it."""
    found = [(row.scale.name, row.breakdown) for row in table.rows if row.breakdown is not None]
    if not found:
        return None
    columns = (
        Column("scale"),
        number("peak"),
        number("coordinator"),
        number("workers' base"),
        number("tasks"),
        number("waiting results"),
        number("other"),
    )
    rows = tuple(
        (
            scale_name.upper(),
            format_size(parts.peak_bytes),
            format_size(parts.coordinator_bytes),
            format_size(parts.workers_base_bytes),
            format_size(parts.task_bytes),
            format_size(parts.waiting_results_bytes),
            format_size(parts.other_bytes),
        )
        for scale_name, parts in found
    )
    notes = tuple(f"{scale_name}: {caveat}" for scale_name, parts in found for caveat in parts.caveats)
    return Table("breakdown", f"{table.title}: where the peak went", columns, rows, notes)


def in_flight_table(table: InFlightTable) -> Table:
    """Peak, throughput and slowdown by max_in_flight, and the recommended value."""
    columns = (
        number("in flight"),
        number("peak"),
        number("of limit"),
        number("items/s"),
        number("slowdown"),
        Column("obtained"),
        Column(""),
    )
    rows = tuple(_in_flight_row(row, table.recommended) for row in table.rows)
    notes = (f"recommended: {table.recommended}: {table.reason}", *table.doubts)
    return Table(
        "in-flight", f"In flight (target {format_share(table.target)} of the limit)", columns, rows, notes
    )


def calibration_table(calibrations: Sequence[CalibrationPicture]) -> Table | None:
    """One row a fitted function."""
    if not calibrations:
        return None
    columns = (
        name("function"),
        number("gamma"),
        number("overhead"),
        number("base"),
        Column("shape"),
        number("points"),
    )
    rows = tuple(
        (
            fit.name,
            f"{fit.gamma:.3g}",
            format_size(fit.overhead_bytes),
            format_size(fit.base_bytes),
            "curved" if fit.curved else "straight",
            str(len(fit.points)),
        )
        for fit in calibrations
    )
    notes = tuple(f"{fit.name}: {caveat}" for fit in calibrations for caveat in fit.caveats)
    return Table("calibrations", "Calibrations (peak = overhead + gamma x size)", columns, rows, notes)


def _scale_row(row: ScaleRow) -> Row:
    scale = row.scale
    return (
        scale.name.upper(),
        f"{scale.rows:,}",
        f"{scale.batches:,}",
        f"{scale.workers:,}",
        f"{scale.in_flight:,}",
        format_size(row.peak_bytes),
        format_share(row.limit_share) if row.limit_bytes else NONE,
        size_or_none(row.budget_bytes),
        rate_text(row.rows_per_s),
        row.status,
    )


def _prediction_note(row: ScaleRow) -> str:
    if row.predicted_bytes is None:
        return ""
    bound = (
        "" if row.predicted_bound_bytes is None else f" (at most {format_size(row.predicted_bound_bytes)})"
    )
    return (
        f"{row.scale.name.upper()}: predicted {format_size(row.predicted_bytes)}{bound}, "
        f"measured {format_size(row.peak_bytes)}"
    )


def _caveats(rows: Sequence[ScaleRow]) -> list[str]:
    """Each doubt once, with the scales that share it; where they differ in a figure alone, as the largest scale has it."""
    scales: dict[str, list[str]] = {}
    latest: dict[str, str] = {}
    for row in rows:
        for caveat in row.caveats:
            kind = _FIGURE.sub("#", caveat)
            scales.setdefault(kind, []).append(row.scale.name.upper())
            latest[kind] = caveat
    return [
        f"{'all scales' if len(names) == len(rows) > 1 else ', '.join(names)}: {latest[kind]}"
        for kind, names in scales.items()
    ]


def _law_notes(law: LawFit | None) -> list[str]:
    if law is None:
        return []
    return [
        f"scaling: {_SHAPES[law.shape]}, {law.slope:.3g} bytes per input byte (upper bound {law.slope_bound:.3g})",
        *law.caveats,
    ]


def _in_flight_row(row: InFlightRow, recommended: int) -> Row:
    obtained = "predicted" if row.predicted else "measured"
    if row.verified_bytes is not None:
        obtained = f"predicted, then measured {format_size(row.verified_bytes)}"
    return (
        str(row.max_in_flight),
        format_size(row.peak_bytes),
        format_share(row.limit_share) if row.limit_bytes else NONE,
        rate_text(row.items_per_s),
        format_share(row.slowdown),
        obtained,
        "recommended" if row.max_in_flight == recommended else "",
    )


def batch_table(batches: Sequence[BatchSummary], *, verbose: bool = True) -> Table | None:
    """What became of each batch; its events and doubts stand below. Growth that is not known fails nothing."""
    if not batches:
        return None
    columns = (
        name("batch"),
        number("inputs"),
        number("failed"),
        number("repeated"),
        number("workers"),
        number("total peak"),
        number("budget"),
        number("time"),
        Column("growth"),
        Column("ran on"),
    )
    rows = tuple(
        (
            batch.title,
            f"{batch.inputs:,}",
            f"{batch.failed:,}",
            f"{batch.repeated:,}",
            f"{batch.workers:,}",
            format_size(batch.peak_bytes),
            format_size(batch.budget_bytes),
            format_duration(batch.duration_s),
            _growth_text(batch, verbose),
            ", ".join(batch.levels),
        )
        for batch in batches
    )
    notes = tuple(
        note if len(batches) == 1 else f"{batch.title}: {note}"
        for batch in batches
        for note in _batch_notes(batch, verbose)
    )
    return Table("batches", "Batches", columns, rows, notes)


def _growth_text(batch: BatchSummary, verbose: bool) -> str:
    """The verdict; a dash where there is none, for one that is open is told with its reason or not at all."""
    if batch.growth is None or (batch.growth.verdict == "inconclusive" and not verbose):
        return NONE
    return batch.growth.verdict


def _batch_notes(batch: BatchSummary, verbose: bool) -> Iterator[str]:
    """Growth that is not clean, what happened, and what is doubtful."""
    if batch.growth is not None and batch.growth.verdict in (
        {"leak", "inconclusive"} if verbose else {"leak"}
    ):
        yield f"growth in workers: {batch.growth.in_words('task')}"
    yield from batch.failures
    yield from batch.events
    yield from batch.caveats


def host_table(batches: Sequence[BatchSummary]) -> Table | None:
    """What each batch used of each host."""
    rows = tuple(
        (
            batch.title,
            use.host,
            f"{use.workers:,}",
            f"{use.tasks:,}",
            format_size(use.peak_upper_bytes),
            format_size(use.budget_bytes),
        )
        for batch in batches
        for use in batch.hosts
    )
    if not rows:
        return None
    columns = (
        name("batch"),
        name("host"),
        number("workers"),
        number("tasks"),
        number("peak"),
        number("budget"),
    )
    many = any(use.workers > 1 for batch in batches for use in batch.hosts)
    notes = ("where a host has several workers, its peak is at most this: their own peaks added up",)
    return Table("hosts", "Hosts of the batches", columns, rows, notes if many else ())


_MOST_ALERTS = 5


def monitor_table(monitors: Sequence[MonitorReport]) -> Table | None:
    """Peak, growth and cleanups of each monitor; recommendations and alerts stand below."""
    if not monitors:
        return None
    columns = (
        name("monitor"),
        number("peak"),
        number("of limit"),
        number("growth a minute"),
        number("at 95%"),
        number("cleanups"),
        number("freed"),
        number("alerts"),
        number("time"),
    )
    notes = tuple(f"{_monitor_name(seen)}: {note}" for seen in monitors for note in _monitor_notes(seen))
    return Table("monitors", "Monitors", columns, tuple(_monitor_row(seen) for seen in monitors), notes)


def _monitor_row(seen: MonitorReport) -> Row:
    low, high = seen.growth_low_bytes_per_min, seen.growth_high_bytes_per_min
    is_known = low < high or not seen.caveats
    return (
        _monitor_name(seen),
        format_size(seen.peak_bytes),
        format_share(seen.peak_share) if seen.limit_bytes else NONE,
        format_size(seen.growth_bytes_per_min) if is_known else NONE,
        f"{format_size(low)} to {format_size(high)}" if is_known else NONE,
        f"{len(seen.cleanups):,}",
        format_size(sum(cleanup.freed_bytes for cleanup in seen.cleanups)),
        f"{len(seen.alerts):,}",
        format_duration(seen.duration_s),
    )


def _monitor_notes(seen: MonitorReport) -> Iterator[str]:
    for recommendation in seen.recommendations:
        yield f"{recommendation.advice} ({recommendation.because})"
    left_out = len(seen.alerts) - _MOST_ALERTS
    if left_out > 0:
        yield f"{left_out:,} earlier alerts not shown"
    yield from seen.alerts[-_MOST_ALERTS:]
    for cleanup in seen.cleanups:
        yield from (f"a cleanup's callback failed: {failure}" for failure in cleanup.failures)
    yield from seen.caveats


def _monitor_name(seen: MonitorReport) -> str:
    return seen.label or "monitor"
