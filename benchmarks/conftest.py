"""What every benchmark may use. One file per question; run them with `make bench`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from workflow_traces import Run, read_kinds

Record = Callable[..., None]
_FIGURES = pytest.StashKey[list[tuple[str, str, str]]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Record:
    """`figure("peak after 1,000 files", "12.3 MiB", "at most 20 MiB")`: shown together when the session ends."""
    shown = request.config.stash.setdefault(_FIGURES, [])

    def record(what: str, value: str, target: str = "") -> None:
        shown.append((f"{request.path.stem.removeprefix('test_')}: {what}", value, target))

    return record


@pytest.fixture(scope="session")
def traces() -> dict[str, dict[str, tuple[list[Run], list[Run]]]]:
    """Of each recorded workflow its kinds of task, each with the runs known at the start and those to come."""
    folder = os.environ.get("MEMBUDGET_TRACES")
    if not folder:
        pytest.skip(
            "MEMBUDGET_TRACES does not name the folder with the recorded workflows: nothing was measured"
        )
    return {path.stem: read_kinds(path) for path in sorted(Path(folder).glob("*.csv"))}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash.get(_FIGURES, [])
    if not figures:
        return
    terminalreporter.section("figures")
    widths = [max(len(row[column]) for row in figures) for column in (0, 1)]
    for what, value, target in figures:
        terminalreporter.write_line(f"{what:<{widths[0]}}  {value:>{widths[1]}}  {target}".rstrip())
