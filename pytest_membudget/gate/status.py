"""The grade of one scale of a job."""

from __future__ import annotations

from pytest_membudget.records.scale import ScaleStatus

TARGET_SHARE = 0.70
"""A run that takes more than this share of the limit is flagged, whatever its budget."""


def status_of(
    peak_bytes: int, limit_bytes: int, budget_bytes: int | None = None, target: float = TARGET_SHARE
) -> ScaleStatus:
    """FAIL over the budget or the limit, HIGH above `target` of the limit, else PASS; on the mark passes."""
    if budget_bytes is not None and peak_bytes > budget_bytes:
        return "FAIL"
    if limit_bytes and peak_bytes > limit_bytes:
        return "FAIL"
    return "HIGH" if limit_bytes and peak_bytes > target * limit_bytes else "PASS"
