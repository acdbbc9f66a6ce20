"""`membudget report`: one run in any format; `membudget history`: many runs in one file, and which tests got worse."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pytest_membudget.cli import EXIT_FAILED, EXIT_OK, Command, add_output_option, print_page, stdout_style
from pytest_membudget.gate.history import open_history
from pytest_membudget.gate.trend import TREND_TOLERANCE, find_trends
from pytest_membudget.records.report import Report
from pytest_membudget.report.history import (
    page_of_runs,
    page_of_test,
    page_of_trend,
    render_history_json,
    render_trend_json,
    write_trend,
)
from pytest_membudget.report.markdown import (
    render_annotations,
    render_badge,
    render_benchmark_json,
    render_comment,
    render_markdown,
    render_step_summary,
)
from pytest_membudget.report.terminal import render_terminal
from pytest_membudget.report.text import without_commands
from pytest_membudget.report.writing import check_report_path, load_report, render_json, write_report
from pytest_membudget.units import format_count, parse_tolerance

_FORMATS = {
    "text": "tables for a terminal",
    "markdown": "the whole report",
    "json": "the versioned report",
    "step-summary": "for $GITHUB_STEP_SUMMARY",
    "annotations": "::error lines for GitHub Actions",
    "comment": "for a pull request, with a hidden line by which it is found and replaced",
    "badge": "JSON for shields.io's endpoint badge",
    "benchmark": "customSmallerIsBetter, for github-action-benchmark",
}


def _add_history_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    adding = actions.add_parser("add", help="add reports to a history", description=_add.__doc__)
    adding.add_argument(
        "runs", nargs="+", metavar="RUN.json[=REVISION]", help="JSON reports, in the order of their revisions"
    )
    adding.add_argument(
        "--to", required=True, metavar="PATH", help="file of the history; created if it does not exist"
    )
    adding.add_argument(
        "--revision",
        default="",
        metavar="REVISION",
        help="revision of the reports that are given without one",
    )
    adding.set_defaults(act=_add)

    merging = actions.add_parser("merge", help="merge histories", description=_merge.__doc__)
    merging.add_argument("histories", nargs="+", metavar="PATH", help="histories of other machines or shards")
    merging.add_argument(
        "--into",
        required=True,
        metavar="PATH",
        help="file to merge into; created if it does not exist; may be one of the histories",
    )
    merging.set_defaults(act=_merge)

    showing = actions.add_parser("show", help="show the runs, or one test", description=_show.__doc__)
    showing.add_argument("history", metavar="PATH")
    showing.add_argument("test", nargs="?", metavar="TEST", help="a test's node id, or a part of it")
    showing.add_argument("--json", action="store_true", help="print every run and every point as JSON")
    showing.set_defaults(act=_show)

    judging = actions.add_parser("trend", help="show which tests got worse", description=_trend.__doc__)
    judging.add_argument("history", metavar="PATH")
    add_output_option(judging)
    judging.add_argument("--fail", action="store_true", help="exit with 1 if a test jumped or crept")
    judging.add_argument("--json", action="store_true", help="print the verdict on every test as JSON")
    judging.add_argument(
        "--since",
        default="",
        metavar="REVISION",
        help="report only changes after this revision or day, such as 2026-11-01",
    )
    judging.add_argument(
        "--tolerance", metavar="TOLERANCE", help='changes up to this size are ignored (default "2%% + 4 KiB")'
    )
    judging.set_defaults(act=_trend)


def run_history(arguments: argparse.Namespace) -> int:
    """Does what was asked for.

    Raises:
        UsageError: a path cannot be written, or no test has that name.
        UnreadableFileError: a file is not a report or not a history.
        OSError: a file is missing, or the disk is full; the history is as it was before then.
    """
    code: int = arguments.act(arguments)
    return code


def _add(arguments: argparse.Namespace) -> int:
    """Adds each report as a run of its revision. A run that is in the history already is not added again."""
    # All are read before one is written: a typing error in the third adds nothing.
    reports = [(load_report(path), revision) for path, revision in map(_path_and_revision, arguments.runs)]
    with open_history(arguments.to, create=True) as history:
        kept = [history.add(report, revision or arguments.revision) for report, revision in reports]
    known = len(kept) - sum(kept)
    known_text = f", {known:,} known already" if known else ""
    print(f"{arguments.to}: {format_count(sum(kept), 'run')} added{known_text}")
    return EXIT_OK


def _merge(arguments: argparse.Namespace) -> int:
    """Puts the runs of several histories into one, each once and in the order of the revisions."""
    for path in arguments.histories:
        if not Path(path).exists():
            raise FileNotFoundError(2, "there is no history here", path)
    with open_history(arguments.into, create=True) as history:
        added = 0
        for path in arguments.histories:
            if Path(path).resolve() != Path(arguments.into).resolve():
                with open_history(path) as other:
                    added += history.merge(other)
        total = len(history.runs())
    print(f"{arguments.into}: {format_count(added, 'run')} added, {total:,} in all")
    return EXIT_OK


def _show(arguments: argparse.Namespace) -> int:
    """Shows the newest runs of a history, or every run of one test."""
    with open_history(arguments.history) as history:
        runs = history.runs()
        if arguments.json:
            names = [arguments.test] if arguments.test else history.nodeids()
            tests = [history.test(name) for name in names]
            sys.stdout.write(render_history_json(arguments.history, runs, tests).decode())
        elif arguments.test:
            print_page(page_of_test(history.test(arguments.test)))
        else:
            print_page(page_of_runs(arguments.history, runs, len(history.nodeids())))
    return EXIT_OK


def _trend(arguments: argparse.Namespace) -> int:
    """Shows of each test whether it is steady, jumped at a revision, or has crept since one."""
    for path in arguments.output:
        check_report_path(path)
    tolerance = TREND_TOLERANCE if arguments.tolerance is None else parse_tolerance(arguments.tolerance)
    with open_history(arguments.history) as history:
        report = find_trends(history, arguments.history, tolerance=tolerance, since=arguments.since)
    for path in arguments.output:
        write_trend(report, path)
        if not arguments.json:
            print(f"wrote {path}")
    if arguments.json:
        sys.stdout.write(render_trend_json(report).decode())
    elif not arguments.output:
        print_page(page_of_trend(report))
    worse = report.count("jumped") + report.count("crept")
    return EXIT_FAILED if arguments.fail and worse else EXIT_OK


def _path_and_revision(text: str) -> tuple[str, str]:
    """Splits "run.json=abc123"; a file whose own name has the sign is taken by its whole name."""
    if Path(text).exists() or "=" not in text:
        return text, ""
    path, _, revision = text.rpartition("=")
    return path, revision


def _add_report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN.json", help="a report or baseline (JSON)")
    add_output_option(parser)
    parser.add_argument(
        "--format",
        choices=tuple(_FORMATS),
        help="print it as: " + "; ".join(f"{name}: {meaning}" for name, meaning in _FORMATS.items()),
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show every test and more columns (text only)"
    )


def run_report(arguments: argparse.Namespace) -> int:
    """Writes and prints what was asked for; without either, tables for the terminal.

    Raises:
        UsageError: a path cannot be written or has another ending.
        UnreadableFileError: the file is not a report.
    """
    for path in arguments.output:
        check_report_path(path)
    report = load_report(arguments.run)
    for path in arguments.output:
        write_report(report, path)
        print(f"wrote {path}")
    if arguments.format or not arguments.output:
        printed = _printed(report, arguments.format or "text", arguments.verbose)
        print(printed if arguments.format == "annotations" else without_commands(printed), end="")
    return EXIT_OK


def _printed(report: Report, form: str, verbose: bool) -> str:
    if form == "text":
        return render_terminal(report, verbose=verbose, **stdout_style()._asdict())
    documents = {"json": render_json, "benchmark": render_benchmark_json, "badge": render_badge}
    if form in documents:
        return documents[form](report).decode()
    texts = {
        "markdown": render_markdown,
        "step-summary": render_step_summary,
        "comment": render_comment,
        "annotations": render_annotations,
    }
    return texts[form](report)


COMMANDS = {
    "report": Command(_add_report_arguments, run_report),
    "history": Command(_add_history_arguments, run_history),
}
