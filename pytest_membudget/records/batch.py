"""A batch as a report shows it: its figures without its values."""

from __future__ import annotations

import msgspec

from pytest_membudget.records.growth import Growth
from pytest_membudget.records.quantities import Bytes, Count, Seconds
from pytest_membudget.records.run import BatchResult, HostUse, Level
from pytest_membudget.units import format_count

MOST_EVENTS = 10


class BatchSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch. `hosts` are those of a cluster; `events` the first that there were, in words.

    `failures` are the first inputs that failed, in words, and where they are kept to be run again. `peak_bytes` is
    that of this machine's processes; each host has its own.
    """

    title: str
    inputs: Count
    failed: Count
    repeated: Count
    duration_s: Seconds
    workers: Count
    peak_bytes: Bytes
    budget_bytes: Bytes
    limit_bytes: Bytes
    levels: tuple[Level, ...] = ()
    hosts: tuple[HostUse, ...] = ()
    growth: Growth | None = None
    failures: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()


def summarize_batch(batch: BatchResult, title: str) -> BatchSummary:
    """The figures of `batch` under a title of the caller's."""
    told = [str(event) for event in batch.events[:MOST_EVENTS]]
    if len(batch.events) > MOST_EVENTS:
        told.append(f"and {format_count(len(batch.events) - MOST_EVENTS, 'more event')}")
    return BatchSummary(
        title=title,
        inputs=len(batch.outcomes),
        failed=sum(not outcome.ok for outcome in batch.outcomes),
        repeated=sum(outcome.attempts > 1 for outcome in batch.outcomes),
        duration_s=batch.duration_s,
        workers=batch.workers,
        peak_bytes=batch.peak_bytes,
        budget_bytes=batch.budget_bytes,
        limit_bytes=batch.limit_bytes,
        levels=tuple(dict.fromkeys(outcome.level for outcome in batch.outcomes)),
        hosts=batch.hosts,
        growth=batch.growth,
        failures=batch.failures,
        events=tuple(told),
        caveats=batch.caveats,
    )
