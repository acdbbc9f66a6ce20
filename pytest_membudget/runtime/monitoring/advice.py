"""What the figures of a monitor say: the rate of growth, and recommendations in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pytest_membudget.records.monitor import MemorySnapshot, MonitorReport, Recommendation
from pytest_membudget.runtime.monitoring.chunks import recommend_chunk_rows
from pytest_membudget.stats.slopes import Slope, robust_slope
from pytest_membudget.units import format_duration, format_share, format_size

TARGET_SHARE = 0.7
GROWTH_CONFIDENCE = 0.95
FEWEST_SNAPSHOTS = 6
_WORTH_FREEING = 0.05
_WORTH_A_LOOK = 0.01
_FRAGMENTED_SHARE = 0.25
_FRAGMENTED_BYTES = 64 << 20
_GROWTH_BYTES_PER_MIN = 1_000_000


class Setting(NamedTuple):
    """How the program runs, as far as it said so; `None` where it did not."""

    workers: int | None = None
    max_in_flight: int | None = None


def growth_rate(snapshots: Iterable[MemorySnapshot]) -> tuple[Slope, tuple[str, ...]]:
    """Resident bytes a minute with their interval, and what is to be said against them."""
    seen = {snapshot.at_s: float(snapshot.rss_bytes) for snapshot in snapshots}
    if len(seen) < FEWEST_SNAPSHOTS:
        caveat = f"{len(seen)} snapshots at different times: {FEWEST_SNAPSHOTS} are needed for a growth rate"
        return Slope(0.0, 0.0, 0.0), (caveat,)
    per_s = robust_slope(list(seen), list(seen.values()), GROWTH_CONFIDENCE)
    return Slope(60 * per_s.value, 60 * per_s.low, 60 * per_s.high), ()


def recommend(
    report: MonitorReport, setting: Setting, cleanup_threshold: float
) -> tuple[Recommendation, ...]:
    """What to change, most urgent first; nothing where all is well."""
    advice: list[Recommendation] = []
    if report.limit_bytes and report.peak_share >= cleanup_threshold:
        advice += _under_pressure(report, setting)
    advice += _against_growth(report)
    advice += _collecting(report)
    advice += _against_fragments(report)
    return tuple(advice)


def _under_pressure(report: MonitorReport, setting: Setting) -> Iterator[Recommendation]:
    because = (
        f"the peak was {format_size(report.peak_bytes)}, {format_share(report.peak_share)} of the limit of "
        f"{format_size(report.limit_bytes)}"
    )
    fits = TARGET_SHARE / report.peak_share
    if setting.workers is not None and setting.workers > 1:
        fewer = max(1, int(setting.workers * fits))
        yield Recommendation(f"use fewer workers: {fewer} in place of {setting.workers}", because)
    if setting.max_in_flight is not None and setting.max_in_flight > 1:
        fewer = max(1, int(setting.max_in_flight * fits))
        yield Recommendation(f"lower max_in_flight: {fewer} in place of {setting.max_in_flight}", because)
    if any(chunk.rows > 1 and chunk.peak_bytes > 0 for chunk in report.chunks):
        yield _smaller_chunks(report)


def _smaller_chunks(report: MonitorReport) -> Recommendation:
    largest = max(report.chunks, key=lambda chunk: chunk.rows)
    added_bytes = max(chunk.peak_bytes for chunk in report.chunks)
    base_bytes = max(0, report.peak_bytes - added_bytes)
    budget_bytes = max(0, int(TARGET_SHARE * report.limit_bytes) - base_bytes)
    rows = min(recommend_chunk_rows(report.chunks, budget_bytes), largest.rows // 2)
    return Recommendation(
        f"use smaller batches: {rows:,} rows in place of {largest.rows:,}",
        f"a chunk added up to {format_size(added_bytes)} to {format_size(base_bytes)} that were there without it, "
        f"and {format_share(TARGET_SHARE)} of the limit are {format_size(TARGET_SHARE * report.limit_bytes)}",
    )


def _against_growth(report: MonitorReport) -> Iterator[Recommendation]:
    if report.growth_low_bytes_per_min <= _GROWTH_BYTES_PER_MIN or not report.snapshots:
        return
    grown_bytes = report.snapshots[-1].rss_bytes - report.snapshots[0].rss_bytes
    if grown_bytes < _WORTH_A_LOOK * report.limit_bytes:  # a program that starts grows fast, for a moment
        return
    left_bytes = report.limit_bytes - report.snapshots[-1].rss_bytes
    left_s = 60 * max(0, left_bytes) / report.growth_bytes_per_min
    yield Recommendation(
        "look for what is kept from step to step: run check_growth on the function of one step",
        f"memory grew by {format_size(report.growth_bytes_per_min)} a minute (at least "
        f"{format_size(report.growth_low_bytes_per_min)}) and reaches the limit in {format_duration(left_s)}",
    )


def _collecting(report: MonitorReport) -> Iterator[Recommendation]:
    if not report.cleanups or not report.peak_bytes:
        return
    freed_bytes = sum(event.freed_bytes for event in report.cleanups) // len(report.cleanups)
    if freed_bytes >= _WORTH_FREEING * report.peak_bytes:
        yield Recommendation(
            "call gc.collect() after each batch, and drop intermediate results before it",
            f"{len(report.cleanups)} cleanups freed {format_size(freed_bytes)} each on average, "
            f"{format_share(freed_bytes / report.peak_bytes)} of the peak",
        )


def _against_fragments(report: MonitorReport) -> Iterator[Recommendation]:
    if not report.snapshots:
        return
    rss_bytes = report.snapshots[-1].rss_bytes
    if report.heap_kept_bytes >= max(_FRAGMENTED_BYTES, _FRAGMENTED_SHARE * rss_bytes):
        yield Recommendation(
            "let workers end after some tasks (max_tasks_per_child), or process the largest pieces first",
            f"the heap keeps {format_size(report.heap_kept_bytes)} in fragments beside "
            f"{format_size(report.heap_used_bytes)} in use, of {format_size(rss_bytes)} resident",
        )
