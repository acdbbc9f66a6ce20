"""The table of monitors: one row each, with their advice below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_membudget.records.monitor import MonitorReport
from pytest_membudget.report.tables import Row, Table, name, number
from pytest_membudget.report.wording import NONE
from pytest_membudget.units import format_duration, format_share, format_size

_MOST_ALERTS = 5


def monitor_table(monitors: Sequence[MonitorReport]) -> Table | None:
    """Peak, growth and cleanups of each monitor; recommendations and alerts stand below."""
    if not monitors:
        return None
    columns = (
        name("monitor"),
        number("peak"),
        number("of limit"),
        number("growth a minute"),
        number("at 95%"),
        number("cleanups"),
        number("freed"),
        number("alerts"),
        number("time"),
    )
    notes = tuple(f"{_name(seen)}: {note}" for seen in monitors for note in _notes(seen))
    return Table("monitors", "Monitors", columns, tuple(_row(seen) for seen in monitors), notes)


def _row(seen: MonitorReport) -> Row:
    low, high = seen.growth_low_bytes_per_min, seen.growth_high_bytes_per_min
    is_known = low < high or not seen.caveats
    return (
        _name(seen),
        format_size(seen.peak_bytes),
        format_share(seen.peak_share) if seen.limit_bytes else NONE,
        format_size(seen.growth_bytes_per_min) if is_known else NONE,
        f"{format_size(low)} to {format_size(high)}" if is_known else NONE,
        f"{len(seen.cleanups):,}",
        format_size(sum(cleanup.freed_bytes for cleanup in seen.cleanups)),
        f"{len(seen.alerts):,}",
        format_duration(seen.duration_s),
    )


def _notes(seen: MonitorReport) -> Iterator[str]:
    for recommendation in seen.recommendations:
        yield f"{recommendation.advice} ({recommendation.because})"
    left_out = len(seen.alerts) - _MOST_ALERTS
    if left_out > 0:
        yield f"{left_out:,} earlier alerts not shown"
    yield from seen.alerts[-_MOST_ALERTS:]
    for cleanup in seen.cleanups:
        yield from (f"a cleanup's callback failed: {failure}" for failure in cleanup.failures)
    yield from seen.caveats


def _name(seen: MonitorReport) -> str:
    return seen.label or "monitor"
