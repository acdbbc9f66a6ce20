"""The JSON schema of reports and baselines (draft 2020-12), which ships with the package as a file."""

from __future__ import annotations

import inspect
import json
from importlib import resources
from typing import Any

import msgspec

from pytest_membudget.records.report import Report

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
