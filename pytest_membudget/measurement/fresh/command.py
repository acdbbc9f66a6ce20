"""Measuring a command: the most that its whole process tree held, from its first instruction to its end.

1. A small process, the launcher (`command_launcher`), starts and waits.
2. A tree helper, as blocks have one (`tree.helper`), begins to watch the launcher and all below it.
3. The launcher runs the command. When it has ended, the launcher tells what the kernel knows of the command's largest
   process (`ru_maxrss`): exact for a command of one process that grew larger than the launcher, about 8 MB.
4. Both together make the figure. The launcher itself is not in it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pytest_membudget.errors import MeasurementError, UsageError
from pytest_membudget.measurement.tree.client import SamplerLostError, TreeSampler
from pytest_membudget.measurement.tree.combine import MOST_SHARES
from pytest_membudget.records.measurement import CommandMeasurement, ProcessShare, TimelinePoint

NOT_FOUND = 127
NOT_RUNNABLE = 126
SIGNALLED = 128
PATIENCE_S = 3.0

WITHOUT_HELPER = "the tree could not be watched ({}): the figure is the largest single process, by the kernel"


class _Ending(NamedTuple):
    """How the command ended.

    `most_bytes` is the kernel's figure for its largest process, which is never below `floor_bytes`, the launcher's own.
    `timed_out` tells that we ended it.
    """

    exit_code: int
    pid: int = 0
    most_bytes: int = 0
    floor_bytes: int = 0
    timed_out: bool = False


def measure_command(command: Sequence[str], *, timeout_s: float | None = None) -> CommandMeasurement:
    """Runs `command` with this process's input and output, and measures its whole tree.

    Raises:
        UsageError: there is no command.
        MeasurementError: this system has no /proc, or the launcher could not be started.
    """
    words = [os.fspath(word) for word in command]
    if not words:
        raise UsageError(
            'there is no command to measure; write it after "--": membudget measure -- python job.py'
        )
    if sys.platform != "linux":
        raise MeasurementError(
            "commands are measured on Linux only; use measure_isolated for a Python function"
        )
    with _launcher(words) as (launcher, orders, results):
        _line(results, None)
        helper, lost = _helper(launcher.pid)
        key = None if helper is None else helper.begin(answer=True)
        start_s = time.perf_counter()
        ending = _run(launcher, orders, results, timeout_s)
        duration_s = time.perf_counter() - start_s
        summary: dict[str, Any] | None = None
        if helper is not None and key is not None:
            try:
                summary = helper.end(key)
            except SamplerLostError as error:
                lost = str(error)
            helper.close()
        return _combine(tuple(words), ending, summary, launcher.pid, duration_s=duration_s, lost=lost)


@contextlib.contextmanager
def _launcher(words: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    their_orders, orders = os.pipe()
    results, their_results = os.pipe()
    script = str(Path(__file__).with_name("command_launcher.py"))
    try:
        launcher = subprocess.Popen(
            [sys.executable, "-I", "-S", script, str(their_orders), str(their_results), *words],
            pass_fds=(their_orders, their_results),
        )
    except OSError as error:
        os.close(orders)
        os.close(results)
        raise MeasurementError(f"the command could not be started: {error}") from error
    finally:
        os.close(their_orders)
        os.close(their_results)
    try:
        yield launcher, orders, results
    finally:
        os.close(orders)
        _end_tree(launcher.pid)
        launcher.wait()
        os.close(results)


def _helper(root: int) -> tuple[TreeSampler | None, str]:
    try:
        return TreeSampler(root), ""
    except SamplerLostError as error:
        return None, str(error)


def _run(launcher: subprocess.Popen[bytes], orders: int, results: int, timeout_s: float | None) -> _Ending:
    os.write(orders, b"g")
    try:
        facts = _line(results, timeout_s)
    except KeyboardInterrupt:
        # The command was told as well, by the terminal; whatever is left after its patience is killed.
        facts = _line(results, PATIENCE_S)
        if facts is None:
            _end_tree(launcher.pid, keep=launcher.pid)
        raise
    timed_out = facts is None
    if facts is None:
        _end_tree(launcher.pid, keep=launcher.pid)
        facts = _line(results, None)
    if facts is None:
        raise MeasurementError("the process that runs the command was killed itself; nothing is known of it")
    if "refused" in facts:
        missing = facts["refused"] in {errno.ENOENT, errno.ENOTDIR}
        return _Ending(NOT_FOUND if missing else NOT_RUNNABLE)
    code = os.waitstatus_to_exitcode(facts["status"])
    return _Ending(
        SIGNALLED - code if code < 0 else code, facts["pid"], facts["most"], facts["floor"], timed_out
    )


def _combine(
    command: tuple[str, ...],
    ending: _Ending,
    summary: dict[str, Any] | None,
    launcher: int,
    *,
    duration_s: float,
    lost: str,
) -> CommandMeasurement:
    kernel = ending.most_bytes if ending.most_bytes > ending.floor_bytes else 0
    low, high, processes = kernel, max(kernel, ending.most_bytes), 1
    caveats = [WITHOUT_HELPER.format(lost)] if lost else []
    shares: dict[int, int] = {}
    names: dict[str, str] = {}
    if summary is not None:
        shares = {pid: size for pid, size in summary["seen"] if pid != launcher}
        names = summary["names"]
        processes = max(1, len(shares))
        if processes > 1 or summary["missed"]:
            low = max(low, summary["peak_low"])
            high = max(low, ending.most_bytes, summary["peak_high"] + summary["start_file"])
        else:
            low = max(low, *shares.values(), 0) if shares else low
            high = max(low, ending.most_bytes)
    exact = low == high and processes == 1 and not lost
    return CommandMeasurement(
        command=command,
        exit_code=ending.exit_code,
        duration_s=duration_s,
        peak_bytes=low,
        peak_upper_bytes=high,
        processes=processes,
        source="kernel" if exact else "sampled",
        interval_s=None if exact or summary is None else summary["interval_s"],
        timed_out=ending.timed_out,
        shares=tuple(
            ProcessShare(pid, names.get(str(pid), ""), size)
            for pid, size in sorted(shares.items(), key=lambda item: -item[1])[:MOST_SHARES]
        ),
        timeline=tuple(TimelinePoint(*point) for point in summary["timeline"]) if summary else (),
        caveats=tuple(caveats),
    )


def _line(results: int, timeout_s: float | None) -> dict[str, Any] | None:
    """What the launcher says next; `None` when it says nothing in time or is gone."""
    import select

    received = b""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while not received.endswith(b"\n"):
        wait_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([results], [], [], wait_s)[0]:
            return None
        part = os.read(results, 1)
        if not part:
            return None
        received += part
    facts: dict[str, Any] = json.loads(received)
    return facts


def _end_tree(root: int, *, keep: int | None = None) -> None:
    """Kills a process and all that descend from it, but for `keep`."""
    import psutil

    with contextlib.suppress(psutil.Error):
        top = psutil.Process(root)
        for process in [*top.children(recursive=True), top]:
            if process.pid != keep:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
