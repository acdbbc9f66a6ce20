"""`membudget compare`: two reports or baselines, or two revisions run against each other; `membudget bisect`: the commit between two."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from functools import partial
from pathlib import Path

import msgspec

from pytest_membudget.cli import EXIT_FAILED, EXIT_OK, Command, add_output_option, print_page, say
from pytest_membudget.errors import MeasurementError, UsageError
from pytest_membudget.gate.baseline import compare_reports
from pytest_membudget.gate.revisions.compare import REVISIONS_TOLERANCE, bisect
from pytest_membudget.gate.revisions.git import (
    commit_of,
    commits_between,
    find_repository,
    subject_of,
)
from pytest_membudget.gate.revisions.runs import RunRequest, compare_revisions, prepared_side
from pytest_membudget.records.comparison import Bisection
from pytest_membudget.records.storage import encode_json, working_folder
from pytest_membudget.report import comparisons
from pytest_membudget.report.text import clean_text
from pytest_membudget.report.writing import check_report_path, load_report
from pytest_membudget.units import format_count, format_size, parse_share, parse_tolerance

_DEFAULT_TOLERANCE = "10% + 1 MiB"


def _add_compare_arguments(parser: argparse.ArgumentParser) -> None:
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
        help='how much a median may change: a percentage plus a size (default "10%% + 1 MiB"; for revisions "3%% + 512 KiB")',
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
        help="run the tests at both revisions, each in a worktree of its own",
    )
    revisions.add_argument(
        "--error-rate",
        default="1%",
        metavar="PERCENT",
        help="highest probability that any test of the suite is reported although it did not change (default: 1%%)",
    )
    revisions.add_argument(
        "--budget-seconds",
        type=_seconds,
        metavar="S",
        help="start no runs that would end after S seconds; tests without a result by then are inconclusive",
    )
    revisions.add_argument(
        "--stacks",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run regressed tests again under memray, and show which call stacks grew (default)",
    )
    revisions.add_argument(
        "--setup",
        default="",
        metavar="COMMAND",
        help="command to run in both worktrees first, such as a build of extensions",
    )
    add_output_option(revisions)


def run_compare(arguments: argparse.Namespace) -> int:
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
        sys.stdout.write(comparisons.render_comparison_json(comparison).decode())
    else:
        print_page(comparisons.page_of_reports(comparison), markdown=arguments.format == "markdown")
    return EXIT_FAILED if comparison.count("regressed") else EXIT_OK


def _compare_revisions(arguments: argparse.Namespace) -> int:
    for path in arguments.output:
        check_report_path(path)
    base, head = arguments.revisions
    # Ended by a CI service, it removes its folders as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    comparison = compare_revisions(
        base,
        head,
        RunRequest(arguments.words, shlex.split(arguments.setup)),
        tolerance=REVISIONS_TOLERANCE
        if arguments.tolerance is None
        else parse_tolerance(arguments.tolerance),
        error_rate=parse_share(arguments.error_rate),
        budget_s=arguments.budget_seconds,
        stacks=arguments.stacks,
        progress=partial(say, "compare"),
    )
    for path in arguments.output:
        comparisons.write_revisions(comparison, path)
        say("compare", f"wrote {path}")
    if arguments.format == "json":
        sys.stdout.write(comparisons.render_revisions_json(comparison).decode())
    else:
        print_page(comparisons.page_of_revisions(comparison), markdown=arguments.format == "markdown")
    return EXIT_FAILED if comparison.count("regressed") else EXIT_OK


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _add_bisect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "test", metavar="TEST", help="node id of the test, such as tests/test_load.py::test_load"
    )
    parser.add_argument("good", metavar="GOOD", help="a revision that used less")
    parser.add_argument("bad", metavar="BAD", help="a later revision that uses more")
    parser.add_argument(
        "words", nargs="*", default=[], metavar="ARGUMENTS", help="further arguments for pytest, after --"
    )
    parser.add_argument(
        "--setup",
        default="",
        metavar="COMMAND",
        help="command to run at each commit first, such as a build of extensions",
    )
    parser.add_argument("--json", action="store_true", help="print the commit and all runs as JSON")


def run_bisect(arguments: argparse.Namespace) -> int:
    """Prints the commit; 1 where both ends cannot be distinguished.

    Raises:
        UsageError: no such revisions, or pytest cannot run there.
    """
    repository = find_repository(Path.cwd())
    good, bad = (commit_of(repository, name) for name in (arguments.good, arguments.bad))
    commits = [good, *commits_between(repository, good, bad)]
    if len(commits) < 2:
        raise UsageError(f"{arguments.good} and {arguments.bad} are the same commit")
    request = RunRequest([arguments.test, *arguments.words], shlex.split(arguments.setup))
    # Ended by a CI service, it removes its folders as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with working_folder("revisions") as folder:
        sides = {}

        def measure(commit: str) -> int | None:
            if commit not in sides:
                sides[commit] = prepared_side(
                    repository, commit, folder / commit, request=request, progress=partial(say, "bisect")
                )
            try:
                peaks = sides[commit].run(None, seed=1)
            except UsageError:
                return None  # it cannot be collected at this commit: skipped, as git bisect does
            if len(peaks) > 1:
                raise UsageError(
                    f"{arguments.test} is {len(peaks)} tests; name one of them, such as {next(iter(peaks))}"
                )
            return next(iter(peaks.values()), None)

        try:
            found = bisect(commits, measure)
        except MeasurementError as error:
            say("bisect", str(error))
            return EXIT_FAILED
    subject = clean_text(subject_of(repository, found.commit))
    if arguments.json:
        named = msgspec.structs.replace(found, nodeid=arguments.test, subject=subject)
        sys.stdout.write(encode_json(named).decode())
    else:
        print(_shown(found, subject, len(commits) - 1))
    return EXIT_OK


def _shown(found: Bisection, subject: str, commits: int) -> str:
    change = (found.after_bytes - found.before_bytes) / found.before_bytes if found.before_bytes else 0.0
    lines = [
        f"{found.commit} {subject}",
        f"  {format_size(found.before_bytes)} before it, {format_size(found.after_bytes)} with it ({100 * change:+.1f}%)",
        f"  found among {format_count(commits, 'commit')} in {format_count(found.runs, 'run')}",
        *(f"  note: {caveat}" for caveat in found.caveats),
    ]
    return "\n".join(lines)


COMMANDS = {
    "bisect": Command(_add_bisect_arguments, run_bisect),
    "compare": Command(_add_compare_arguments, run_compare),
}
