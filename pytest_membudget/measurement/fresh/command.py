"""Measuring a command: the most that its whole process tree held, from its first instruction to its end.

1. `launcher.launch` starts a guard, which waits.
2. A tree helper, as blocks have one (`tree.helper`), begins to watch the guard and all below it.
3. The guard runs the command. When that has ended, it sends what the kernel knows of the command's largest process
   (`ru_maxrss`): exact for a command of one process that grew larger than the guard, about 10 MB.
4. Both together make the figure. The guard itself is not in it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pytest_membudget.errors import MeasurementError
from pytest_membudget.measurement.fresh.launcher import Launched, checked_command, launch
from pytest_membudget.measurement.process.children import runs_with_others
from pytest_membudget.measurement.system.control_group import group_statistics
from pytest_membudget.measurement.tree.combine import MOST_SHARES
from pytest_membudget.measurement.tree.helper.messages import Summary
from pytest_membudget.measurement.tree.helper.shared_memory import SharedReader
from pytest_membudget.measurement.tree.sampler import SamplerLostError, TreeSampler
from pytest_membudget.records.measurement import (
    Caveat,
    CommandMeasurement,
    Ending,
    ProcessShare,
    TimelinePoint,
)

PATIENCE_S = 3.0
"""How long a command may go on after Ctrl-C, which the terminal has sent to it as well."""


def measure_command(
    command: Sequence[str],
    *,
    timeout_s: float | None = None,
    limit_bytes: int | None = None,
    passthrough: bool = False,
    keep_rest: bool = False,
) -> CommandMeasurement:
    """Runs `command` with this process's input, output and terminal, and measures its whole tree.

    Args:
        command: the program and its arguments.
        timeout_s: the most that it may take.
        limit_bytes: the most that its whole tree may hold; it is ended when it is proven to hold more.
        passthrough: send signals that this process gets on to the command, as if the command were in its place.
        keep_rest: leave what outlives the command running; without, it is ended.

    Raises:
        UsageError: there is no command, or a limit is no number above 0.
        MeasurementError: this system has no /proc, or nothing can be started.
    """
    words = checked_command(command, limit_bytes=limit_bytes, timeout_s=timeout_s)
    if sys.platform != "linux":
        raise MeasurementError(
            "commands are measured on Linux only; use measure_isolated for a Python function"
        )
    with launch(
        words, limit_bytes=limit_bytes, timeout_s=timeout_s, own_session=False, held=True, keep_rest=keep_rest
    ) as launched:
        launched.poll(0)
        helper, lost = _helper(launched.root)
        key: int | None = None
        summary: Summary | None = None
        try:
            if helper is not None:
                key = helper.begin(shared=SharedReader(group_statistics()).read())
        except SamplerLostError as error:
            lost = str(error)
        try:
            launched.start()
            ending = _wait(launched, passthrough=passthrough)
            if helper is not None and key is not None:
                summary = helper.end(key)
        except SamplerLostError as error:
            lost = str(error)
        finally:
            if helper is not None:
                helper.close()
        return _combine(tuple(words), ending, summary, launched, lost=lost)


def _wait(launched: Launched, *, passthrough: bool) -> Ending:
    try:
        return launched.wait(passthrough=passthrough)
    except KeyboardInterrupt:
        launched.poll(PATIENCE_S)
        raise


def _helper(root: int) -> tuple[TreeSampler | None, str]:
    try:
        return TreeSampler(root), ""
    except SamplerLostError as error:
        return None, str(error)


def _combine(
    command: tuple[str, ...],
    ending: Ending,
    summary: Summary | None,
    launched: Launched,
    *,
    lost: str,
) -> CommandMeasurement:
    largest_bytes = launched.largest_bytes
    kernel = largest_bytes if largest_bytes > launched.floor_bytes else 0
    low, high, processes = kernel, largest_bytes, 1
    caveats = [Caveat("command-not-watched", detail=lost)] if lost else []
    shares: dict[int, int] = {}
    names: dict[int, str] = {}
    if summary is not None:
        shares = {pid: size for pid, size in summary.seen if pid != launched.root}
        names = dict(summary.names)
        processes = max(1, len(shares))
        # What the guard maps of files at the start is in no figure of the tree above its start.
        tree_high_bytes = summary.peak_high_bytes + summary.start_file_bytes
        if processes > 1 or summary.missed_bytes:
            low = max(low, summary.peak_low_bytes)
            high = max(low, largest_bytes, tree_high_bytes)
        else:
            low = max(low, *shares.values(), 0) if shares else low
            high = max(low, min(largest_bytes, tree_high_bytes))
    shared_bytes = summary.shared_high_bytes if summary else 0
    if shared_bytes and not runs_with_others([launched.root, *shares]):
        low = max(low, summary.shared_total_low_bytes if summary else 0)
    elif shared_bytes:
        caveats.append(Caveat("shared-not-attributed", shared_bytes))
    high = max(low, high + shared_bytes)
    exact = kernel > 0 and low == high and processes == 1 and not lost and not shared_bytes
    return CommandMeasurement(
        command=command,
        exit_code=ending.exit_code,
        duration_s=ending.duration_s,
        peak_bytes=low,
        peak_upper_bytes=high,
        processes=processes,
        source="kernel" if exact else "sampled",
        interval_s=None if exact or summary is None else summary.interval_s,
        timed_out=ending.how == "timeout",
        ending=ending,
        shares=tuple(
            ProcessShare(pid, names.get(pid, ""), size)
            for pid, size in sorted(shares.items(), key=lambda item: -item[1])[:MOST_SHARES]
        ),
        timeline=tuple(TimelinePoint(*point) for point in summary.timeline) if summary else (),
        caveats=tuple(map(str, caveats)),
    )
