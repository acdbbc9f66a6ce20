"""What the fixture `memory_monitor` saw, kept for the report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from pytest_membudget.plugin import keeping
from pytest_membudget.records.monitor import MonitorReport
from pytest_membudget.runtime.monitor import MemoryMonitor

_FILE = "monitors.jsonl"
MOST_KEPT = 100
"""Snapshots and events of each kind that the report takes, the latest; a monitor itself keeps more."""


@contextmanager
def monitoring(request: pytest.FixtureRequest) -> Iterator[MemoryMonitor]:
    """A monitor named after its test. The parameter is its limit, or a mapping of arguments."""
    parameter = getattr(request, "param", None)
    arguments = parameter if isinstance(parameter, dict) else {"limit": parameter}
    with MemoryMonitor(**{"label": request.node.nodeid, **arguments}) as monitor:
        yield monitor
        keeping.keep(request.config, _FILE, [_shortened(monitor.report())])


def kept(folder: Path) -> tuple[MonitorReport, ...]:
    """Those of the session; of a test that was run again, the last."""
    return tuple({each.label: each for each in keeping.kept(folder, _FILE, MonitorReport)}.values())


def _shortened(seen: MonitorReport) -> MonitorReport:
    lists = ("snapshots", "cleanups", "collections", "alerts", "chunks")
    return replace(seen, **{field: getattr(seen, field)[-MOST_KEPT:] for field in lists})
