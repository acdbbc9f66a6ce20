"""The tables of a job: its scales, where their peaks went, values of max_in_flight, calibrations."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_membudget.records.report import CalibrationPicture
from pytest_membudget.records.scale import InFlightRow, InFlightTable, LawFit, ScaleRow, ScaleTable
from pytest_membudget.report.tables import Column, Row, Table, name, number
from pytest_membudget.report.wording import NONE, rate_text, size_or_none
from pytest_membudget.units import format_share, format_size

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
