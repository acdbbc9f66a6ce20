"""`membudget synthesize`: makes a file of exactly the asked size."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_membudget.cli import EXIT_OK
from pytest_membudget.inputs import KINDS, synthesize


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="the file to write; one that is there is replaced"
    )
    parser.add_argument("--size", required=True, metavar="SIZE", help='exact size, such as "20 MB" or 20MiB')
    parser.add_argument("--kind", choices=KINDS, help="what to write (what PATH ends in, else csv)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same bytes")


def run(arguments: argparse.Namespace) -> int:
    """Writes the file and says what it holds."""
    made = synthesize(arguments.path, arguments.size, arguments.kind, arguments.seed)
    print(f"{made.path}: {made.size_bytes:,} B, {made.rows:,} rows of {made.kind}")
    return EXIT_OK
