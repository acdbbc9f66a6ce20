"""The markers that what was measured would justify."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_membudget.gate.budgets import suggested_budget
from pytest_membudget.records.report import TestRecord
from pytest_membudget.units import format_size, parse_size


def suggestions(records: Sequence[TestRecord]) -> Iterator[str]:
    """One line for each passing test without a budget, or with one far above what it uses."""
    for record in records:
        if record.outcome != "passed" or record.peak_upper_bytes is None:
            continue
        suggested = suggested_budget(record.peak_upper_bytes)
        if record.budget_bytes is None or record.budget_bytes > 2 * parse_size(suggested):
            marker = f'@pytest.mark.memory_budget("{suggested}")'
            yield f"{record.nodeid}: {marker}  # used {format_size(record.peak_upper_bytes)}"
