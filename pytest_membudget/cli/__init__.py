"""The shell's way in: `membudget COMMAND`. One file for each subject; only the file of the command asked for is imported."""

from __future__ import annotations

import argparse
import codecs
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple, TextIO

from pytest_membudget._version import __version__
from pytest_membudget.errors import MembudgetError

if TYPE_CHECKING:
    from pytest_membudget.report.page import Page

COMMANDS: dict[str, tuple[str, str]] = {
    "bisect": ("compare", "find the commit since which a test uses more memory"),
    "calibrate": (
        "calibrate",
        "measure how much memory a function uses per byte of its input, in fresh processes",
    ),
    "compare": ("compare", "compare two reports or baselines, or two revisions of this checkout"),
    "dask-worker": ("executors", "start Dask workers that offer the memory of this host to tasks"),
    "doctor": ("measure", "print what this machine can measure, how exactly, and why"),
    "history": ("reports", "keep the results of CI runs in one file, and show which tests got worse"),
    "host": (
        "run",
        "show which programs hold memory of the budget that this host's programs share, and which wait for it",
    ),
    "learn": (
        "calibrations",
        "make calibrations from the records that Nextflow, Snakemake or Slurm keep of finished jobs",
    ),
    "measure": ("measure", "run a command and print the peak of its whole process tree"),
    "report": ("reports", "show a report, or write it as HTML, Markdown or JSON"),
    "retry": ("executors", "run the failed inputs of a dead-letter file again"),
    "run": ("run", "run a command within the memory budget that this host's programs share"),
    "size": (
        "calibrations",
        "print the memory request of a job for Slurm, Kubernetes, Nextflow, Snakemake or Dask, from a calibration",
    ),
    "synthesize": ("calibrate", "generate a file of an exact size"),
    "workers": ("calibrations", "print how many workers fit into memory together, from a calibration"),
}
"""The file of each command, and what it does."""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_HANDLER = "membudget-spell-out"


class Command(NamedTuple):
    """What a file offers of each of its commands."""

    add_arguments: Callable[[argparse.ArgumentParser], None]
    """Declares its options."""
    run: Callable[[argparse.Namespace], int]
    """Does the work and returns the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0 is fine, 1 the thing asked about failed, 2 usage or unreadable input."""
    words = list(sys.argv[1:] if argv is None else argv)
    spell_out(sys.stdout, sys.stderr)
    command = next((word for word in words if not word.startswith("-")), "")
    try:
        return _run(words, command)
    except (MembudgetError, ValueError) as error:
        say(command, str(error))
        return EXIT_USAGE
    except OSError as error:
        what = error.strerror or str(error)
        where = f"{error.filename}: " if error.filename is not None else ""
        say(command, where + what)
        return EXIT_USAGE
    except KeyboardInterrupt:  # also while modules are imported, which takes the longest of a short command
        say(command, "interrupted")
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
    for name, (_, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name in with_options:
            _load(name).add_arguments(subparser)
    return parser


def say(command: str, text: str) -> None:
    """Prints a message on standard error under the command's name; names of files in it may hold control characters."""
    from pytest_membudget.report.text import clean_text

    for line in f"membudget {command}: {text}".split("\n"):
        print(clean_text(line), file=sys.stderr, flush=True)


def _load(name: str) -> Command:
    commands: dict[str, Command] = importlib.import_module(f"{__name__}.{COMMANDS[name][0]}").COMMANDS
    return commands[name]


class OutputStyle(NamedTuple):
    """What a renderer for terminals wants to know."""

    width: int
    color: bool
    ascii_only: bool


def stdout_style() -> OutputStyle:
    """Colours on terminals alone and never with NO_COLOR; plain ASCII where the encoding lacks our signs."""
    on_terminal = sys.stdout.isatty()
    try:
        "–±".encode(sys.stdout.encoding or "ascii")
        ascii_only = False
    except (UnicodeEncodeError, LookupError):
        ascii_only = True
    return OutputStyle(
        width=shutil.get_terminal_size((80, 24)).columns if on_terminal else 80,
        color=on_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        ascii_only=ascii_only,
    )


def print_page(page: Page, *, markdown: bool = False) -> None:
    """Prints the page laid out for this terminal, or as Markdown."""
    from pytest_membudget.report.markdown import markdown_page
    from pytest_membudget.report.terminal import lay_out_page

    text = markdown_page(page) if markdown else lay_out_page(page, **stdout_style()._asdict())
    sys.stdout.write(text)


def add_output_option(parser: argparse._ActionsContainer) -> None:
    """`--output PATH`, of commands whose result has several formats."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        action="append",
        default=[],
        help="write the result to PATH, in the format of its ending: .html, .md or .json; may be given more than once",
    )


def spell_out(*streams: TextIO) -> None:
    """Has the streams write in ASCII what their encoding lacks, rather than raise once an hour of runs is over."""
    codecs.register_error(_HANDLER, _in_ascii)
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and stream.errors == "strict":
            reconfigure(errors=_HANDLER)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """One sign in the place of one that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    from pytest_membudget.report.text import clean_text

    return clean_text(error.object[error.start], ascii_only=True), error.start + 1
