"""Writes the JSON schema anew after a change of the records: `python -m pytest_membudget.report`."""

from __future__ import annotations

import json
from pathlib import Path

from pytest_membudget.report.schema import SCHEMA_FILE, make_schema

if __name__ == "__main__":
    Path(__file__).with_name(SCHEMA_FILE).write_text(
        json.dumps(make_schema(), indent=2) + "\n", encoding="utf-8"
    )
