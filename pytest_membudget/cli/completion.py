"""`membudget completion SHELL`: the script by which a shell completes commands, options and files."""

from __future__ import annotations

import argparse

from pytest_membudget.cli import EXIT_OK, make_parser
from pytest_membudget.errors import MissingExtraError

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("shell", choices=SHELLS, help="whose script to print")


def run(arguments: argparse.Namespace) -> int:
    """Prints the script.

    Raises:
        MissingExtraError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise MissingExtraError("membudget completion", "shtab", "completion") from None
    print(shtab.complete(make_parser(), arguments.shell))
    return EXIT_OK
