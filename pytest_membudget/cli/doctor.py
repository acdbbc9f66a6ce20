"""`membudget doctor`: what this machine can measure, exactly or not, and why."""

from __future__ import annotations

import argparse
import sys

from pytest_membudget.cli import EXIT_OK
from pytest_membudget.measurement.doctor import doctor
from pytest_membudget.measurement.tree.sampler import close_sampler
from pytest_membudget.records.storage import encode_json
from pytest_membudget.units import format_count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("--json", action="store_true", help="write the record as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Shows every finding; always fine, since a machine cannot help what it is."""
    try:
        found = doctor()
    finally:
        close_sampler()
    if arguments.json:
        sys.stdout.write(encode_json(found).decode())
        return EXIT_OK
    width = max(len(finding.subject) for finding in found.findings)
    for finding in found.findings:
        print(f"{finding.quality:8}  {finding.subject:{width}}  {finding.found}")
        print(f"{'':8}  {'':{width}}  {finding.why}")
    place = found.environment
    print(
        f"\n{place.system} {place.kernel}, {place.python}, {place.libc}, {place.allocator}, {format_count(place.cores, 'core')}"
    )
    return EXIT_OK
