"""The JSON schema of reports and baselines (draft 2020-12), which ships with the package as a file.

After a change of the records: `python -m pytest_membudget.report.schema` writes the file again.
"""

from __future__ import annotations

import inspect
import json
from importlib import resources
from pathlib import Path
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


if __name__ == "__main__":
    Path(__file__).with_name(SCHEMA_FILE).write_text(
        json.dumps(make_schema(), indent=2) + "\n", encoding="utf-8"
    )
