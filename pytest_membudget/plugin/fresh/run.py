"""Runs one test in a fresh interpreter: a pytest session of its own, with the same arguments and plugins.

The session's reports come back as pytest serializes them. An interpreter that dies is told from one that ended:
the reports that it owed are missing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pytest_membudget.measurement.fresh.launcher import launch
from pytest_membudget.measurement.system.machine import memory_limit
from pytest_membudget.originals import restored
from pytest_membudget.plugin.fresh.request import VARIABLE, Orders, Purpose
from pytest_membudget.plugin.report.session_files import shared_folder, temporary_folders
from pytest_membudget.plugin.roles import CHILD_PLUGIN, is_worker
from pytest_membudget.records.measurement import Ending
from pytest_membudget.units import format_size

_LAST_WORDS = 2000
_SIGKILL = 9


class FreshRun(NamedTuple):
    """What came back: reports by phase, reports of sub-tests, and how the interpreter ended where that was early."""

    reports: Mapping[str, Any]
    sub_reports: Sequence[Any]
    death: str = ""
    exit_message: str | None = None


def run_fresh(
    item: pytest.Item,
    purpose: Purpose,
    *,
    rehearse: bool = False,
    timeout_s: float | None = None,
    memray_capture: str = "",
) -> FreshRun:
    """Runs `item` in an interpreter of its own; whatever it started and left is ended with it.

    With `rehearse` it runs twice there, and the second time is told.
    """
    if purpose != "isolate":
        skip_time_limit(item)
    # A sample is taken in the test's call phase, when its doubles still stand.
    with restored(), tempfile.TemporaryDirectory(prefix="fresh-", dir=shared_folder(item.config)) as folder:
        output, log = Path(folder, "output.txt"), Path(folder, "log.txt")
        orders = orders_for(item, purpose, Path(folder))._replace(
            rehearse=rehearse, memray_capture=memray_capture
        )
        if purpose == "isolate" and has_log_file(item.config):
            orders = orders._replace(log_file=str(log))
        Path(orders.results).touch()
        ending = start(item.config, orders, output, timeout_s=timeout_s)
        append_log(item.config, log)
        found, trouble = read_results(item, Path(orders.results))
        return _with_death(found, trouble, ending, output)


def orders_for(item: pytest.Item, purpose: Purpose, folder: Path) -> Orders:
    """What to do with `item`; the results go to `folder`."""
    return Orders(
        nodeid=_bare_nodeid(item),
        target=_target(item),
        results=str(folder / "results.jsonl"),
        # A folder of its own in this session's, since pytest empties the one that it is given.
        basetemp=str(temporary_folders(item.config).mktemp("fresh")),
        shared=str(shared_folder(item.config)),
        purpose=purpose,
        options=decided_options(item.config),
    )


def skip_time_limit(item: pytest.Item) -> None:
    """Stops pytest-timeout's clock: the test itself is over, what follows repeats it and has limits of its own."""
    cancel = getattr(item.config.hook, "pytest_timeout_cancel_timer", None)
    if cancel is not None:
        cancel(item=item)


def invocation(config: pytest.Config) -> tuple[Path, list[str]]:
    """Where and with which arguments the user called pytest; a worker has them from its controller."""
    told = getattr(config, "workerinput", {}).get("membudget_invocation")
    if told is not None:
        folder, *arguments = json.loads(told)
        return Path(folder), arguments
    return config.invocation_params.dir, [str(each) for each in config.invocation_params.args]


def start(
    config: pytest.Config,
    orders: Orders,
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
    variables = {**os.environ, VARIABLE: orders.as_text()}
    if orders.purpose == "isolate":
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
        if orders.fork_server and ending.exit_code == 0:
            launched.close(keep_rest=True)
        return ending


def read_results(item: pytest.Item, results: Path) -> tuple[FreshRun, str]:
    """The reports of `item`, and what kept the interpreter from running it."""
    reports: dict[str, Any] = {}
    sub_reports = []
    exit_message = None
    trouble = ""
    for line in map(json.loads, results.read_text(encoding="utf-8").splitlines()):
        if "report" in line:
            report = item.config.hook.pytest_report_from_serializable(
                config=item.config, data={**line["report"], "nodeid": item.nodeid}
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
    last_words = trouble or output.read_bytes()[-_LAST_WORDS:].decode(errors="replace").strip()
    death = f"its fresh interpreter {ending}, {_phase(reports)}"
    if ending.how == "signalled" and ending.signal == _SIGKILL:
        limit = memory_limit()
        death += f"\n  next      so the kernel ends who needs too much: the limit is {format_size(limit.bytes)} ({limit.source})"
    return found._replace(death=f"{death}\n{last_words}".rstrip())


def _phase(reports: Mapping[str, Any]) -> str:
    if "setup" not in reports:
        return "before its setup was over"
    return "in its teardown" if "call" in reports or not reports["setup"].passed else "in its call"


def _bare_nodeid(item: pytest.Item) -> str:
    """The node id without the group that pytest-xdist's loadgroup scheduling appends."""
    group = item.get_closest_marker("xdist_group")
    name, at, _ = item.nodeid.rpartition("@")
    return name if at and group is not None and is_worker(item.config) else item.nodeid


def _target(item: pytest.Item) -> str:
    """The test as an argument for pytest, whatever folder it is called in."""
    _, colons, rest = _bare_nodeid(item).partition("::")
    return f"{item.path}{colons}{rest}"


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
