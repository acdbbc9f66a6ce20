"""The peak of a larger scale, predicted from what the tasks of the smaller ones took and how many run side by side.

The sum is that of a batch, ``M = M_coordinator(size) + P·(base of a worker + peak of a task) + rest``. Each part comes from
what the rows tell of themselves: a task's peak follows the size of its file, the coordinator's memory follows the size of
the whole job, and the number of workers P is known beforehand. The total of a row is a poorer guide: whether two short
peaks met in it is chance, and a line through totals takes that for growth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pytest_membudget.records.run import BatchResult, Breakdown, Outcome
from pytest_membudget.records.scale import CurvePoint, Scale, ScaleRow, TaskFigures, TaskPeak
from pytest_membudget.stats.fitting import PeakFit, fit_constant, fit_peaks, fit_rising
from pytest_membudget.stats.laws import CONFIDENCE, judge_law

MOST_PEAKS = 64
"""Kept of a scale's tasks: enough for a line and its scatter."""

_LEAST_ROWS = 2
_LEAST_TASKS = 3
_CONTENT = 0.95
"""Of tasks that the bound of one task covers; P of them are added up, and are not all at their bound at once."""

_AS_PLANNED = 0.1
"""The files of a row may differ this much from its scale's size; else its batches are not what the job is cut into."""

_BEYOND = 1.25
"""Tasks of one size alone say nothing of tasks larger than this multiple of it."""


def task_figures(batch: BatchResult) -> TaskFigures | None:
    """What the batch's tasks took; `None` where the size or the peak of one is not known, or it was repeated."""
    outcomes = batch.outcomes
    if not outcomes or not all(map(_is_plain, outcomes)):
        return None
    largest = max(outcomes, key=_peak_bytes)
    kept = [largest, *(one for one in outcomes[:: -(-len(outcomes) // MOST_PEAKS)] if one is not largest)]
    levels = {outcome.level for outcome in outcomes}
    return TaskFigures(
        level=levels.pop() if len(levels) == 1 else "mixed",
        count=len(outcomes),
        size_bytes=sum(outcome.size_bytes or 0 for outcome in outcomes),
        workers=batch.workers,
        peaks=tuple(TaskPeak(outcome.size_bytes or 0, _peak_bytes(outcome)) for outcome in kept),
    )


def _is_plain(outcome: Outcome) -> bool:
    return (
        outcome.ok
        and outcome.attempts == 1
        and outcome.size_bytes is not None
        and outcome.peak_bytes is not None
    )


def _peak_bytes(outcome: Outcome) -> int:
    return outcome.peak_bytes or 0


def predict_concurrent(rows: Sequence[ScaleRow], scale: Scale) -> CurvePoint | None:
    """What `scale` would take: at most, with all workers at their highest at once; and as near to that as a row came.

    `None` where fewer than two rows have an account of their tasks, or those are not cut as their scales say.
    """
    told = [_Told(row, row.tasks, row.breakdown) for row in rows if row.tasks and row.breakdown]
    if len({one.row.scale.size_bytes for one in told}) < _LEAST_ROWS or len(told) < len(rows):
        return None
    if not scale.batches or not all(one.is_as_planned for one in told):
        return None
    points = [(peak.size_bytes, peak.peak_bytes) for one in told for peak in one.tasks.peaks]
    sizes = {size for size, _ in points}
    one_task_bytes = scale.size_bytes / scale.batches
    if len(points) < _LEAST_TASKS or (len(sizes) == 1 and one_task_bytes > _BEYOND * sizes.pop()):
        return None
    workers = min(scale.workers, scale.in_flight, scale.batches)
    held = [(one.row.scale.size_bytes, one.coordinator_bytes) for one in told]
    rising = fit_rising(held)
    parts = _Parts(
        coordinator=rising if judge_law(held).shape != "flat" else fit_constant(held),
        base_bytes=max(one.base_bytes for one in told),
        task=fit_peaks(points),
    )
    together = parts.together(scale.size_bytes, workers, one_task_bytes)
    # A row's upper figure leaves this much beside its parts. The closest of them is believed, the widest bounds.
    rests = [one.upper_bytes - parts.of(one) for one in told]
    nearness = max(
        one.row.peak_bytes / max(1.0, one.row.peak_bytes, parts.of(one) + min(rests)) for one in told
    )
    most_of_a_task = max(
        parts.task.bound(one_task_bytes, content=_CONTENT, confidence=CONFIDENCE),
        max((peak for size, peak in points if size <= one_task_bytes), default=0),
    )
    doubts = (
        workers * (most_of_a_task - parts.task.expect(one_task_bytes)),
        rising.expect(scale.size_bytes) - parts.coordinator.expect(scale.size_bytes),
    )
    # A row whose tasks never met has an upper figure that is low too; but what less of a job took, this one will.
    proven = max((one.row.peak_bytes for one in told if parts.of(one) <= together), default=0)
    expected = max(proven, max(0.0, together + min(rests)) * nearness)
    at_most = together + max(rests) + sum(max(0.0, doubt) for doubt in doubts)
    return CurvePoint(scale.size_bytes, round(expected), round(max(expected, at_most)))


class _Told(NamedTuple):
    """A row and its own account of where its peak went."""

    row: ScaleRow
    tasks: TaskFigures
    parts: Breakdown

    @property
    def is_as_planned(self) -> bool:
        """Whether the job was cut as the scale says."""
        scale = self.row.scale
        strayed = abs(self.tasks.size_bytes - scale.size_bytes)
        return self.tasks.count == scale.batches and strayed <= _AS_PLANNED * scale.size_bytes

    @property
    def base_bytes(self) -> float:
        """A worker's memory beside that of its task."""
        return self.parts.workers_base_bytes / max(1, self.tasks.workers)

    @property
    def coordinator_bytes(self) -> int:
        """What the process that hands out the tasks held, results that nobody had read yet included."""
        return self.parts.coordinator_bytes + self.parts.waiting_results_bytes

    @property
    def upper_bytes(self) -> int:
        """The most that the row's peak may have been."""
        return max(self.row.peak_bytes, self.row.peak_upper_bytes or 0)


class _Parts(NamedTuple):
    """The laws of the parts of a peak: of the coordinator by the job's size, of a task by its own."""

    coordinator: PeakFit
    base_bytes: float
    task: PeakFit

    def together(self, size_bytes: float, workers: int, one_task_bytes: float) -> float:
        """The coordinator and all workers at their highest."""
        return self.coordinator.expect(size_bytes) + workers * (
            self.base_bytes + self.task.expect(one_task_bytes)
        )

    def of(self, one: _Told) -> float:
        """The same of a row that has run."""
        return self.together(
            one.row.scale.size_bytes, one.tasks.workers, one.tasks.size_bytes / one.tasks.count
        )
