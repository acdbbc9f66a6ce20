"""Switches the plugin on: which parts this process needs, each registered once."""

from __future__ import annotations

import pytest

from pytest_membudget.plugin.options import Settings

_MEASURING = "membudget-measuring"
_REPORTING = "membudget-reporting"


def start(config: pytest.Config, settings: Settings) -> None:
    """Registers what measures and what reports; a second call changes nothing.

    Raises:
        pytest.UsageError: a report could not be written where it is to go.
    """
    manager = config.pluginmanager
    if manager.has_plugin(_MEASURING):
        return
    from pytest_membudget.plugin.call import Measuring

    manager.register(Measuring(settings), _MEASURING)
    if not is_worker(config):
        from pytest_membudget.plugin.reporting import Reporting

        _check_report_paths(settings)
        manager.register(Reporting(config, settings), _REPORTING)


def is_worker(config: pytest.Config) -> bool:
    """Whether this is one of pytest-xdist's workers, whose controller does the telling."""
    return hasattr(config, "workerinput")


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
