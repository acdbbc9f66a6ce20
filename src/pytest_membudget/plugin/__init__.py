"""pytest's door to the other rooms.

1. `options` declares every flag and ini option once; `markers` reads the markers, strictly;
2. once the tests are collected, `plan` notes what each of them asks for;
3. `call` measures a test's call phase, `judging` holds that against all it asks for;
4. the record travels with the test's report (`travel`), from a worker or an isolated interpreter too;
5. `reporting` gathers the records, writes the reports, and shows what was found.

This module only declares and hands over. The rest is imported when a marker, a fixture or an option needs it, so
that a session that uses none of them pays next to nothing.
"""

from __future__ import annotations

import pytest

from pytest_membudget.plugin import options

_SETTINGS = pytest.StashKey[options.Settings]()


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declares our two hooks."""
    from pytest_membudget.plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declares our options."""
    options.add_options(parser)


def pytest_load_initial_conftests(args: list[str]) -> None:
    """Keeps test paths that follow `--membudget-report` in their order."""
    options.part_report_from_test_path(args)


def pytest_configure(config: pytest.Config) -> None:
    """Reads the options, and starts measuring where one of them asks for it."""
    from pytest_membudget.plugin import markers

    for description in markers.DESCRIPTIONS:
        config.addinivalue_line("markers", description)
    settings = config.stash[_SETTINGS] = options.read_settings(config)
    if settings.measure_all:
        from pytest_membudget.plugin import session

        session.start(config, settings)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Reads the markers of what is going to run, and starts measuring where there are any."""
    settings = session.config.stash[_SETTINGS]
    from pytest_membudget.plugin.plan import is_marked

    if settings.measure_all or any(map(is_marked, session.items)):
        from pytest_membudget.plugin import plan
        from pytest_membudget.plugin import session as membudget_session

        if plan.make_plans(session.items, measure_all=settings.measure_all):
            membudget_session.start(session.config, settings)
