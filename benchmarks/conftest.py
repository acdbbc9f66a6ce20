"""What every benchmark may use. One file per question; run them with `make bench`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Record = Callable[..., None]
_FIGURES = pytest.StashKey[list[tuple[str, str, str]]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Record:
    """`figure("peak after 1,000 files", "12.3 MiB", "at most 20 MiB")`: shown together when the session ends."""
    shown = request.config.stash.setdefault(_FIGURES, [])

    def record(what: str, value: str, target: str = "") -> None:
        shown.append((f"{request.path.stem.removeprefix('test_')}: {what}", value, target))

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash.get(_FIGURES, [])
    if not figures:
        return
    terminalreporter.section("figures")
    widths = [max(len(row[column]) for row in figures) for column in (0, 1)]
    for what, value, target in figures:
        terminalreporter.write_line(f"{what:<{widths[0]}}  {value:>{widths[1]}}  {target}".rstrip())
