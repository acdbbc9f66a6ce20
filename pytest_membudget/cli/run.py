"""`membudget run --reserve SIZE -- COMMAND`: run any command inside the memory budget that programs of this host share.

1. It reserves `--reserve` of the host's budget and waits for it.
2. It runs the command, with this process's streams, terminal and signals, and ends it at `--limit`.
3. Meanwhile what the command holds above its reservation is charged too, so that nothing else starts on it.
4. It prints the peak on standard error and passes the exit code on.

`membudget host` shows that budget: which programs hold memory of it, and which wait for it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pytest_membudget.cli import EXIT_OK, Command, say
from pytest_membudget.cli.measure import EXIT_OWN_FAILURE, peak_line
from pytest_membudget.errors import MembudgetError, OversizeError, UsageError, size_of
from pytest_membudget.measurement.fresh.command import measure_command
from pytest_membudget.measurement.fresh.guard import proven_bytes
from pytest_membudget.measurement.fresh.launcher import checked_command, launch
from pytest_membudget.measurement.process.children import children_of, descendants
from pytest_membudget.measurement.system.control_group import ControlGroup, make_control_group
from pytest_membudget.records.measurement import CommandMeasurement, CommandRun
from pytest_membudget.records.run import HostRequest, HostStatus
from pytest_membudget.records.storage import check_writable, encode_json, escape_controls, write_atomically
from pytest_membudget.report.text import clean_text
from pytest_membudget.runtime.admission.host_scope import DEFAULT_NAME, host_status
from pytest_membudget.runtime.admission.semaphore import Lease, MemorySemaphore
from pytest_membudget.units import format_count, format_duration, format_size

EXIT_NO_MEMORY = 124
"""The memory did not come free in time; `timeout` has this code for its own."""
EXIT_ENDED = 137
"""128 and SIGKILL: ended at its limit or after its time."""

CHARGE_S = 0.1
"""Seconds between two readings of what the command holds."""

GROUP_S = 0.01
"""Seconds between two readings of whether its control group is at its limit: at that it stands still."""


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "membudget run --reserve SIZE [--limit SIZE] [--budget SIZE] [--name NAME] [--timeout SECONDS] [--json FILE] "
        "-- COMMAND [ARGUMENT …]"
    )
    parser.epilog = (
        "Exit codes: the command's own; 137 when it exceeded its limit or its time, or was ended by SIGKILL; 2 when it "
        "reserves more than the budget has, or an option is wrong; 124 when the memory did not become free in time; 125 when "
        "membudget itself failed, 126 when the command may not be run, 127 when it was not found."
    )
    parser.add_argument(
        "--reserve",
        required=True,
        metavar="SIZE",
        help="memory to reserve: what the command and all that it starts will use",
    )
    parser.add_argument(
        "--limit", metavar="SIZE", help="end the command when it and all that it started use more"
    )
    parser.add_argument(
        "--budget",
        metavar="SIZE",
        help="memory that all programs may reserve together (default: this host's memory less a reserve)",
    )
    parser.add_argument("--name", default=DEFAULT_NAME, help="name of the budget (default: %(default)s)")
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="longest time to wait for the memory, and longest time to run then",
    )
    parser.add_argument("--json", metavar="FILE", help="write the result to FILE as JSON")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command, after --")


def run_run(arguments: argparse.Namespace) -> int:
    """Waits, runs, prints the peak, and passes the exit code on."""
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    reserve_bytes = size_of("--reserve", arguments.reserve)
    limit_bytes = None if arguments.limit is None else size_of("--limit", arguments.limit)
    if limit_bytes is not None and limit_bytes < reserve_bytes:
        raise UsageError(
            f"--limit is {format_size(limit_bytes)}, less than the {format_size(reserve_bytes)} of --reserve; "
            "reserve no more than it may take"
        )
    checked_command(words, limit_bytes=limit_bytes, timeout_s=arguments.timeout)
    if arguments.json:
        check_writable(arguments.json, such_as="run.json")
    semaphore = MemorySemaphore(arguments.budget, scope="host", name=arguments.name, label=" ".join(words))
    start_s = time.monotonic()
    try:
        lease = _reserve(semaphore, arguments.name, reserve_bytes, arguments.timeout)
    except TimeoutError as error:
        say("run", str(error))
        return EXIT_NO_MEMORY
    waited_s = time.monotonic() - start_s
    with lease:
        try:
            measured = _run_charged(lease, words, limit_bytes, arguments.timeout)
        except MembudgetError as error:
            say("run", str(error))
            return EXIT_OWN_FAILURE
    found = CommandRun(
        measurement=measured, reserved_bytes=reserve_bytes, limit_bytes=limit_bytes, waited_s=waited_s
    )
    _print_result(found)
    if arguments.json:
        write_atomically(arguments.json, escape_controls(encode_json(found)))
    return found.exit_code


def _reserve(semaphore: MemorySemaphore, name: str, size_bytes: int, timeout_s: float | None) -> Lease:
    try:
        at_once = semaphore.acquire_nowait(size_bytes)
    except OversizeError:
        ceiling = format_size(host_status(name).ceiling_bytes)
        raise UsageError(
            f"--reserve is {format_size(size_bytes)}, more than the budget of {ceiling} that programs share here; reserve "
            "less, or raise the smallest --budget among them"
        ) from None
    if at_once is not None:
        return at_once
    say("run", _waiting_for(size_bytes, host_status(name)))
    return semaphore.reserve(size_bytes, timeout_s)


def _waiting_for(size_bytes: int, status: HostStatus) -> str:
    holders = "; ".join(
        f"{format_size(each.bytes)} by {each.label} (pid {each.pid})" for each in status.holders[:3]
    )
    more = len(status.holders) - 3
    return (
        f"waiting for {format_size(size_bytes)}: {format_size(status.reserved_bytes)} of "
        f"{format_size(status.budget_bytes)} are reserved"
        + (f", {holders}" if holders else "")
        + (f" and {more} more" if more > 0 else "")
    )


def _run_charged(
    lease: Lease, words: Sequence[str], limit_bytes: int | None, timeout_s: float | None
) -> CommandMeasurement:
    os.environ.update(lease.environment())
    group = None if limit_bytes is None or shutil.which(words[0]) is None else make_control_group(limit_bytes)
    watch = _Watch(lease, group)
    # A signal for the command goes to a thread that does not block it: to none but the main one.
    before = _block_signals()
    watch.start()
    _restore_signals(before)
    try:
        measured = _measured(words, group, limit_bytes, timeout_s)
    finally:
        watch.stop()
        if group is not None:
            group.close()
    return _over_limit(measured, limit_bytes or 0) if watch.has_reached_limit else measured


def _measured(
    words: Sequence[str], group: ControlGroup | None, limit_bytes: int | None, timeout_s: float | None
) -> CommandMeasurement:
    if sys.platform != "linux":
        return _measured_elsewhere(words, limit_bytes, timeout_s)
    # A shell enters the group and becomes the command: what guards and measures it stays outside, and can still run.
    entering = [] if group is None else ["sh", "-c", 'echo $$ > "$0"; exec "$@"', str(group.entrance)]
    measured = measure_command(
        [*entering, *words], limit_bytes=limit_bytes, timeout_s=timeout_s, passthrough=True
    )
    return msgspec.structs.replace(measured, command=tuple(words))


def _over_limit(measured: CommandMeasurement, limit_bytes: int) -> CommandMeasurement:
    """The kernel held it at its limit, where it was ended."""
    if measured.ending is None or measured.ending.how == "over-limit":
        return measured
    ending = msgspec.structs.replace(
        measured.ending, how="over-limit", limit_bytes=limit_bytes, reached_bytes=limit_bytes
    )
    return msgspec.structs.replace(measured, ending=ending, exit_code=EXIT_ENDED)


def _measured_elsewhere(
    words: Sequence[str], limit_bytes: int | None, timeout_s: float | None
) -> CommandMeasurement:
    """Where no process tree can be measured: the limit is kept all the same, the figure is the largest process."""
    with launch(words, limit_bytes=limit_bytes, timeout_s=timeout_s, own_session=False) as job:
        ending = job.wait(passthrough=True)
        return CommandMeasurement(
            command=tuple(words),
            exit_code=ending.exit_code,
            duration_s=ending.duration_s,
            peak_bytes=job.largest_bytes,
            peak_upper_bytes=job.largest_bytes,
            processes=1,
            source="sampled",
            timed_out=ending.how == "timeout",
            ending=ending,
            caveats=("the figure is the largest single process: this system shows no process trees",),
        )


class _Watch(threading.Thread):
    """Charges what the command's tree holds above what was reserved, and ends it where its group is at its limit."""

    def __init__(self, lease: Lease, group: ControlGroup | None) -> None:
        super().__init__(name="membudget-watch", daemon=True)
        self._lease = lease
        self._group = group
        self._done = threading.Event()
        self._charged_bytes = lease.bytes
        self.has_reached_limit = False

    def stop(self) -> None:
        """Ends the thread."""
        self._done.set()
        self.join()
        if self._group is not None and not self.has_reached_limit:
            self.has_reached_limit = self._group.has_reached_limit()

    def run(self) -> None:
        """Until it is stopped."""
        charge_at_s = time.monotonic()
        while not self._done.wait(CHARGE_S if self._group is None else GROUP_S):
            if self._group is not None and self._group.has_reached_limit():
                self.has_reached_limit = True
                self._group.kill()
            if time.monotonic() >= charge_at_s:
                charge_at_s = time.monotonic() + CHARGE_S
                self._charge()

    def _charge(self) -> None:
        ours = {os.getpid(), *children_of(os.getpid())}  # the guard, and the helper that measures
        command = [pid for pid in descendants() if pid not in ours]
        held_bytes = max(self._lease.bytes, proven_bytes(command, self._lease.bytes))
        if held_bytes != self._charged_bytes:
            # The next reading tries again; the command goes on.
            with contextlib.suppress(MembudgetError, OSError):
                self._lease.charge(held_bytes)
                self._charged_bytes = held_bytes


def _block_signals() -> set[int]:
    if not hasattr(signal, "pthread_sigmask"):
        return set()
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()))


def _restore_signals(blocked: set[int]) -> None:
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _print_result(found: CommandRun) -> None:
    measured = found.measurement
    if measured.ending is not None and measured.ending.how in {"not-found", "not-runnable"}:
        say("run", f"{measured.command[0]!r} {measured.ending}")
        return
    lines = [f"{peak_line(measured)}, {format_size(found.reserved_bytes)} reserved"]
    if found.waited_s >= 1:
        lines.append(f"it waited {format_duration(found.waited_s)} for its memory")
    if measured.ending is not None and measured.ending.how not in {"exited", "signalled"}:
        lines.append(f"{Path(measured.command[0]).name} {measured.ending}")
    elif measured.peak_bytes > found.reserved_bytes:
        lines.append(
            f"it took {format_size(measured.peak_bytes - found.reserved_bytes)} more than was reserved; reserve "
            f"{format_size(measured.peak_bytes)}, or have it ended with --limit"
        )
    for line in (*lines, *measured.caveats):
        say("run", line)


def _add_host_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default=DEFAULT_NAME, help="name of the budget (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run_host(arguments: argparse.Namespace) -> int:
    """Shows the budget as it is now."""
    status = host_status(arguments.name)
    if arguments.json:
        sys.stdout.write(escape_controls(encode_json(status)).decode())
    else:
        print("\n".join(_lines(status)))
    return EXIT_OK


def _lines(status: HostStatus) -> list[str]:
    free_bytes = max(0, status.budget_bytes - status.reserved_bytes)
    first = (
        f"budget {clean_text(status.name)}: {format_size(status.budget_bytes)}, {format_size(status.reserved_bytes)} reserved, "
        f"{format_size(free_bytes)} free, {format_count(status.programs, 'program')}"
    )
    lines = [first]
    lines += [_line("holds", request) for request in status.holders]
    lines += [_line("waits", request) for request in status.waiters]
    if status.is_stalled:
        lines.append(
            f"closed: tasks stall for want of memory ({status.pressure_source}); nothing new starts beside what runs"
        )
    elif not status.pressure_source:
        lines.append("memory pressure: this kernel has no file for it; the reserve alone protects")
    return lines


def _line(what: str, request: HostRequest) -> str:
    alone = ", alone" if request.exclusive else ""
    overrun = (
        f", seen at {format_size(request.resident_bytes)}" if request.resident_bytes > request.bytes else ""
    )
    return (
        f"  {what} {format_size(request.bytes):>9}{alone}{overrun}  for {format_duration(request.age_s)}  "
        f"pid {request.pid}  {clean_text(request.label)}"
    )


COMMANDS = {
    "run": Command(_add_run_arguments, run_run),
    "host": Command(_add_host_arguments, run_host),
}
