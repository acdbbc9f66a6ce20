"""The kinds of file that can be made to order, one module each."""

from __future__ import annotations

import importlib
from typing import cast

from pytest_membudget.inputs.format import DocumentFormat

PARQUET = "parquet"
"""The one kind that is not a row of records in text: `parquet_table` writes it by itself."""

_MODULE_OF = {
    "csv": "csv_table",
    "json": "json_array",
    "jsonl": "json_lines",
    "xml": "xml_records",
    "html": "html_tables",
    "text": "text_report",
    "smiles": "smiles_rows",
}

KINDS: tuple[str, ...] = (*_MODULE_OF, PARQUET)
"""Every kind that `synthesize` knows."""


def document_format(kind: str) -> DocumentFormat:
    """How a document of `kind`, one of `KINDS` but parquet, is written."""
    return cast("DocumentFormat", importlib.import_module(f"{__name__}.{_MODULE_OF[kind]}"))
