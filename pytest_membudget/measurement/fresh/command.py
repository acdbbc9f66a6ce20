"""Measuring a command: the most that its whole process tree held, from its first instruction to its end.

1. `launcher.launch` starts a guard, which waits.
2. A tree helper, as blocks have one (`tree.helper`), begins to watch the guard and all below it.
3. The guard runs the command. When that has ended, it sends what the kernel knows of the command's largest process
   (`ru_maxrss`): exact for a command of one process that grew larger than the guard, about 10 MB.
4. Both together make the figure. The guard itself is not in it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

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
from pytest_membudget.units import format_duration

AFTER_INTERRUPT_S = 3.0
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
        with contextlib.closing(_TreeWatch(launched.root)) as watch:
            launched.start()
            ending = _wait(launched, passthrough=passthrough)
            watch.end()
        return _combine(tuple(words), ending, watch.summary, launched, lost=watch.lost)


class _TreeWatch:
    """A helper for the tree below `root`, from now on until `end`: what it saw, or how it was lost."""

    def __init__(self, root: int) -> None:
        self.summary: Summary | None = None
        self.lost = ""
        self._helper: TreeSampler | None = None
        self._key: int | None = None
        with self._loss_kept():
            self._helper = TreeSampler(root)
            self._key = self._helper.begin(shared=SharedReader(group_statistics()).read())

    def end(self) -> None:
        """The tree has ended."""
        if self._helper is not None and self._key is not None:
            with self._loss_kept():
                self.summary = self._helper.end(self._key)

    def close(self) -> None:
        """Ends the helper."""
        if self._helper is not None:
            self._helper.close()

    @contextlib.contextmanager
    def _loss_kept(self) -> Iterator[None]:
        try:
            yield
        except SamplerLostError as error:
            self.lost = str(error)


def _wait(launched: Launched, *, passthrough: bool) -> Ending:
    try:
        return launched.wait(passthrough=passthrough)
    except KeyboardInterrupt:
        launched.poll(AFTER_INTERRUPT_S)
        raise


class _Bounds(NamedTuple):
    """What the command's processes held together: proven, and possible."""

    low_bytes: int
    high_bytes: int


def _combine(
    command: tuple[str, ...],
    ending: Ending,
    summary: Summary | None,
    launched: Launched,
    *,
    lost: str,
) -> CommandMeasurement:
    """One measurement of what the kernel and the helper say; `summary` is `None` where the helper is `lost`."""
    shares = {} if summary is None else {pid: size for pid, size in summary.seen if pid != launched.root}
    processes = max(1, len(shares))
    low, high = _mapped(shares, summary, launched)
    caveats = [Caveat("command-not-watched", detail=lost)] if lost else []
    shared_bytes = 0 if summary is None else summary.shared_high_bytes
    if summary is not None and shared_bytes:
        if runs_with_others([launched.root, *shares]):
            caveats.append(Caveat("shared-not-attributed", shared_bytes))
        else:
            low = max(low, summary.shared_total_low_bytes)
    high = max(low, high + shared_bytes)
    is_known = _proven_by_kernel(launched) > 0
    is_exact = is_known and low == high and processes == 1 and not lost and not shared_bytes
    if summary is not None and processes == 1 and not is_known and low < high / 2:
        interval = format_duration(summary.interval_s or 0.0)
        caveats.append(Caveat("command-below-launcher", launched.floor_bytes, interval))
    return CommandMeasurement(
        command=command,
        exit_code=ending.exit_code,
        duration_s=ending.duration_s,
        peak_bytes=low,
        peak_upper_bytes=high,
        processes=processes,
        source="kernel" if is_exact else "sampled",
        interval_s=None if is_exact or summary is None else summary.interval_s,
        timed_out=ending.how == "timeout",
        ending=ending,
        shares=_largest_shares(shares, summary),
        timeline=tuple(TimelinePoint(*point) for point in summary.timeline) if summary else (),
        caveats=tuple(map(str, caveats)),
    )


def _proven_by_kernel(launched: Launched) -> int:
    """The most that the largest process held; 0 where that may be what the guard held before it became the command."""
    return launched.largest_bytes if launched.largest_bytes > launched.floor_bytes else 0


def _mapped(shares: dict[int, int], summary: Summary | None, launched: Launched) -> _Bounds:
    """What the processes held together, without shared memory that none of them maps."""
    low, largest_bytes = _proven_by_kernel(launched), launched.largest_bytes
    if summary is None:
        return _Bounds(low, largest_bytes)
    # What the guard maps of files at the start is in no figure of the tree above its start.
    tree_high_bytes = summary.peak_high_bytes + summary.start_file_bytes
    if len(shares) > 1 or summary.missed_bytes:
        low = max(low, summary.peak_low_bytes)
        return _Bounds(low, max(low, largest_bytes, tree_high_bytes))
    low = max(low, *shares.values(), 0)
    return _Bounds(low, max(low, min(largest_bytes, tree_high_bytes)))


def _largest_shares(shares: dict[int, int], summary: Summary | None) -> tuple[ProcessShare, ...]:
    names = {} if summary is None else dict(summary.names)
    largest = sorted(shares.items(), key=lambda share: -share[1])[:MOST_SHARES]
    return tuple(ProcessShare(pid, names.get(pid, ""), size) for pid, size in largest)
