"""Reports written to and read from files; the format follows the file's ending."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from pytest_membudget.errors import MissingExtraError, UsageError
from pytest_membudget.records.report import Report
from pytest_membudget.records.report_file import read_report
from pytest_membudget.records.storage import check_writable, write_atomically
from pytest_membudget.report.json_report import render_json
from pytest_membudget.report.markdown import render_markdown

ENDINGS = (".md", ".json", ".html")


def write_report(report: Report, path: str | os.PathLike[str]) -> None:
    """Writes `report` as Markdown, JSON or HTML, whole or not at all.

    Raises:
        UsageError: `path` has another ending.
        MissingExtraError: HTML was asked for and its libraries are missing.
        OSError: the folder is missing, not writable or full.
    """
    ending = _ending(path)
    if ending == ".html":
        # jinja2 and matplotlib are loaded only by those who want a page.
        from pytest_membudget.report.html import render_html

        write_atomically(path, render_html(report))
    elif ending == ".md":
        write_atomically(path, render_markdown(report))
    else:
        write_atomically(path, render_json(report))


def check_report_path(path: str | os.PathLike[str]) -> None:
    """Fails now where `write_report` would fail after an hour of tests.

    Raises:
        UsageError: another ending, or a folder that is missing or cannot be written to.
        MissingExtraError: HTML was asked for and its libraries are missing.
    """
    ending = _ending(path)
    check_writable(path, such_as=f"report{ending}")
    if ending == ".html":
        for library in ("jinja2", "matplotlib"):
            if importlib.util.find_spec(library) is None:
                raise MissingExtraError("an HTML report", library, "html")


def load_report(path: str | os.PathLike[str]) -> Report:
    """The report or baseline at `path`.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: it is not a report, truncated, of a newer version, or holds impossible values.
    """
    return read_report(path)


def _ending(path: str | os.PathLike[str]) -> str:
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise UsageError(
            f"{os.fspath(path)!r} ends in none of {', '.join(ENDINGS)}; write report.html, for example"
        )
    return ending
