"""Scales of one job, what each took, the law that joins them, and the in-flight table."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_membudget.records import Bytes, Count, Seconds, SignedBytes
from pytest_membudget.records.measurement import TimelinePoint
from pytest_membudget.records.run import Breakdown, Feature
from pytest_membudget.units import format_share, format_size

ScaleStatus = Literal["PASS", "HIGH", "FAIL"]
LawShape = Literal["flat", "linear", "worse"]


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """One size of a job: rows and bytes in all, cut into batches, run by workers with some in flight."""

    name: str
    rows: Count
    size_bytes: Bytes
    batches: Count
    workers: Count
    in_flight: Count


class CurvePoint(msgspec.Struct, frozen=True, array_like=True):
    """A point of a fitted curve: central estimate and one-sided upper bound at `size_bytes`, in bytes."""

    size_bytes: Bytes
    expected_bytes: SignedBytes
    bound_bytes: SignedBytes


class TaskPeak(msgspec.Struct, frozen=True, array_like=True):
    """One finished task: the size of its file, and what it added to its worker at its peak, in bytes; and its predictors."""

    size_bytes: Bytes
    peak_bytes: Bytes
    #: What its estimate went by, where that was not its size.
    features: tuple[Feature, ...] = ()


class TaskFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the tasks of a scale took: how many there were, how many ran side by side, and the peaks of some.

    `size_bytes` is that of all their files.
    """

    count: Count
    size_bytes: Bytes
    workers: Count
    peaks: tuple[TaskPeak, ...]
    #: Where all of them ran: "process", "thread", "sequential", "dask"; "mixed" where they did not run alike.
    level: str = ""


class ScaleRow(msgspec.Struct, frozen=True, kw_only=True):
    """One scale's run. `predicted_bytes` and its bound were fixed from the smaller scales before this one ran."""

    scale: Scale
    peak_bytes: Bytes
    limit_bytes: Bytes
    budget_bytes: Bytes | None
    duration_s: Seconds
    status: ScaleStatus
    peak_upper_bytes: Bytes | None = None
    processed_rows: Count | None = None
    predicted_bytes: Bytes | None = None
    predicted_bound_bytes: Bytes | None = None
    timeline: tuple[TimelinePoint, ...] = ()
    breakdown: Breakdown | None = None
    tasks: TaskFigures | None = None
    #: The predictors of the scale, where it was predicted by others than its size.
    features: tuple[Feature, ...] = ()
    caveats: tuple[str, ...] = ()

    @property
    def limit_share(self) -> float:
        """Peak as a fraction of the limit."""
        return self.peak_bytes / self.limit_bytes if self.limit_bytes else 0.0

    @property
    def rows_per_s(self) -> float:
        """Throughput."""
        rows = self.scale.rows if self.processed_rows is None else self.processed_rows
        return rows / self.duration_s if self.duration_s else 0.0


class LawFit(msgspec.Struct, frozen=True, kw_only=True):
    """How the peak follows the size: shape, slope in bytes per byte with its upper bound, fitted curve."""

    shape: LawShape
    slope: float
    slope_bound: float
    base_bytes: SignedBytes
    curve: tuple[CurvePoint, ...] = ()
    caveats: tuple[str, ...] = ()


class ScaleTable(msgspec.Struct, frozen=True, kw_only=True):
    """All scales of one job, in order of size."""

    title: str
    rows: tuple[ScaleRow, ...]
    law: LawFit | None = None


class InFlightRow(msgspec.Struct, frozen=True, kw_only=True):
    """One value of max_in_flight: measured, or predicted from those that were."""

    max_in_flight: Count
    peak_bytes: Bytes
    limit_bytes: Bytes
    items_per_s: float
    slowdown: float
    predicted: bool = False
    verified_bytes: Bytes | None = None
    breakdown: Breakdown | None = None
    caveats: tuple[str, ...] = ()

    @property
    def limit_share(self) -> float:
        """Peak as a fraction of the limit."""
        return self.peak_bytes / self.limit_bytes if self.limit_bytes else 0.0

    def __str__(self) -> str:
        obtained = "measured" if self.verified_bytes or not self.predicted else "predicted"
        return (
            f"{self.max_in_flight} in flight: {obtained} {format_size(self.verified_bytes or self.peak_bytes)}, "
            f"{format_share(self.limit_share)} of the limit; {self.items_per_s:.3g} items/s, "
            f"{format_share(self.slowdown)} slower than the fastest"
        )


class InFlightTable(msgspec.Struct, frozen=True, kw_only=True):
    """Peak and throughput by max_in_flight, and the largest value that stays under the target."""

    rows: tuple[InFlightRow, ...]
    target: float
    recommended: Count
    reason: str
    caveats: tuple[str, ...] = ()

    @property
    def doubts(self) -> tuple[str, ...]:
        """The caveats of the table and of its rows, each once."""
        return tuple(dict.fromkeys((*self.caveats, *(caveat for row in self.rows for caveat in row.caveats))))

    def __str__(self) -> str:
        return "\n".join(
            [
                *map(str, self.rows),
                f"recommended: max_in_flight={self.recommended}, because {self.reason}",
                *self.doubts,
            ]
        )
