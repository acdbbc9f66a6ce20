"""`--membudget-history`: the run is kept in the history at the end of the session."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_membudget.errors import MembudgetError
from pytest_membudget.gate.history.store import open_history
from pytest_membudget.records.report import Report
from pytest_membudget.records.storage import check_writable, from_here
from pytest_membudget.units import format_count


def check_history(path: Path) -> None:
    """Fails now where the run could not be kept after an hour of tests.

    Raises:
        pytest.UsageError: the file is not a history, or cannot be written.
    """
    try:
        if path.exists():
            with open_history(path, create=True):
                pass
        check_writable(path, such_as="memory.sqlite")
    except (MembudgetError, OSError) as error:
        raise pytest.UsageError(f"--membudget-history: {error}") from None


def keep_run(report: Report, path: Path) -> str:
    """Adds the run, and says so.

    Raises:
        OSError: the disk is full, or another program held the file for too long.
    """
    with open_history(path, create=True) as history:
        history.add(report)
        runs = len(history.runs())
    return f"history: {from_here(path)} ({format_count(runs, 'run')})"
