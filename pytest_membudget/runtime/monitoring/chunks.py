"""In which order, and in pieces of which size? Answers from the memory that chunks really took."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from pytest_membudget.errors import UsageError
from pytest_membudget.records.monitor import ChunkRecord
from pytest_membudget.runtime.parameters import count_of, size_of
from pytest_membudget.units import Size

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


def recommend_chunk_rows(
    chunks: Iterable[ChunkRecord | tuple[int, int]],
    budget: Size,
    *,
    workers: int = 1,
    least_rows: int = 1,
    most_rows: int | None = None,
) -> int:
    """The most rows a chunk may have so that `workers` of them at once stay within `budget`.

    `chunks` are chunks that ran: records, or (rows, peak bytes added). Where their sizes differ, a part that every
    chunk takes is told from what each row takes; no chunk that ran lies above the line that is used. The result is
    rounded down to two digits. Chunks that took no memory that could be measured may double.

    Raises:
        UsageError: no chunk with rows, or an argument that makes no sense.
    """
    share_bytes = size_of("budget", budget) // count_of("workers", workers)
    count_of("least_rows", least_rows)
    points = [point for chunk in chunks if (point := _point(chunk))[0] > 0]
    if not points:
        raise UsageError(
            "chunks holds no chunk with rows; run at least one and give it as (rows, peak bytes)"
        )
    fixed_bytes, row_bytes = _line_above(points)
    largest = max(rows for rows, _ in points)
    fitting = _rounded_down((share_bytes - fixed_bytes) / row_bytes) if row_bytes > 0 else 2 * largest
    return max(least_rows, fitting if most_rows is None else min(fitting, most_rows))


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


def _point(chunk: ChunkRecord | tuple[int, int]) -> tuple[int, int]:
    return (chunk.rows, chunk.peak_bytes) if isinstance(chunk, ChunkRecord) else (chunk[0], chunk[1])


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
