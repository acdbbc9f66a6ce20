"""Reports written to and read from files; the format follows the file's ending. With the JSON schema of reports and baselines.

The schema (draft 2020-12) ships with the package as a file. After a change of the records
`python -m pytest_membudget.report.writing` writes it again.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

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
        as_json=lambda: render_json(report),
    )


def write_in_format(
    path: str | os.PathLike[str],
    *,
    html: Callable[[], str],
    page: Callable[[], Page],
    as_json: Callable[[], bytes],
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
        write_atomically(path, markdown_page(page()) if ending == ".md" else as_json())
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


SCHEMA_FILE = "schema.json"
_ALWAYS = ["format", "version", "kind", "environment", "tests", "scales"]

SCHEMA: dict[str, Any] = json.loads(
    resources.files(__package__).joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
)


def make_schema() -> dict[str, Any]:
    """The schema of the records as they are now; a test compares it with the file."""
    (reference,), definitions = msgspec.json.schema_components([Report], ref_template="#/$defs/{name}")
    definitions["Report"]["required"] = _ALWAYS
    for definition in definitions.values():
        # Python 3.13 takes the indentation out of docstrings, older ones leave it in.
        definition["description"] = inspect.cleandoc(definition["description"])
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pytest-membudget report or baseline",
        **reference,
        "$defs": definitions,
    }
    plain: dict[str, Any] = json.loads(json.dumps(schema))  # tuples become lists, as in the file
    return plain


if __name__ == "__main__":
    Path(__file__).with_name(SCHEMA_FILE).write_text(
        json.dumps(make_schema(), indent=2) + "\n", encoding="utf-8"
    )
