"""Switches the plugin on: which parts this process needs, each registered once."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from pytest_membudget.errors import MembudgetError, MissingExtraError
from pytest_membudget.measurement.process.high_water import keep_maxrss_rising
from pytest_membudget.measurement.tree.sampler import start_sampler
from pytest_membudget.originals import bind_all
from pytest_membudget.plugin import is_controller, is_fresh, is_worker
from pytest_membudget.plugin.collect import Reporting
from pytest_membudget.plugin.fresh import Purpose
from pytest_membudget.plugin.judging import Judge
from pytest_membudget.plugin.measure import Measuring
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.plans import is_isolated, make_plans
from pytest_membudget.plugin.session_records import Tally

if TYPE_CHECKING:
    from pytest_membudget.plugin.baseline_gate import Gate

_GATE = pytest.StashKey["Gate"]()


def plan_tests(
    config: pytest.Config, items: list[pytest.Item], settings: Settings, errors: list[str]
) -> None:
    """Reads the markers of the collected tests and starts measuring where any test asks for it.

    Raises:
        pytest.UsageError: a marker cannot be understood; a worker reports it to its controller instead, and runs nothing.
    """
    try:
        if make_plans(items, errors, measure_all=settings.measure_all):
            start_measuring(config, settings)
            if any(map(is_isolated, items)):
                _start_isolating(config)
    except pytest.UsageError as error:
        if not is_worker(config):
            raise
        from pytest_membudget.plugin.xdist import send_usage_error

        send_usage_error(config, str(error))
        items.clear()


def start_measuring(config: pytest.Config, settings: Settings) -> None:
    """Registers what measures the tests of this process and, where it is the only one, what reports them.

    Raises:
        pytest.UsageError: a report could not be written where it is to go, or the baseline cannot be read.
    """
    manager = config.pluginmanager
    if manager.has_plugin("membudget-measuring") or is_controller(config):
        return
    if settings.memray and importlib.util.find_spec("memray") is None:
        raise pytest.UsageError(str(MissingExtraError("--membudget-memray", "memray", "memray")))
    purpose = _purpose(config)
    gate = _gate(config, settings) if purpose in {None, "isolate"} else None
    bind_all()
    keep_maxrss_rising()
    if purpose is None and not config.option.collectonly:
        start_sampler()  # the first test needs it
    reports = purpose is None and not is_worker(config)
    tally = Tally(measures_all=settings.measure_all) if reports else None
    manager.register(Measuring(settings, Judge(settings, gate), purpose, tally), "membudget-measuring")
    if purpose is None and (settings.report_paths or settings.show_tables):
        from pytest_membudget.plugin.collect import FixtureMemory

        manager.register(FixtureMemory(config), "membudget-fixtures")
    if tally is not None:
        start_reporting(config, settings, tally)


def start_reporting(config: pytest.Config, settings: Settings, tally: Tally | None = None) -> None:
    """Registers what collects and reports the records; `tally` is shared with what measures in the same process.

    Raises:
        pytest.UsageError: as above.
    """
    for path in settings.report_paths:
        from pytest_membudget.report.writing import check_report_path

        try:
            check_report_path(path)
        except (MembudgetError, OSError) as error:
            raise pytest.UsageError(f"--membudget-report: {error}") from None
    if settings.history is not None:
        from pytest_membudget.plugin.collect import check_history

        check_history(settings.history)
    if tally is None:
        tally = Tally(measures_all=settings.measure_all)
    reporting = Reporting(config, settings, _gate(config, settings), tally)
    config.pluginmanager.register(reporting, "membudget-reporting")


def _start_isolating(config: pytest.Config) -> None:
    """Registers what starts fresh interpreters; not in one of those, nor where workers run the tests."""
    if not is_controller(config) and not is_fresh(config):
        from pytest_membudget.plugin.fresh.isolate import Isolation

        config.pluginmanager.register(Isolation(), "membudget-isolation")


def _purpose(config: pytest.Config) -> Purpose | None:
    if not is_fresh(config):
        return None
    from pytest_membudget.plugin.fresh.child_session import REQUEST

    return REQUEST.purpose


def _gate(config: pytest.Config, settings: Settings) -> Gate | None:
    if settings.baseline is None:
        return None
    if _GATE not in config.stash:
        from pytest_membudget.plugin.baseline_gate import Collected, Gate
        from pytest_membudget.plugin.fresh.run import ForkedSamples

        collected, forks = Collected(config), ForkedSamples()
        is_in_ini = config.getoption("membudget_baseline") is None
        config.stash[_GATE] = Gate(settings, collected, forks, is_in_ini=is_in_ini)
        config.pluginmanager.register(collected, "membudget-collected")
        config.pluginmanager.register(forks, "membudget-forks")
    return config.stash[_GATE]
