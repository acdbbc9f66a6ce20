"""50,000 rows in chunks under a monitor: memory grows by less than 50 MB and never nears 8 GB.

The labels and weights of each chunk are kept in narrow columns: int8 takes an eighth of int64, float32 half of
float64, and both together less than half, as `measure_columns` measures. Run it: `python examples/chunked_rows.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pytest_membudget import MemoryMonitor, measure
from pytest_membudget.records.monitor import MonitorReport
from pytest_membudget.units import format_share, format_size

Column = np.ndarray[Any, Any]

ROWS = 50_000
CHUNK_ROWS = 5_000
COLUMNS = 40
MOST_GROWTH_BYTES = 50_000_000


def label_chunk(rows: int, seed: int) -> tuple[Column, Column]:
    """Labels (0 or 1) and weights of one chunk, from features that are made up and dropped again."""
    features = np.random.default_rng(seed).normal(size=(rows, COLUMNS))
    score = features.mean(axis=1)
    return (score > 0).astype(np.int8), np.abs(score).astype(np.float32)


def process(rows: int = ROWS, chunk_rows: int = CHUNK_ROWS) -> tuple[int, MonitorReport]:
    """All rows, chunk by chunk; how many were labelled, and what the monitor saw."""
    labelled: dict[int, Column] = {}
    weights: dict[int, Column] = {}
    scratch: list[Column] = []
    with MemoryMonitor(
        "8 GB", cleanup_threshold=0.8, emergency_threshold=1.2, cleanup_every_chunks=5
    ) as monitor:
        monitor.register_cleanup_callback(scratch.clear)
        for start in range(0, rows, chunk_rows):
            size = min(chunk_rows, rows - start)
            with monitor.chunk(size):
                labelled[start], weights[start] = label_chunk(size, seed=start)
                scratch.append(weights[start] * 2)
            monitor.progress(start + size)
        return sum(map(len, labelled.values())), monitor.report()


def wide_columns(rows: int) -> tuple[Column, Column]:
    """A column of labels and one of weights as numpy makes them by default, every page touched."""
    return np.ones(rows, dtype=np.int64), np.ones(rows, dtype=np.float64)


def narrow_columns(rows: int) -> tuple[Column, Column]:
    """The same columns in the types that suffice."""
    return np.ones(rows, dtype=np.int8), np.ones(rows, dtype=np.float32)


def measure_columns(rows: int = 5_000_000) -> tuple[int, int]:
    """Peak bytes of the wide and of the narrow columns."""
    return measure(wide_columns, rows).peak_bytes, measure(narrow_columns, rows).peak_bytes


def main() -> None:
    done, report = process()
    grown_bytes = report.snapshots[-1].rss_bytes - report.snapshots[0].rss_bytes
    print(f"{done:,} rows in {len(report.chunks)} chunks, {len(report.cleanups)} cleanups")
    print(f"growth {format_size(grown_bytes)}, peak {format_size(report.peak_bytes)}", end="")
    print(f" ({format_share(report.peak_share)} of {format_size(report.limit_bytes)})")
    for recommendation in report.recommendations:
        print(f"advice: {recommendation.advice}, because {recommendation.because}")
    wide_bytes, narrow_bytes = measure_columns()
    print(
        f"int64 and float64: {format_size(wide_bytes)}; int8 and float32: {format_size(narrow_bytes)}", end=""
    )
    print(f" ({format_share(narrow_bytes / wide_bytes)})")


if __name__ == "__main__":
    main()
