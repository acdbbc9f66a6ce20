"""What an isolated test has in common with its session, though it runs elsewhere: the seed, the log file, covered lines."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

_DECIDED_AT_START = ("randomly_seed",)


def decided_options(config: pytest.Config) -> Mapping[str, Any]:
    """What plugins chose for this session and no argument tells."""
    return {name: value for name in _DECIDED_AT_START if (value := config.getoption(name, None)) is not None}


def has_log_file(config: pytest.Config) -> bool:
    """Whether the session writes its log to a file."""
    if not config.pluginmanager.has_plugin("logging-plugin"):
        return False
    return bool(config.getoption("log_file", None) or config.getini("log_file"))


def append_log(config: pytest.Config, log: Path) -> None:
    """Adds the log of an isolated test to the session's, where its own lines would stand."""
    if not log.exists():
        return
    handler = getattr(config.pluginmanager.get_plugin("logging-plugin"), "log_file_handler", None)
    if handler is not None:
        with handler.lock:
            handler.stream.write(log.read_text(encoding="utf-8", errors="replace"))
            handler.stream.flush()


def coverage_variables(config: pytest.Config) -> Mapping[str, str]:
    """The environment in which coverage.py measures the interpreter too: as its own `patch = subprocess` has it.

    Only where somebody will combine the data files: pytest-cov, or the user who asked for parallel ones.
    """
    coverage = sys.modules.get("coverage")
    measuring = coverage.Coverage.current() if coverage is not None else None
    if measuring is None or not hasattr(measuring.config, "serialize"):
        return {}
    if not config.pluginmanager.has_plugin("_cov") and not measuring.config.parallel:
        return {}
    return {"COVERAGE_PROCESS_CONFIG": measuring.config.serialize()}
