"""The shell's door: `membudget COMMAND`. One file a command; only the command asked for is imported."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Collection, Sequence
from typing import Protocol, cast

from pytest_membudget._version import __version__
from pytest_membudget.cli.manner import spell_out
from pytest_membudget.errors import MembudgetError

COMMANDS: dict[str, str] = {
    "bisect": "find the commit since which a test uses more memory",
    "calibrate": "learn what a function takes per byte of its input, from runs in fresh processes",
    "completion": "print the completion script of a shell",
    "compare": "compare one report or baseline with another",
    "dask-worker": "start Dask workers that offer the memory of this host to tasks",
    "doctor": "print what this machine can measure, exactly or not, and why",
    "history": "keep the runs of CI in one file, and say which tests got worse",
    "host": "show who holds and who waits for the memory that the programs of this host share",
    "learn": "make calibrations from what Nextflow, Snakemake or Slurm recorded of finished jobs",
    "measure": "run a command and print the peak of its whole process tree",
    "report": "show a report, or write it as HTML, Markdown or JSON",
    "retry": "run inputs again that failed before, from their dead letters",
    "run": "run a command inside the memory budget that the programs of this host share",
    "size": "print what a job of Slurm, Kubernetes, Nextflow, Snakemake or Dask asks for, from a calibration",
    "synthesize": "generate a file of exactly the asked size and kind",
    "workers": "print how many workers fit beside each other, from a calibration",
}

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class Command(Protocol):
    """What a command's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the command's options."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Does the work and returns the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0 is fine, 1 the thing asked about failed, 2 usage or unreadable input."""
    words = list(sys.argv[1:] if argv is None else argv)
    spell_out(sys.stdout, sys.stderr)
    command = next((word for word in words if not word.startswith("-")), "")
    try:
        return _run(words, command)
    except (MembudgetError, ValueError) as error:
        _complain(command, str(error))
        return EXIT_USAGE
    except OSError as error:
        what = error.strerror or str(error)
        where = f"{error.filename}: " if error.filename is not None else ""
        _complain(command, where + what)
        return EXIT_USAGE
    except (
        KeyboardInterrupt
    ):  # while modules are imported as well, which takes the longest of a short command
        _complain(command, "interrupted")
        return EXIT_INTERRUPTED


def _run(words: list[str], command: str) -> int:
    parser = make_parser([command] if command in COMMANDS else [])
    arguments = parser.parse_args(words)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    return _load(command).run(arguments)


def make_parser(with_options: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser of all commands; only those of `with_options` are imported and have their options."""
    parser = argparse.ArgumentParser(
        prog="membudget", description="Memory budgets for parallel file processing."
    )
    parser.add_argument("--version", action="version", version=f"pytest-membudget {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name in with_options:
            _load(name).add_arguments(subparser)
    return parser


def _complain(command: str, text: str) -> None:
    """Says on standard error what went wrong; names of files and functions in it may hold anything."""
    from pytest_membudget.report.text import clean_text

    for line in f"membudget {command}: {text}".split("\n"):
        print(clean_text(line), file=sys.stderr)


def _load(name: str) -> Command:
    return cast("Command", importlib.import_module(f"{__name__}.{name.replace('-', '_')}"))
