"""The markers that what was measured would justify."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_membudget.records.report import TestRecord
from pytest_membudget.units import format_size

_HEADROOM = 1.25
_STEPS = (1, 1.5, 2, 3, 4, 5, 6, 8)
_SMALLEST_BYTES = 1024**2


def suggestions(records: Sequence[TestRecord]) -> Iterator[str]:
    """One line for each passing test without a budget, or with one far above what it takes."""
    for record in records:
        if record.outcome != "passed" or record.peak_upper_bytes is None:
            continue
        suggested_bytes = budget_for(record.peak_upper_bytes)
        if record.budget_bytes is None or record.budget_bytes > 2 * suggested_bytes:
            marker = f'@pytest.mark.memory_budget("{format_size(suggested_bytes)}")'
            yield f"{record.nodeid}: {marker}  # took {format_size(record.peak_upper_bytes)}"


def budget_for(peak_bytes: int) -> int:
    """A quarter more than the peak, rounded up to a figure that is easily read; at least 1 MiB."""
    wanted = max(peak_bytes * _HEADROOM, _SMALLEST_BYTES)
    unit = _SMALLEST_BYTES
    while wanted > unit * 1000:
        unit *= 1024
    decade = 1
    while wanted > decade * 10 * unit:
        decade *= 10
    return next(int(step * decade * unit) for step in (*_STEPS, 10) if wanted <= step * decade * unit)
