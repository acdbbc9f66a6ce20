"""Reports written to and read from files; the format follows the file's ending."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_membudget.errors import UsageError
from pytest_membudget.records.report import Report, encode_report, read_report
from pytest_membudget.records.storage import check_writable, write_atomically
from pytest_membudget.report.markdown import render_markdown

ENDINGS = (".md", ".json", ".html")


def write_report(report: Report, path: str | os.PathLike[str]) -> None:
    """Writes `report` as Markdown, JSON or HTML, whole or not at all; makes the folder where it is missing.

    Raises:
        UsageError: `path` has another ending.
        OSError: the folder cannot be made, is not writable or full.
    """
    ending = _ending(path)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if ending == ".html":
        # jinja2 takes 50 ms to import, which only a page need pay.
        from pytest_membudget.report.html import render_html

        write_atomically(path, render_html(report))
    elif ending == ".md":
        write_atomically(path, render_markdown(report))
    else:
        write_atomically(path, render_json(report))


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
