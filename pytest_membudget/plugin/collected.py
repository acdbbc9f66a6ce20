"""Which tests this session knows to exist, so that one that is missing is gone, and of all others nothing is said.

A test may be missing because another job of a sharded run has it, because its module was skipped or another folder
was asked for. Only where its file was in reach and nothing kept pytest from reading it does it exist no more.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from pytest_membudget.plugin.roles import is_worker

_TOLD = "membudget_collected"


class Collected:
    """Every test that was collected, whoever deselected it later, and every place that could not be read."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._complete = False
        self.names: set[str] = set()
        self._unread: set[str] = set()
        self._ignored: set[str] = set()

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Notes a test."""
        self.names.add(item.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Notes a module that was skipped or is broken: its tests are not known."""
        if not report.passed:
            self._unread.add(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_ignore_collect(self, collection_path: Path) -> Generator[None, bool | None, bool | None]:
        """Notes what an option or a conftest file leaves out."""
        ignored = yield
        if ignored:
            self._ignored.add(str(collection_path))
        return ignored

    def pytest_collection_finish(self) -> None:
        """From now on what is missing is told from what is not known."""
        self._complete = True

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A worker tells its controller, which collects nothing itself."""
        if is_worker(session.config) and self._complete:
            facts = [sorted(each) for each in (self.names, self._unread, self._ignored)]
            session.config.workeroutput[_TOLD] = json.dumps(facts)  # type: ignore[attr-defined]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Takes over what a worker knows."""
        told = getattr(node, "workeroutput", {}).get(_TOLD)
        if told is not None:
            for mine, its in zip((self.names, self._unread, self._ignored), json.loads(told), strict=True):
                mine.update(its)
            self._complete = True

    def is_gone(self, nodeid: str) -> bool:
        """Whether that test would have been collected if it still existed."""
        if not self._complete or nodeid in self.names or any(map(nodeid.startswith, self._unread)):
            return False
        file = self._config.rootpath / nodeid.partition("::")[0]
        if any(file.is_relative_to(place) for place in self._ignored):
            return False
        return any(file.is_relative_to(place) for place in self._asked_places())

    def _asked_places(self) -> list[Path]:
        """The files and folders that were read whole; none where pytest skipped those without a failure."""
        if getattr(self._config.option, "lf", False):
            return []
        if self._config.args_source is pytest.Config.ArgsSource.TESTPATHS:
            return [self._config.rootpath]
        folder = self._config.invocation_params.dir
        return [folder / argument for argument in self._config.args if "::" not in argument]
