"""Switches the plugin on: which parts this process needs, each registered once."""

from __future__ import annotations

import pytest

from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.orders import CHILD_PLUGIN


def start(config: pytest.Config, settings: Settings) -> None:
    """Registers what measures and what reports; a second call changes nothing.

    Raises:
        pytest.UsageError: a report could not be written where it is to go.
    """
    manager = config.pluginmanager
    if manager.has_plugin("membudget-measuring"):
        return
    from pytest_membudget.plugin.call import Measuring

    manager.register(Measuring(settings, in_fresh=is_fresh(config)), "membudget-measuring")
    if not is_fresh(config):
        from pytest_membudget.plugin.isolation import Isolation

        manager.register(Isolation(), "membudget-isolation")
    if not is_fresh(config) and not is_worker(config):
        from pytest_membudget.plugin.reporting import Reporting

        _check_report_paths(settings)
        manager.register(Reporting(config, settings), "membudget-reporting")


def is_worker(config: pytest.Config) -> bool:
    """Whether this is one of pytest-xdist's workers, whose controller does the telling."""
    return hasattr(config, "workerinput")


def is_fresh(config: pytest.Config) -> bool:
    """Whether this interpreter was started for one test, by a session that does the telling."""
    return config.pluginmanager.has_plugin(CHILD_PLUGIN)


def _check_report_paths(settings: Settings) -> None:
    if not settings.report_paths:
        return
    from pytest_membudget.errors import MembudgetError
    from pytest_membudget.report import check_report_path

    for path in settings.report_paths:
        try:
            check_report_path(path)
        except (MembudgetError, OSError) as error:
            raise pytest.UsageError(f"--membudget-report: {error}") from None
