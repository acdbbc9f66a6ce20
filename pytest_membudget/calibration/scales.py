"""The same job at several scales: one table, its law of growth, and each larger scale predicted before it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from pytest_membudget.calibration.growth_law import fit_law, predict_next, task_figures
from pytest_membudget.errors import UsageError
from pytest_membudget.gate.budgets import TARGET_SHARE, status_of
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.records.run import BatchResult, Breakdown, Feature
from pytest_membudget.records.scale import Scale, ScaleRow, ScaleTable, TaskFigures
from pytest_membudget.runtime.prediction.predictors import BYTES, Predictor, Predictors, named_features
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
    features: tuple[Feature, ...] = (),
) -> ScaleRow:
    """The row of one scale.

    `smaller` are the rows that were there before it ran: they alone give its prediction, as far as their tasks ran at the
    same level as these. `breakdown` and `tasks` are its batch's own account, where it has one: see `task_figures`; `features`
    its predictors: see `scale_features`.
    """
    budget_bytes = None if budget is None else parse_size(budget)
    alike = [row for row in smaller if _ran_alike(row.tasks, tasks)]
    predicted = predict_next(alike, scale, features)
    return ScaleRow(
        scale=scale,
        peak_bytes=measurement.peak_bytes,
        peak_upper_bytes=measurement.peak_upper_bytes,
        limit_bytes=limit_bytes,
        budget_bytes=budget_bytes,
        duration_s=measurement.duration_s,
        status=status_of(measurement.peak_bytes, limit_bytes, budget_bytes, parse_share(target)),
        processed_rows=processed_rows,
        predicted_bytes=predicted.expected_bytes if predicted else None,
        predicted_bound_bytes=predicted.bound_bytes if predicted else None,
        timeline=measurement.timeline,
        breakdown=breakdown,
        tasks=tasks,
        features=features,
        caveats=(*measurement.caveats, *_unlike(smaller, alike, tasks)),
    )


def _ran_alike(theirs: TaskFigures | None, ours: TaskFigures | None) -> bool:
    """Whether both say where their tasks ran, and that is the same; or one does not say."""
    return theirs is None or ours is None or theirs.level == ours.level


def _unlike(
    smaller: Sequence[ScaleRow], alike: Sequence[ScaleRow], tasks: TaskFigures | None
) -> tuple[str, ...]:
    """Tasks in threads share the program's memory, those in processes do not: one says nothing of the other."""
    others = [row for row in smaller if row not in alike]
    if not others or tasks is None:
        return ()
    elsewhere = sorted({row.tasks.level for row in others if row.tasks})
    names = ", ".join(row.scale.name for row in others)
    caveat = (
        f"not predicted from {names}: their tasks ran at level {' and '.join(elsewhere)}, these at {tasks.level}; run all "
        "at one level, as ExecutorPolicy(small_batch=0) does"
    )
    return (caveat,)


def run_scales(
    job: Callable[[Scale], Any],
    scales: Iterable[Scale | str] = ("micro", "small", "medium"),
    *,
    budget: Size | None = None,
    target: float | str = TARGET_SHARE,
    title: str = "",
    predictors: Mapping[str, Predictor | None] | None = None,
) -> ScaleTable:
    """Runs `job(scale)` for each scale, smallest first, and measures the whole process tree each time.

    The smallest runs once before, unmeasured: no row pays for what the job loads and keeps the first time. Each scale
    from the third on is predicted before it runs. A job that returns a `BatchResult` gives its breakdown and
    the figures of its tasks to the table; its other results are dropped.

    Args:
        job: takes a `Scale`.
        scales: names, or scales of your own.
        budget: of the peak of each.
        target: share of the memory limit above which a row is HIGH.
        title: of the table.
        predictors: up to three named functions of a scale that its peak follows in place of its size, such as
            ``{"cells": lambda scale: scale.rows * 12}``. Where the job's tasks are charged by predictors of these names they
            are those of one task of the scale, else those of the whole.

    Raises:
        UsageError: an unknown scale, budget or target, or a predictor that fails.
    """
    from pytest_membudget.measurement.probe import measuring
    from pytest_membudget.measurement.system.machine import memory_limit

    limit_bytes = memory_limit().bytes
    rows: list[ScaleRow] = []
    chosen = _ordered(scales)
    predicted_by = [scale_features(predictors, scale) for scale in chosen]
    for scale in chosen[:1]:
        job(scale)
    for scale, features in zip(chosen, predicted_by, strict=True):
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
                features=features,
            )
        )
        del result, batch
    return ScaleTable(title=title or getattr(job, "__name__", "job"), rows=tuple(rows), law=fit_law(rows))


def scale_features(predictors: Mapping[str, Predictor | None] | None, scale: Scale) -> tuple[Feature, ...]:
    """The predictors of a scale; ``"bytes": None`` stands for its size.

    Raises:
        UsageError: one fails, or they are more than three.
    """
    if not predictors:
        return ()
    by_size = {BYTES: attrgetter("size_bytes")} if predictors.get(BYTES, True) is None else {}
    return named_features(Predictors({**predictors, **by_size}).values(scale))


def _ordered(scales: Iterable[Scale | str]) -> list[Scale]:
    given = tuple(scales)
    named = chosen_scales(scale for scale in given if isinstance(scale, str))
    own = [scale for scale in given if isinstance(scale, Scale)]
    return sorted((*named, *own), key=lambda scale: scale.size_bytes)


_COUNTS = ("rows", "batches", "workers", "in_flight")

PRESETS: dict[str, Scale] = {
    "reference_micro": Scale(
        name="reference_micro", rows=50_000, size_bytes=5_000_000, batches=1, workers=4, in_flight=1
    ),
    "reference_small": Scale(
        name="reference_small", rows=150_000, size_bytes=15_000_000, batches=3, workers=6, in_flight=3
    ),
    "reference_medium": Scale(
        name="reference_medium", rows=500_000, size_bytes=50_000_000, batches=10, workers=8, in_flight=10
    ),
}
"""The shapes of the reference documents: 50,000 rows a batch, taken here as 100 bytes a row."""


def default_scales() -> dict[str, Scale]:
    """micro, small, medium and large: together they run within a minute on two cores and 4 GB."""
    return {
        scale.name: scale
        for scale in (
            Scale(name="micro", rows=5_000, size_bytes=500_000, batches=1, workers=2, in_flight=1),
            Scale(name="small", rows=20_000, size_bytes=2_000_000, batches=2, workers=2, in_flight=2),
            Scale(name="medium", rows=80_000, size_bytes=8_000_000, batches=4, workers=2, in_flight=4),
            Scale(name="large", rows=320_000, size_bytes=32_000_000, batches=8, workers=2, in_flight=8),
        )
    }


def configured_scales(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Scale]:
    """The default scales and the presets, changed and extended by `settings`.

    Each entry may give rows, size ("2 MB"), batches, workers and in_flight; what a new scale leaves out is that
    of "small", and of an existing one stays as it is.

    Raises:
        UsageError: an unknown field, or a figure that is not a positive whole number or a size.
    """
    scales = {**default_scales(), **PRESETS}
    for name, fields in settings.items():
        scales[name] = _changed(scales.get(name, scales["small"]), name, fields)
    return scales


def chosen_scales(names: Iterable[str], scales: Mapping[str, Scale] | None = None) -> tuple[Scale, ...]:
    """The scales of these names, smallest first.

    Raises:
        UsageError: an unknown name; the message lists the known ones.
    """
    known = {**default_scales(), **PRESETS} if scales is None else scales
    wanted = tuple(dict.fromkeys(names))
    for name in wanted:
        if name not in known:
            raise UsageError(f"there is no scale {name!r}; there are: {', '.join(known)}")
    return tuple(sorted((known[name] for name in wanted), key=lambda scale: scale.size_bytes))


def _changed(scale: Scale, name: str, fields: Mapping[str, Any]) -> Scale:
    unknown = sorted(set(fields) - {*_COUNTS, "size"})
    if unknown:
        raise UsageError(
            f"scale {name!r} has the unknown field {unknown[0]!r}; there are: size, {', '.join(_COUNTS)}"
        )
    for field in _COUNTS:
        value = fields.get(field, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"scale {name!r} has {field}={value!r}; write a whole number above 0")
    counts = {field: fields.get(field, getattr(scale, field)) for field in _COUNTS}
    try:
        size_bytes = parse_size(fields["size"]) if "size" in fields else scale.size_bytes
    except ValueError as error:
        raise UsageError(f"scale {name!r} has size={fields['size']!r}: {error}") from None
    if size_bytes == 0:
        raise UsageError(f"scale {name!r} has size={fields['size']!r}; a scale needs at least 1 B")
    return Scale(name=name, size_bytes=size_bytes, **counts)
