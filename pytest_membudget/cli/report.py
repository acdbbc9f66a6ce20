"""`membudget report RUN.json`: a report shown, written in another format, or told to a CI service."""

from __future__ import annotations

import argparse

from pytest_membudget.cli.manner import add_output_option, manner_of_stdout
from pytest_membudget.records.report import Report
from pytest_membudget.report.ci import (
    render_annotations,
    render_badge,
    render_benchmark_json,
    render_comment,
    render_step_summary,
)
from pytest_membudget.report.markdown import render_markdown
from pytest_membudget.report.terminal import render_terminal
from pytest_membudget.report.text import without_commands
from pytest_membudget.report.writing import check_report_path, load_report, render_json, write_report

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("run", metavar="RUN.json", help="a report or baseline")
    add_output_option(parser)
    parser.add_argument(
        "--format",
        choices=tuple(_FORMATS),
        help="print it: " + "; ".join(f"{name}: {meaning}" for name, meaning in _FORMATS.items()),
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="every test and more columns (text)")


def run(arguments: argparse.Namespace) -> int:
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
    return 0


def _printed(report: Report, form: str, verbose: bool) -> str:
    if form == "text":
        return render_terminal(report, verbose=verbose, **manner_of_stdout()._asdict())
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
