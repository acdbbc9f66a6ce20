"""The tables of jobs: scales and where their peaks went, values of max_in_flight, calibrations, batches, monitors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_membudget.records.monitor import MonitorReport
from pytest_membudget.records.report import CalibrationPicture
from pytest_membudget.records.run import BatchSummary, Breakdown, HostUse
from pytest_membudget.records.scale import InFlightRow, InFlightTable, LawFit, ScaleRow, ScaleTable
from pytest_membudget.report.text import (
    NONE,
    Column,
    Table,
    make_table,
    name,
    number,
    rate_text,
    size_or_none,
    without_figures,
)
from pytest_membudget.units import format_duration, format_share, format_size

_SHAPES = {"flat": "constant", "linear": "linear", "worse": "superlinear"}


def scale_table(table: ScaleTable) -> Table:
    """Rows, batches, workers, in-flight, peak, % of limit, budget, throughput, status: one row a scale."""
    notes = [*_law_notes(table.law), *filter(None, map(_prediction_note, table.rows)), *_caveats(table.rows)]
    return make_table("scales", table.title, _SCALE_COLUMNS, table.rows, notes)


_SCALE_COLUMNS: tuple[Column[ScaleRow], ...] = (
    Column("scale", lambda row: row.scale.name.upper()),
    number("rows", lambda row: f"{row.scale.rows:,}"),
    number("batches", lambda row: f"{row.scale.batches:,}"),
    number("workers", lambda row: f"{row.scale.workers:,}"),
    number("in flight", lambda row: f"{row.scale.in_flight:,}"),
    number("peak", lambda row: format_size(row.peak_bytes)),
    number("of limit", lambda row: format_share(row.limit_share) if row.limit_bytes else NONE),
    number("budget", lambda row: size_or_none(row.budget_bytes)),
    number("rows/s", lambda row: rate_text(row.rows_per_s)),
    Column("status", lambda row: row.status),
)


def breakdown_table(table: ScaleTable) -> Table:
    """Where each scale's peak went; the parts add up to it."""
    found = [(row.scale.name, row.breakdown) for row in table.rows if row.breakdown is not None]
    notes = [f"{scale_name}: {caveat}" for scale_name, parts in found for caveat in parts.caveats]
    return make_table("breakdown", f"{table.title}: where the peak went", _BREAKDOWN_COLUMNS, found, notes)


_BREAKDOWN_COLUMNS: tuple[Column[tuple[str, Breakdown]], ...] = (
    Column("scale", lambda row: row[0].upper()),
    number("peak", lambda row: format_size(row[1].peak_bytes)),
    number("coordinator", lambda row: format_size(row[1].coordinator_bytes)),
    number("workers' base", lambda row: format_size(row[1].workers_base_bytes)),
    number("tasks", lambda row: format_size(row[1].task_bytes)),
    number("waiting results", lambda row: format_size(row[1].waiting_results_bytes)),
    number("other", lambda row: format_size(row[1].other_bytes)),
)


def in_flight_table(table: InFlightTable) -> Table:
    """Peak, throughput and slowdown by max_in_flight, where the peak went, and the recommended value."""
    parts: tuple[Column[InFlightRow], ...] = (
        number("tasks", lambda row: NONE if row.breakdown is None else format_size(row.breakdown.task_bytes)),
        number(
            "results",
            lambda row: NONE if row.breakdown is None else format_size(row.breakdown.waiting_results_bytes),
        ),
    )
    columns: tuple[Column[InFlightRow], ...] = (
        number("in flight", lambda row: str(row.max_in_flight)),
        number("peak", lambda row: format_size(row.peak_bytes)),
        number("of limit", lambda row: format_share(row.limit_share) if row.limit_bytes else NONE),
        number("items/s", lambda row: rate_text(row.items_per_s)),
        number("slowdown", lambda row: format_share(row.slowdown)),
        *(parts if any(row.breakdown for row in table.rows) else ()),
        Column("obtained", _obtained),
        Column("", lambda row: "recommended" if row.max_in_flight == table.recommended else ""),
    )
    title = f"In flight (target {format_share(table.target)} of the limit)"
    notes = (f"recommended: max_in_flight={table.recommended}, because {table.reason}", *table.doubts)
    return make_table("in-flight", title, columns, table.rows, notes)


def _obtained(row: InFlightRow) -> str:
    if row.verified_bytes is not None:
        return f"predicted, then measured {format_size(row.verified_bytes)}"
    return "predicted" if row.predicted else "measured"


def calibration_table(calibrations: Sequence[CalibrationPicture]) -> Table:
    """One row a fitted function."""
    notes = [f"{fit.name}: {caveat}" for fit in calibrations for caveat in fit.caveats]
    title = "Calibrations (peak = overhead + gamma x size)"
    return make_table("calibrations", title, _CALIBRATION_COLUMNS, calibrations, notes)


_CALIBRATION_COLUMNS: tuple[Column[CalibrationPicture], ...] = (
    name("function", lambda fit: fit.name),
    number("gamma", lambda fit: f"{fit.gamma:.3g}"),
    number("overhead", lambda fit: format_size(fit.overhead_bytes)),
    number("base", lambda fit: format_size(fit.base_bytes)),
    Column("shape", lambda fit: "curved" if fit.curved else "straight"),
    number("points", lambda fit: str(len(fit.points))),
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
            kind = without_figures(caveat)
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


def batch_table(batches: Sequence[BatchSummary], *, verbose: bool = True) -> Table:
    """What became of each batch; its events and doubts stand below. Growth that is not known fails nothing."""
    columns: tuple[Column[BatchSummary], ...] = (
        name("batch", lambda batch: batch.title),
        number("inputs", lambda batch: f"{batch.inputs:,}"),
        number("failed", lambda batch: f"{batch.failed:,}"),
        number("repeated", lambda batch: f"{batch.repeated:,}"),
        number("workers", lambda batch: f"{batch.workers:,}"),
        number("total peak", lambda batch: format_size(batch.peak_bytes)),
        number("budget", lambda batch: format_size(batch.budget_bytes)),
        number("time", lambda batch: format_duration(batch.duration_s)),
        Column("growth", lambda batch: _growth_text(batch, verbose)),
        Column("ran on", lambda batch: ", ".join(batch.levels)),
    )
    notes = (
        note if len(batches) == 1 else f"{batch.title}: {note}"
        for batch in batches
        for note in _batch_notes(batch, verbose)
    )
    return make_table("batches", "Batches", columns, batches, notes)


def _growth_text(batch: BatchSummary, verbose: bool) -> str:
    """The verdict; a dash where there is none, and where it is open, unless its reason is shown as well."""
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


def host_table(batches: Sequence[BatchSummary]) -> Table:
    """What each batch used of each host."""
    found = [(batch.title, use) for batch in batches for use in batch.hosts]
    note = "where a host has several workers, its peak is at most this: their own peaks added up"
    notes = (note,) if any(use.workers > 1 for _, use in found) else ()
    return make_table("hosts", "Hosts of the batches", _HOST_COLUMNS, found, notes)


_HOST_COLUMNS: tuple[Column[tuple[str, HostUse]], ...] = (
    name("batch", lambda row: row[0]),
    name("host", lambda row: row[1].host),
    number("workers", lambda row: f"{row[1].workers:,}"),
    number("tasks", lambda row: f"{row[1].tasks:,}"),
    number("peak", lambda row: format_size(row[1].peak_upper_bytes)),
    number("budget", lambda row: format_size(row[1].budget_bytes)),
)


_MOST_ALERTS = 5


def monitor_table(monitors: Sequence[MonitorReport]) -> Table:
    """Peak, growth and cleanups of each monitor; recommendations and alerts stand below."""
    notes = (f"{_monitor_name(seen)}: {note}" for seen in monitors for note in _monitor_notes(seen))
    return make_table("monitors", "Monitors", _MONITOR_COLUMNS, monitors, notes)


def _is_growth_known(seen: MonitorReport) -> bool:
    return seen.growth_low_bytes_per_min < seen.growth_high_bytes_per_min or not seen.caveats


def _growth_interval(seen: MonitorReport) -> str:
    return f"{format_size(seen.growth_low_bytes_per_min)} to {format_size(seen.growth_high_bytes_per_min)}"


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


_MONITOR_COLUMNS: tuple[Column[MonitorReport], ...] = (
    name("monitor", _monitor_name),
    number("peak", lambda seen: format_size(seen.peak_bytes)),
    number("of limit", lambda seen: format_share(seen.peak_share) if seen.limit_bytes else NONE),
    number(
        "growth a minute",
        lambda seen: format_size(seen.growth_bytes_per_min) if _is_growth_known(seen) else NONE,
    ),
    number("at 95%", lambda seen: _growth_interval(seen) if _is_growth_known(seen) else NONE),
    number("cleanups", lambda seen: f"{len(seen.cleanups):,}"),
    number("freed", lambda seen: format_size(sum(cleanup.freed_bytes for cleanup in seen.cleanups))),
    number("alerts", lambda seen: f"{len(seen.alerts):,}"),
    number("time", lambda seen: format_duration(seen.duration_s)),
)
