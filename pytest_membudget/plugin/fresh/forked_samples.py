"""Samples of the tests of one module from forks of one interpreter: the session's end of `fork_server`."""

from __future__ import annotations

import os
import select
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from pytest_membudget.originals import contextlib, restored
from pytest_membudget.plugin.fresh.fork_server import ANSWERS, ORDERS_FILE, QUIT, REQUESTS, SAMPLE
from pytest_membudget.plugin.fresh.run import orders_for, read_results, skip_time_limit, start
from pytest_membudget.plugin.report.attach import attached
from pytest_membudget.plugin.report.session_files import shared_folder

CHECK_MS = 500
"""A server that was killed before it opened the FIFO of answers shows in no event, so it is looked for."""


class _Server:
    """One interpreter that has collected the tests of `module`, or the knowledge that there can be none."""

    def __init__(self, item: pytest.Item) -> None:
        self.module = item.path
        self._folder = tempfile.TemporaryDirectory(
            prefix="forks-", dir=shared_folder(item.config), ignore_cleanup_errors=True
        )
        self._samples = 0
        self._path = Path(self._folder.name)
        for name in (REQUESTS, ANSWERS):
            os.mkfifo(self._path / name)
        orders = orders_for(item, "sample", self._path)._replace(
            nodeid="", target=str(item.path), fork_server=self._folder.name, caller=os.getpid()
        )
        start(item.config, orders, self._path / "output.txt")
        self.lives = self._send(b"")

    def run(self, item: pytest.Item, *, rehearse: bool) -> Any | None:
        """The report of the call phase; `None` where the sample did not end by itself."""
        self._samples += 1
        results = self._path / f"results-{self._samples}.jsonl"
        results.touch()
        orders = orders_for(item, "sample", self._path)._replace(results=str(results), rehearse=rehearse)
        (self._path / ORDERS_FILE).write_text(orders.as_text(), encoding="utf-8")
        # Opened before the request is sent: the server ends a sample whose answer has no reader.
        answers = os.open(self._path / ANSWERS, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not self._send(SAMPLE) or not self._wait(answers):
                return None
        finally:
            os.close(answers)
        found, _ = read_results(item, results)
        return found.reports.get("call")

    def close(self) -> None:
        """Ends the server and removes its folder."""
        self._send(QUIT)
        self.lives = False
        self._folder.cleanup()

    def _send(self, request: bytes) -> bool:
        """Sends a request; False where the server is gone, which holds the other end open."""
        with contextlib.suppress(OSError):
            requests = os.open(self._path / REQUESTS, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(requests, request)
            finally:
                os.close(requests)
            return True
        return False

    def _wait(self, answers: int) -> bool:
        """Whether the server answered. Waits until it has closed its end: the next sample opens the FIFO again."""
        poll = select.poll()
        poll.register(answers, select.POLLIN)
        answered = False
        while True:
            if not poll.poll(CHECK_MS):
                if not self._send(b""):
                    return False
            elif os.read(answers, 1):
                answered = True
            else:
                return answered


class ForkedSamples:
    """The samples of a session. At most one server is kept: that of the module whose tests run now."""

    def __init__(self) -> None:
        self._server: _Server | None = None

    def run(self, item: pytest.Item, *, rehearse: bool) -> Any | None:
        """The report of the call phase of `item` in a fork; `None` where there was none, it did not pass, or its figures differ.

        Those of a test that starts processes do, see `fork_server`. Whether it does is asked of the sample: in a session an
        idle process of other tests may be in every test's tree.
        """
        if sys.platform != "linux":
            return None
        skip_time_limit(item)
        with restored():
            if self._server is None or self._server.module != item.path:
                self._close()
                self._server = _Server(item)
            if not self._server.lives:
                return None
            report = self._server.run(item, rehearse=rehearse)
            if report is None or not report.passed:
                # Forks share what the module has opened: one test may have closed it for all others.
                self._server.close()
                return None
            record = attached(report)
            return report if record is not None and record.processes == 1 else None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Ends the server after the last test of its module."""
        result = yield
        if nextitem is None or nextitem.path != item.path:
            self._close()
        return result

    def pytest_unconfigure(self) -> None:
        """Ends it where the session was stopped."""
        self._close()

    def _close(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            server.close()
