"""Which process of a test session this is. Imported at start-up, so it imports nothing of ours."""

from __future__ import annotations

import pytest

CHILD_PLUGIN = "pytest_membudget.plugin.fresh.child_session"
"""The plugin that only a fresh interpreter loads."""


def is_worker(config: pytest.Config) -> bool:
    """Whether this is one of pytest-xdist's workers, whose controller reports."""
    return hasattr(config, "workerinput")


def is_controller(config: pytest.Config) -> bool:
    """Whether this process only hands tests to pytest-xdist's workers."""
    return config.getoption("dist", "no") != "no" and not is_worker(config)


def is_fresh(config: pytest.Config) -> bool:
    """Whether this interpreter was started for one test, by a session that reports."""
    return config.pluginmanager.has_plugin(CHILD_PLUGIN)
