"""`membudget compare BASE NEW`: two reports or baselines side by side."""

from __future__ import annotations

import argparse

from pytest_membudget.cli.manner import manner_of_stdout
from pytest_membudget.errors import UsageError
from pytest_membudget.gate.reports import compare_reports
from pytest_membudget.report.comparison import (
    render_comparison_json,
    render_comparison_markdown,
    render_comparison_terminal,
)
from pytest_membudget.report.plain_text import without_commands
from pytest_membudget.report.writing import load_report
from pytest_membudget.units import parse_tolerance

_DEFAULT_TOLERANCE = "10% + 1 MiB"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("base", metavar="BASE", help="the earlier report or baseline (JSON)")
    parser.add_argument("new", metavar="NEW", help="the later report or baseline (JSON)")
    parser.add_argument(
        "--tolerance",
        default=_DEFAULT_TOLERANCE,
        help='how far a median may rise: a share and a size, summed (default "10%% + 1 MiB")',
    )
    parser.add_argument(
        "--format", choices=("text", "markdown", "json"), default="text", help="default: text"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the comparison; 1 where a test regressed.

    Raises:
        UsageError: the reports have no test in common.
        UnreadableFileError: one of them is not a report.
        ValueError: the tolerance cannot be understood.
    """
    tolerance = parse_tolerance(arguments.tolerance)
    comparison = compare_reports(
        load_report(arguments.base),
        load_report(arguments.new),
        tolerance,
        base_path=arguments.base,
        new_path=arguments.new,
        tolerance_text=arguments.tolerance,
    )
    if not comparison.rows:
        raise UsageError(
            f"{arguments.base} and {arguments.new} have no measured test in common; "
            "compare two runs of the same tests"
        )
    if arguments.format == "json":
        print(render_comparison_json(comparison).decode(), end="")
    elif arguments.format == "markdown":
        print(without_commands(render_comparison_markdown(comparison)), end="")
    else:
        print(render_comparison_terminal(comparison, **manner_of_stdout()._asdict()), end="")
    return 1 if comparison.count("regressed") else 0
