"""The report as JSON, and its schema."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import msgspec

from pytest_membudget.records.report import Report
from pytest_membudget.records.report_file import encode_report

SCHEMA_FILE = "schema.json"
_ALWAYS = ["format", "version", "kind", "environment", "tests", "scales"]


def render_json(report: Report) -> bytes:
    """The report in its versioned form, one test a line."""
    return encode_report(report)


def load_schema() -> dict[str, Any]:
    """The JSON schema that ships with the package."""
    text = resources.files(__package__).joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def make_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the records as they are now; a test compares it with the file."""
    (reference,), definitions = msgspec.json.schema_components([Report], ref_template="#/$defs/{name}")
    definitions["Report"]["required"] = _ALWAYS
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pytest-membudget report or baseline",
        **reference,
        "$defs": definitions,
    }
    plain: dict[str, Any] = json.loads(json.dumps(schema))  # tuples become lists, as in the file
    return plain
