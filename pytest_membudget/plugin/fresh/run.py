"""Runs one test in a fresh interpreter: a pytest session of its own, with the same arguments and plugins.

The session's reports come back as pytest serializes them. An interpreter that dies is distinguished from one that ended:
the reports that it owed are missing.

`ForkedSamples` takes samples of the tests of one module from forks of one interpreter: the session's end of `fork_server`.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pytest_membudget.measurement.fresh.launcher import launch
from pytest_membudget.measurement.system.machine import memory_limit
from pytest_membudget.originals import contextlib, restored
from pytest_membudget.plugin import CHILD_PLUGIN
from pytest_membudget.plugin.fresh import VARIABLE, FreshRequest, Purpose
from pytest_membudget.plugin.fresh.fork_server import ANSWERS, QUIT, REQUEST_FILE, REQUESTS, SAMPLE
from pytest_membudget.plugin.running_test import RunningTest
from pytest_membudget.plugin.session_records import attached, shared_folder, temporary_folders
from pytest_membudget.records.measurement import Ending
from pytest_membudget.units import format_size

_OUTPUT_SHOWN = 2000
_SIGKILL = 9

_CHECK_MS = 500
"""A server that was killed before it opened the FIFO of answers shows in no event, so it is looked for."""


class FreshRun(NamedTuple):
    """What came back: reports by phase, reports of sub-tests, and how the interpreter ended where that was early."""

    reports: Mapping[str, Any]
    sub_reports: Sequence[Any]
    death: str = ""
    exit_message: str | None = None


def run_fresh(
    test: RunningTest,
    purpose: Purpose,
    *,
    rehearse: bool = False,
    timeout_s: float | None = None,
    memray_capture: str = "",
) -> FreshRun:
    """Runs the test in an interpreter of its own; whatever it started and left is ended with it.

    With `rehearse` it runs twice there, and the second run is reported. A caller that runs it once more stops its clock first.
    """
    # A sample is taken in the test's call phase, when its doubles still stand.
    with restored(), tempfile.TemporaryDirectory(prefix="fresh-", dir=shared_folder(test.config)) as folder:
        output, log = Path(folder, "output.txt"), Path(folder, "log.txt")
        request = request_for(test, purpose, Path(folder))._replace(
            rehearse=rehearse, memray_capture=memray_capture
        )
        if purpose == "isolate" and has_log_file(test.config):
            request = request._replace(log_file=str(log))
        Path(request.results).touch()
        ending = start(test.config, request, output, timeout_s=timeout_s)
        append_log(test.config, log)
        found, trouble = read_results(test, Path(request.results))
        return _with_death(found, trouble, ending, output)


def request_for(test: RunningTest, purpose: Purpose, folder: Path) -> FreshRequest:
    """What to do with the test; the results go to `folder`."""
    return FreshRequest(
        nodeid=test.bare_nodeid,
        target=_target(test),
        results=str(folder / "results.jsonl"),
        # A folder of its own in this session's, since pytest empties the one that it is given.
        basetemp=str(temporary_folders(test.config).mktemp("fresh")),
        shared=str(shared_folder(test.config)),
        purpose=purpose,
        options=decided_options(test.config),
    )


def invocation(config: pytest.Config) -> tuple[Path, list[str]]:
    """Where and with which arguments the user called pytest; a worker has them from its controller."""
    invocation = getattr(config, "workerinput", {}).get("membudget_invocation")
    if invocation is not None:
        folder, *arguments = json.loads(invocation)
        return Path(folder), arguments
    return config.invocation_params.dir, [str(each) for each in config.invocation_params.args]


def start(
    config: pytest.Config,
    request: FreshRequest,
    output: Path,
    *,
    timeout_s: float | None = None,
) -> Ending:
    """Starts the interpreter and waits; it ends with all that it started, also when Ctrl-C ends the wait.

    A fork server stays. It is all that is left where its interpreter ended with exit code 0.
    """
    folder, arguments = invocation(config)
    # Where the starter does not look for modules in its working directory, neither does the fresh interpreter.
    finds_here = "" in sys.path or str(folder) in sys.path
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing
    command = [
        sys.executable,
        *flags,
        *([] if finds_here else ["-P"]),
        "-m",
        "pytest",
        "-p",
        CHILD_PLUGIN,
        *arguments,
    ]
    shown = config.getoption("capture", "no") == "no"
    variables = {**os.environ, VARIABLE: request.as_text()}
    if request.purpose == "isolate":
        variables |= coverage_variables(config)
    with (
        output.open("wb") as stream,
        launch(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=None if shown else stream,
            stderr=None if shown else subprocess.STDOUT,
            timeout_s=timeout_s,
        ) as launched,
    ):
        ending = launched.wait()
        if request.fork_server and ending.exit_code == 0:
            launched.close(keep_rest=True)
        return ending


def read_results(test: RunningTest, results: Path) -> tuple[FreshRun, str]:
    """The reports of the test, and what kept the interpreter from running it."""
    reports: dict[str, Any] = {}
    sub_reports = []
    exit_message = None
    trouble = ""
    for line in map(json.loads, results.read_text(encoding="utf-8").splitlines()):
        if "report" in line:
            report = test.config.hook.pytest_report_from_serializable(
                config=test.config, data={**line["report"], "nodeid": test.nodeid}
            )
            if report.when in {"setup", "call", "teardown"} and getattr(report, "context", None) is None:
                reports[report.when] = report
            else:
                sub_reports.append(report)
        exit_message = line.get("exit", exit_message)
        trouble = line.get("collect_error") or line.get("internal_error") or trouble
    return FreshRun(reports, sub_reports, exit_message=exit_message), trouble


def _with_death(found: FreshRun, trouble: str, ending: Ending, output: Path) -> FreshRun:
    reports = found.reports
    if "teardown" in reports:
        return found._replace(exit_message=None)
    output_end = trouble or output.read_bytes()[-_OUTPUT_SHOWN:].decode(errors="replace").strip()
    death = f"its fresh interpreter {ending}, {_phase(reports)}"
    if ending.how == "signalled" and ending.signal == _SIGKILL:
        limit = memory_limit()
        death += f"\n  next      so the kernel ends who needs too much: the limit is {format_size(limit.bytes)} ({limit.source})"
    return found._replace(death=f"{death}\n{output_end}".rstrip())


def _phase(reports: Mapping[str, Any]) -> str:
    if "setup" not in reports:
        return "before its setup was over"
    return "in its teardown" if "call" in reports or not reports["setup"].passed else "in its call"


def _target(test: RunningTest) -> str:
    """The test as an argument for pytest, whatever folder it is called in."""
    _, colons, rest = test.bare_nodeid.partition("::")
    return f"{test.path}{colons}{rest}"


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

    Only where the data files will be combined: by pytest-cov, or by the user who asked for parallel ones.
    """
    coverage = sys.modules.get("coverage")
    measuring = coverage.Coverage.current() if coverage is not None else None
    if measuring is None or not hasattr(measuring.config, "serialize"):
        return {}
    if not config.pluginmanager.has_plugin("_cov") and not measuring.config.parallel:
        return {}
    return {"COVERAGE_PROCESS_CONFIG": measuring.config.serialize()}


class _Server:
    """One interpreter that has collected the tests of `module`, or the knowledge that there can be none."""

    def __init__(self, test: RunningTest) -> None:
        self.module = test.path
        self._folder = tempfile.TemporaryDirectory(
            prefix="forks-", dir=shared_folder(test.config), ignore_cleanup_errors=True
        )
        self._samples = 0
        self._path = Path(self._folder.name)
        for name in (REQUESTS, ANSWERS):
            os.mkfifo(self._path / name)
        request = request_for(test, "sample", self._path)._replace(
            nodeid="", target=str(test.path), fork_server=self._folder.name, caller=os.getpid()
        )
        start(test.config, request, self._path / "output.txt")
        self.lives = self._send(b"")

    def run(self, test: RunningTest, *, rehearse: bool) -> Any | None:
        """The report of the call phase; `None` where the sample did not end by itself."""
        self._samples += 1
        results = self._path / f"results-{self._samples}.jsonl"
        results.touch()
        request = request_for(test, "sample", self._path)._replace(results=str(results), rehearse=rehearse)
        (self._path / REQUEST_FILE).write_text(request.as_text(), encoding="utf-8")
        # Opened before the request is sent: the server ends a sample whose answer has no reader.
        answers = os.open(self._path / ANSWERS, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not self._send(SAMPLE) or not self._wait(answers):
                return None
        finally:
            os.close(answers)
        found, _ = read_results(test, results)
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
            if not poll.poll(_CHECK_MS):
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

    def run(self, test: RunningTest, *, rehearse: bool) -> Any | None:
        """The report of the call phase of the test in a fork; `None` where there was none, it did not pass, or its figures differ.

        Those of a test that starts processes do, see `fork_server`. Whether it does is asked of the sample: in a session an
        idle process of other tests may be in every test's tree.
        """
        if sys.platform != "linux":
            return None
        test.stop_clock()
        with restored():
            if self._server is None or self._server.module != test.path:
                self._close()
                self._server = _Server(test)
            if not self._server.lives:
                return None
            report = self._server.run(test, rehearse=rehearse)
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
