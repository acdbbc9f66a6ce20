"""Tells what keeps the user waiting while a test runs again: on a terminal, at the end of its line, until it is over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from _pytest.terminal import TerminalReporter  # public, as pytest.TerminalReporter, from 8.4 on

from pytest_membudget.plugin.roles import is_fresh, is_worker

_LEAST_COLUMNS = 20
"""With less room in the line nothing is said: text that wraps could not be taken back."""


@contextlib.contextmanager
def telling(config: pytest.Config, text: str) -> Iterator[None]:
    """Shows `text` behind what stands in pytest's line while the block runs.

    Not where lines are kept (no terminal), were not asked for (`-q`), or are another's: the test's with `-s`, those of
    pytest-xdist's controller, and of plugins that draw the terminal in their own way.
    """
    terminal = _terminal(config)
    room = terminal._tw.fullwidth - terminal._tw.width_of_current_line - 1 if terminal is not None else 0  # noqa: SLF001 - pytest tells its column nowhere else
    if terminal is None or room < _LEAST_COLUMNS:
        yield
        return
    shown = f" {text}"[:room]
    back = "\b" * len(shown)
    _write(config, terminal, shown)
    try:
        yield
    finally:
        _write(config, terminal, back + " " * len(shown) + back)


def _terminal(config: pytest.Config) -> TerminalReporter | None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if is_worker(config) or is_fresh(config) or type(terminal) is not TerminalReporter:
        return None
    wanted = terminal.isatty and config.get_verbosity() >= 0 and config.getoption("capture", "no") != "no"
    return terminal if wanted else None


def _write(config: pytest.Config, terminal: TerminalReporter, text: str) -> None:
    """Past the count of columns that pytest keeps of its line, and past the capture of the test's output."""
    capture = config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture is not None else contextlib.nullcontext():
        terminal._tw._file.write(text)  # noqa: SLF001 - see above
        terminal._tw._file.flush()  # noqa: SLF001 - see above
