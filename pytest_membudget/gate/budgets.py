"""One measurement against its budget."""

from __future__ import annotations

from pytest_membudget.gate.explanation import explain
from pytest_membudget.gate.figures import Figure, figures_of
from pytest_membudget.records.judgement import Budget, Judgement
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.units import format_as_written, format_size


def judge(measurement: Measurement, budget: Budget, *, strict: bool = False) -> Judgement:
    """Whether the measured peak, total and retained sizes are within `budget`; exactly at it passes.

    A proven figure above its budget is "over" and fails. Where only the upper figure is above it, the verdict
    is "over_upper": a caveat, and a failure under `strict`.
    """
    figures = figures_of(measurement, budget)
    if not figures:
        return Judgement(verdict="none", caveats=measurement.caveats)
    over = [figure for figure in figures if figure.proven_bytes > figure.budget_bytes]
    if over:
        return Judgement(
            verdict="over",
            failed=True,
            message=explain(measurement, over, [_over_line(figure) for figure in over]),
            caveats=measurement.caveats,
        )
    doubtful = [figure for figure in figures if figure.upper_bytes > figure.budget_bytes]
    if doubtful:
        lines = [_doubt_line(figure) for figure in doubtful]
        return Judgement(
            verdict="over_upper",
            failed=strict,
            message=explain(measurement, doubtful, lines) if strict else "",
            caveats=(*measurement.caveats, *lines),
        )
    return Judgement(verdict="within", caveats=measurement.caveats)


def _over_line(figure: Figure) -> str:
    over_bytes = figure.proven_bytes - figure.budget_bytes
    measured, allowed = _told_apart(figure.proven_bytes, figure.budget_bytes)
    share = f", {over_bytes / figure.budget_bytes:.0%}" if figure.budget_bytes else ""
    written = format_as_written(figure.budget_bytes)
    if written != format_size(figure.budget_bytes):
        allowed += f" = {written}"
    return f"{figure.name} {measured} > budget {allowed} (+{format_size(over_bytes)}{share})"


def _doubt_line(figure: Figure) -> str:
    upper, allowed = _told_apart(figure.upper_bytes, figure.budget_bytes)
    return f"{figure.name} at most {upper} > budget {allowed}, yet only {format_size(figure.proven_bytes)} is proven"


def _told_apart(measured_bytes: int, allowed_bytes: int) -> tuple[str, str]:
    """Both sizes as text; in whole bytes where rounding would make them look the same."""
    measured, allowed = format_size(measured_bytes), format_size(allowed_bytes)
    if measured == allowed:
        return f"{measured_bytes:,} B", f"{allowed_bytes:,} B"
    return measured, allowed
