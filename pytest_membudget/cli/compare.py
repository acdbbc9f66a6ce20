"""`membudget compare`: two reports or baselines side by side, or two revisions run against each other."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys

from pytest_membudget.cli.manner import add_output_option, manner_of_stdout
from pytest_membudget.errors import UsageError
from pytest_membudget.gate.reports import compare_reports
from pytest_membudget.report.comparison import (
    render_comparison_json,
    render_comparison_markdown,
    render_comparison_terminal,
)
from pytest_membudget.report.writing import check_report_path, load_report
from pytest_membudget.units import format_count, parse_share, parse_tolerance

_DEFAULT_TOLERANCE = "10% + 1 MiB"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.usage = (
        "membudget compare BASE.json NEW.json [--tolerance …] [--format …]\n"
        "       membudget compare --revisions BASE HEAD [--error-rate 1%%] [--budget-seconds S] [-o PATH] [--json] "
        "-- PYTEST-ARGUMENTS"
    )
    parser.add_argument(
        "words",
        nargs="*",
        default=[],
        metavar="BASE NEW",
        help="two reports or baselines (JSON), or pytest's arguments after --",
    )
    parser.add_argument(
        "--tolerance",
        help='how far a median may move: a share and a size, summed (default "10%% + 1 MiB"; of revisions "3%% + 512 KiB")',
    )
    parser.add_argument(
        "--format", choices=("text", "markdown", "json"), default="text", help="default: text"
    )
    parser.add_argument(
        "--json", action="store_const", const="json", dest="format", help="the same as --format json"
    )
    revisions = parser.add_argument_group("two revisions of this git checkout")
    revisions.add_argument(
        "--revisions",
        nargs=2,
        metavar=("BASE", "HEAD"),
        help="run the tests at both, each in a folder of its own",
    )
    revisions.add_argument(
        "--error-rate",
        default="1%",
        metavar="SHARE",
        help="the most that any test of the suite is called with although it did not change (default 1%%)",
    )
    revisions.add_argument(
        "--budget-seconds",
        type=_seconds,
        metavar="S",
        help="begin no runs that would end later; what is open is inconclusive",
    )
    revisions.add_argument(
        "--stacks",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run what regressed under memray, and say which stacks grew (default)",
    )
    revisions.add_argument(
        "--setup",
        default="",
        metavar="COMMAND",
        help="run this in both folders first, such as a build of extensions",
    )
    add_output_option(revisions)


def run(arguments: argparse.Namespace) -> int:
    """Prints the comparison; 1 where a test regressed.

    Raises:
        UsageError: the reports have no test in common, or a revision cannot be run.
        UnreadableFileError: one of them is not a report.
        ValueError: the tolerance or the error rate cannot be understood.
    """
    if arguments.revisions:
        return _compare_revisions(arguments)
    if len(arguments.words) != 2:
        raise UsageError(
            f"found {format_count(len(arguments.words), 'report')}, two are compared; "
            "write: membudget compare base.json new.json, or: membudget compare --revisions BASE HEAD -- tests"
        )
    base_path, new_path = arguments.words
    tolerance_text = arguments.tolerance or _DEFAULT_TOLERANCE
    comparison = compare_reports(
        load_report(base_path),
        load_report(new_path),
        parse_tolerance(tolerance_text),
        base_path=base_path,
        new_path=new_path,
        tolerance_text=tolerance_text,
    )
    if not comparison.rows:
        raise UsageError(
            f"{base_path} and {new_path} have no measured test in common; compare two runs of the same tests"
        )
    if arguments.format == "json":
        print(render_comparison_json(comparison).decode(), end="")
    elif arguments.format == "markdown":
        print(render_comparison_markdown(comparison), end="")
    else:
        print(render_comparison_terminal(comparison, **manner_of_stdout()._asdict()), end="")
    return 1 if comparison.count("regressed") else 0


def _compare_revisions(arguments: argparse.Namespace) -> int:
    # git, pytest and statistics of pairs: what compares two files need not pay for their import.
    from pytest_membudget.gate.revisions.compare import REVISIONS_TOLERANCE
    from pytest_membudget.gate.revisions.runs import Asked, compare_revisions
    from pytest_membudget.report import revisions

    for path in arguments.output:
        check_report_path(path)
    base, head = arguments.revisions
    # Ended by a CI service, it removes its folders as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    comparison = compare_revisions(
        base,
        head,
        Asked(arguments.words, shlex.split(arguments.setup)),
        tolerance=REVISIONS_TOLERANCE
        if arguments.tolerance is None
        else parse_tolerance(arguments.tolerance),
        error_rate=parse_share(arguments.error_rate),
        budget_s=arguments.budget_seconds,
        stacks=arguments.stacks,
        progress=lambda text: print(f"membudget compare: {text}", file=sys.stderr, flush=True),
    )
    for path in arguments.output:
        revisions.write_revisions(comparison, path)
        print(f"membudget compare: wrote {path}", file=sys.stderr)
    if arguments.format == "json":
        sys.stdout.write(revisions.render_revisions_json(comparison).decode())
    elif arguments.format == "markdown":
        print(revisions.render_revisions_markdown(comparison), end="")
    else:
        print(revisions.render_revisions_terminal(comparison, **manner_of_stdout()._asdict()), end="")
    return 1 if comparison.count("regressed") else 0


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds
