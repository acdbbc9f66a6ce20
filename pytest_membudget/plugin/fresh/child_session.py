"""The other end of `fresh`: a plugin that makes a whole pytest session run one test and write down its reports.

The session has the arguments, plugins and conftest files of the one that started it. What writes files for the
whole session, starts workers or repeats tests is switched off: that stays with the starter.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from pytest_membudget import plugin
from pytest_membudget.originals import restored
from pytest_membudget.plugin.fresh import FreshRequest, take_request
from pytest_membudget.plugin.fresh.fork_server import serve

REQUEST: FreshRequest = take_request()
"""Of this run; that of a fork server is replaced in each fork."""

# Options of pytest and of well-known plugins that are the starter's business.
_SWITCHED_OFF: Mapping[str, Any] = {
    "numprocesses": None,
    "dist": "no",
    "tx": [],
    "xmlpath": None,
    "htmlpath": None,
    "report_log": None,
    "json_report": False,
    "usepdb": False,
    "trace": False,
    "lf": False,
    "failedfirst": False,
    "newfirst": False,
    "stepwise": False,
    "stepwise_skip": False,
    "deselect": None,
    "maxfail": 0,
    "pastebin": None,
    "memray": False,
    "cacheclear": False,
}
_LEFT_TO_STARTER = ("_cov",)
#: Its configuration starts a thread beside xdist, and a fork server must have none.
_NEVER_CONFIGURED = ("rerunfailures", "pytest_rerunfailures")
_TERMINAL = "terminalreporter"


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """Keeps pytest-cov from starting: it would erase what all other processes have measured so far."""
    early_config.known_args_namespace.no_cov = True
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Points the session at the one test, before any plugin is configured."""
    for name, value in {**_SWITCHED_OFF, **REQUEST.options, "log_file": REQUEST.log_file}.items():
        if hasattr(config.option, name):
            setattr(config.option, name, value)
    config.option.basetemp = REQUEST.basetemp
    config.args[:] = [REQUEST.target]
    for name in filter(config.pluginmanager.has_plugin, _NEVER_CONFIGURED):
        config.pluginmanager.unregister(name=name)
        config.addinivalue_line("markers", "flaky: of pytest-rerunfailures, which repeats the test elsewhere")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Leaves the terminal to the starter, once every plugin had its chance to look for it."""
    for name in _LEFT_TO_STARTER:
        plugin = config.pluginmanager.get_plugin(name)
        if plugin is not None:
            config.pluginmanager.unregister(plugin)
    terminal = config.pluginmanager.get_plugin(_TERMINAL)
    if terminal is not None:
        config.pluginmanager.unregister(terminal)
        config.pluginmanager.register(QuietTerminal(terminal), _TERMINAL)
    config.pluginmanager.register(Sender(config), "membudget-sender")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Where a fork server was asked for, only forks of it go on from here, each with a test of its own."""
    global REQUEST  # noqa: PLW0603 - a fork is another process, with a request of its own
    result = yield
    if REQUEST.fork_server:
        REQUEST = serve(Path(REQUEST.fork_server), REQUEST.caller)
        session.items[:] = [item for item in session.items if item.nodeid == REQUEST.nodeid][:1]
    return result


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """Keeps the one test, also where a plugin takes its share of the tests: the starter has taken this one."""
    if REQUEST.fork_server:
        return (yield)
    items[:] = the_one = [item for item in items if item.nodeid == REQUEST.nodeid][:1]
    result = yield
    if items != the_one:
        items[:] = the_one
        plugin.pytest_collection_modifyitems(config, items)
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Where a rehearsal was asked for: one run from the first fixture to the last, then the measured run starts from the beginning."""
    if REQUEST.rehearse:
        runtestprotocol(item, log=False, nextitem=None)
        item._initrequest()  # type: ignore[attr-defined]  # noqa: SLF001 - as every plugin that repeats tests


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Tells why the test could not be collected."""
    if report.failed:
        _write(collect_error=report.longreprtext)


class QuietTerminal:
    """pytest's terminal for plugins that write to it, such as pytest-timeout its stacks; it says nothing by itself."""

    def __init__(self, terminal: Any) -> None:
        self._terminal = terminal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._terminal, name)


class Sender:
    """Writes the reports, as pytest itself would send them to another process."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: Any) -> None:
        """One line a report."""
        with restored():
            data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        _write(report=data)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """`pytest.exit` ends the starter's session as well."""
        if isinstance(excinfo.value, pytest.exit.Exception):
            _write(exit=excinfo.value.msg)

    def pytest_internalerror(self, excrepr: Any) -> None:
        """A broken plugin shows in the test's failure."""
        _write(internal_error=str(excrepr))


def _write(**line: Any) -> None:
    """Adds a line to the results; that of a test's call is written while its doubles still stand."""
    with restored(), Path(REQUEST.results).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line, default=repr) + "\n")
