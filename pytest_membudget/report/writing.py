"""Reports written to and read from files; the format follows the file's ending."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pytest_membudget.errors import UsageError
from pytest_membudget.records.report import Report, encode_report, read_report
from pytest_membudget.records.storage import check_writable, write_atomically
from pytest_membudget.report.html import render_html
from pytest_membudget.report.markdown import markdown_page
from pytest_membudget.report.page import Page, make_page

ENDINGS = (".md", ".json", ".html")


def write_report(report: Report, path: str | os.PathLike[str]) -> None:
    """Writes `report` as Markdown, JSON or HTML, whole or not at all; makes the folder where it is missing.

    Raises:
        UsageError: `path` has another ending.
        OSError: the folder cannot be made, is not writable or full.
    """
    _ending(path)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_in_format(
        path,
        html=lambda: render_html(report),
        page=lambda: make_page(report, verbose=True),
        json=lambda: render_json(report),
    )


def write_in_format(
    path: str | os.PathLike[str],
    *,
    html: Callable[[], str],
    page: Callable[[], Page],
    json: Callable[[], bytes],
) -> str:
    """Writes what the ending of `path` asks for, whole or not at all, and returns that ending; a page becomes Markdown.

    Raises:
        UsageError: `path` has another ending.
        OSError: the folder is missing, not writable or full.
    """
    ending = _ending(path)
    if ending == ".html":
        write_atomically(path, html())
    else:
        write_atomically(path, markdown_page(page()) if ending == ".md" else json())
    return ending


def check_report_path(path: str | os.PathLike[str]) -> None:
    """Fails now where `write_report` would fail after an hour of tests.

    Raises:
        UsageError: another ending, or a folder that cannot be made or written to.
    """
    check_writable(path, such_as=f"report{_ending(path)}")


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


def render_json(report: Report) -> bytes:
    """The report in its versioned form, one test a line."""
    return encode_report(report)
