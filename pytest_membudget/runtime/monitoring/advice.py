"""What the figures of a monitor say: the rate of growth, recommendations in plain words, order and size of chunks."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Self

from pytest_membudget.errors import UsageError, count_of, size_of
from pytest_membudget.records.monitor import ChunkRecord, MemorySnapshot, MonitorReport, Recommendation
from pytest_membudget.stats.growth import Slope, robust_slope
from pytest_membudget.units import Size, format_count, format_duration, format_share, format_size

_logger = logging.getLogger("pytest_membudget")

TARGET_SHARE = 0.7
GROWTH_CONFIDENCE = 0.95
FEWEST_SNAPSHOTS = 6
_WORTH_FREEING = 0.05
_WORTH_A_LOOK = 0.01
_FRAGMENTED_SHARE = 0.25
_FRAGMENTED_BYTES = 64 << 20
_GROWTH_BYTES_PER_MIN = 1_000_000


class Setting(NamedTuple):
    """How the program runs, as far as it is known; `None` where it did not."""

    workers: int | None = None
    max_in_flight: int | None = None


def growth_rate(snapshots: Iterable[MemorySnapshot]) -> tuple[Slope, tuple[str, ...]]:
    """Resident bytes a minute with their interval, and its caveats."""
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
            f"{format_count(len(report.cleanups), 'cleanup')} freed {format_size(freed_bytes)} each on average, "
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


EXTRAPOLATED_BEYOND = 1.25
_HIDDEN_SHARE = 0.5
_GROWTH_FACTOR = 1.25
_SHRINK_FACTOR = 0.5


def optimize_processing_order(sizes: Sequence[Size]) -> list[int]:
    """Indices of `sizes`, the largest first; equal sizes keep their order.

    What comes later then fits into memory that was freed before, so that the heap does not grow in small steps
    around fragments, and with several workers no large piece is left for the end.

    Raises:
        UsageError: a size is none.
    """
    sizes_bytes = [size_of(f"sizes[{index}]", size) for index, size in enumerate(sizes)]
    return sorted(range(len(sizes_bytes)), key=lambda index: -sizes_bytes[index])


class ChunkRows(int):
    """A recommended number of rows; `largest_run` is the largest chunk that it was learned from."""

    largest_run: int

    def __new__(cls, rows: int, largest_run: int) -> Self:
        """The number as any `int`, with what it was learned from."""
        made = super().__new__(cls, rows)
        made.largest_run = largest_run
        return made

    @property
    def is_extrapolated(self) -> bool:
        """Whether it is more than 1.25 times the largest chunk that ran."""
        return self > EXTRAPOLATED_BEYOND * self.largest_run


def recommend_chunk_rows(
    chunks: Iterable[ChunkRecord | tuple[int, int]],
    budget: Size,
    *,
    workers: int = 1,
    least_rows: int = 1,
    most_rows: int | None = None,
) -> ChunkRows:
    """The most rows a chunk may have so that `workers` of them at once stay within `budget`.

    `chunks` are chunks that ran: records, or (rows, peak bytes added). Of chunks of one size the largest peak counts.
    Where the sizes differ, a part that every chunk takes is kept apart from what each row takes; no chunk that ran lies above
    the line that is used. The result is rounded down to two digits.

    A chunk that used memory again which an earlier one had freed shows a smaller peak than it needs. Where that may be,
    the result is at most twice the largest chunk that ran: run that, and ask again. It may be where chunks of one size
    differ by more than half, where the heap kept more than half of a chunk's peak free when it began, and where none took
    anything that could be measured.

    Beyond 1.25 times the largest chunk that ran the result is extrapolated: `is_extrapolated` says so, and the log.

    Raises:
        UsageError: no chunk with rows, or an argument that makes no sense.
    """
    share_bytes = size_of("budget", budget) // count_of("workers", workers)
    count_of("least_rows", least_rows)
    points = [chunk for chunk in map(_record, chunks) if chunk.rows > 0]
    if not points:
        raise UsageError(
            "chunks holds no chunk with rows; run at least one and give it as (rows, peak bytes)"
        )
    largest: dict[int, ChunkRecord] = {}
    for point in sorted(points, key=lambda chunk: chunk.peak_bytes):
        largest[point.rows] = point
    fixed_bytes, row_bytes = _line_above([(rows, chunk.peak_bytes) for rows, chunk in largest.items()])
    most_run = max(largest)
    doubled = 2 * most_run
    fitting = _rounded_down((share_bytes - fixed_bytes) / row_bytes) if row_bytes > 0 else doubled
    if _may_be_hidden(points, largest):
        fitting = min(fitting, doubled)
    rows = ChunkRows(max(least_rows, fitting if most_rows is None else min(fitting, most_rows)), most_run)
    if rows.is_extrapolated:
        _logger.warning(
            "%s rows are recommended from chunks of at most %s rows: that is extrapolated; measure a chunk of that size "
            "before relying on it",
            f"{rows:,}",
            f"{most_run:,}",
        )
    return rows


def adapted_rows(
    rows: int, limit_share: float, threshold: float, *, least_rows: int, most_rows: int | None
) -> int:
    """The next chunk's rows: half beyond `threshold` of the limit, a quarter more below half of it, else the same."""
    if limit_share >= threshold:
        wanted = int(rows * _SHRINK_FACTOR)
    elif limit_share < threshold / 2:
        wanted = math.ceil(rows * _GROWTH_FACTOR)
    else:
        wanted = rows
    return max(least_rows, wanted if most_rows is None else min(wanted, most_rows))


def _record(chunk: ChunkRecord | tuple[int, int]) -> ChunkRecord:
    if isinstance(chunk, ChunkRecord):
        return chunk
    return ChunkRecord(rows=chunk[0], peak_bytes=chunk[1], retained_bytes=0, duration_s=0.0)


def _may_be_hidden(points: Iterable[ChunkRecord], largest: Mapping[int, ChunkRecord]) -> bool:
    """Whether peaks may be smaller than what the chunks needed, because they used freed memory again."""
    return any(chunk.peak_bytes < _HIDDEN_SHARE * largest[chunk.rows].peak_bytes for chunk in points) or any(
        chunk.kept_bytes > _HIDDEN_SHARE * chunk.peak_bytes for chunk in largest.values()
    )


def _line_above(points: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """(fixed bytes, bytes a row) of the line through `points`, raised until none lies above it."""
    if len({rows for rows, _ in points}) > 1:
        row_bytes = statistics.linear_regression(*zip(*points, strict=True)).slope
        fixed_bytes = max(peak_bytes - row_bytes * rows for rows, peak_bytes in points)
        if row_bytes > 0 and fixed_bytes >= 0:
            return fixed_bytes, row_bytes
    return 0.0, max(peak_bytes / rows for rows, peak_bytes in points)


def _rounded_down(rows: float) -> int:
    """Two leading digits: 48,731 becomes 48,000."""
    if rows < 1:
        return 0
    whole = int(rows + 1e-6)  # 149,999.9999999 is 150,000
    unit = int(10 ** max(0, len(str(whole)) - 2))
    return whole // unit * unit
