"""`membudget host`: which programs hold memory of the budget that this host's programs share, and which wait for it."""

from __future__ import annotations

import argparse
import sys

from pytest_membudget.cli import EXIT_OK
from pytest_membudget.records.host import HostRequest, HostStatus
from pytest_membudget.records.storage import encode_json, escape_controls
from pytest_membudget.report.text import clean_text
from pytest_membudget.runtime.admission.host_scope import DEFAULT_NAME, host_status
from pytest_membudget.units import format_count, format_duration, format_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("--name", default=DEFAULT_NAME, help="which budget (%(default)s)")
    parser.add_argument("--json", action="store_true", help="write the record as JSON")


def run(arguments: argparse.Namespace) -> int:
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
