"""The same job at several scales: one table, its law of growth, and each larger scale foretold before it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pytest_membudget.calibration.concurrent_tasks import task_figures
from pytest_membudget.calibration.growth_law import fit_law, predict_next
from pytest_membudget.calibration.presets import chosen_scales
from pytest_membudget.gate.status import TARGET_SHARE, status_of
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.records.run import BatchResult, Breakdown
from pytest_membudget.records.scale import Scale, ScaleRow, ScaleTable, TaskFigures
from pytest_membudget.units import Size, parse_share, parse_size


def scale_row(
    scale: Scale,
    measurement: Measurement,
    *,
    limit_bytes: int,
    budget: Size | None = None,
    target: float | str = TARGET_SHARE,
    smaller: Sequence[ScaleRow] = (),
    breakdown: Breakdown | None = None,
    tasks: TaskFigures | None = None,
    processed_rows: int | None = None,
) -> ScaleRow:
    """The row of one scale.

    `smaller` are the rows that were there before it ran: they alone give its prediction. `breakdown` and `tasks` are
    its batch's own account, where it has one: see `task_figures`.
    """
    budget_bytes = None if budget is None else parse_size(budget)
    foretold = predict_next(smaller, scale)
    return ScaleRow(
        scale=scale,
        peak_bytes=measurement.peak_bytes,
        peak_upper_bytes=measurement.peak_upper_bytes,
        limit_bytes=limit_bytes,
        budget_bytes=budget_bytes,
        duration_s=measurement.duration_s,
        status=status_of(measurement.peak_bytes, limit_bytes, budget_bytes, parse_share(target)),
        processed_rows=processed_rows,
        predicted_bytes=foretold.expected_bytes if foretold else None,
        predicted_bound_bytes=foretold.bound_bytes if foretold else None,
        timeline=measurement.timeline,
        breakdown=breakdown,
        tasks=tasks,
        caveats=measurement.caveats,
    )


def run_scales(
    job: Callable[[Scale], Any],
    scales: Iterable[Scale | str] = ("micro", "small", "medium"),
    *,
    budget: Size | None = None,
    target: float | str = TARGET_SHARE,
    title: str = "",
) -> ScaleTable:
    """Runs `job(scale)` for each scale, smallest first, and measures the whole process tree each time.

    The smallest runs once before, unmeasured: no row pays for what the job loads and keeps the first time. Each scale
    from the third on is predicted before it runs. A job that returns a `BatchResult` gives its breakdown and
    the figures of its tasks to the table; its other results are dropped.

    Raises:
        UsageError: an unknown scale, budget or target.
    """
    from pytest_membudget.measurement.probe import measuring
    from pytest_membudget.measurement.system.limit import memory_limit

    limit_bytes = memory_limit().bytes
    rows: list[ScaleRow] = []
    chosen = _ordered(scales)
    for scale in chosen[:1]:
        job(scale)
    for scale in chosen:
        with measuring(scale.name, settle=True) as probe:
            result = job(scale)
        batch = result if isinstance(result, BatchResult) else None
        rows.append(
            scale_row(
                scale,
                probe.measurement,
                limit_bytes=limit_bytes,
                budget=budget,
                target=target,
                smaller=tuple(rows),
                breakdown=batch.breakdown if batch else None,
                tasks=task_figures(batch) if batch else None,
            )
        )
        del result, batch
    return ScaleTable(title=title or getattr(job, "__name__", "job"), rows=tuple(rows), law=fit_law(rows))


def _ordered(scales: Iterable[Scale | str]) -> list[Scale]:
    given = tuple(scales)
    named = chosen_scales(scale for scale in given if isinstance(scale, str))
    own = [scale for scale in given if isinstance(scale, Scale)]
    return sorted((*named, *own), key=lambda scale: scale.size_bytes)
