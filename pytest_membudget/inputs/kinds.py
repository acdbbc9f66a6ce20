"""The kinds of file that can be made to order."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_membudget.inputs.documents import HTML, SMILES, TEXT
from pytest_membudget.inputs.format import DocumentFormat
from pytest_membudget.inputs.payments import CSV, JSON, JSONL, XML

PARQUET = "parquet"
"""The one kind that is not a row of records in text: `parquet_table` writes it by itself."""

FORMATS: Mapping[str, DocumentFormat] = {
    "csv": CSV,
    "json": JSON,
    "jsonl": JSONL,
    "xml": XML,
    "html": HTML,
    "text": TEXT,
    "smiles": SMILES,
}

KINDS: tuple[str, ...] = (*FORMATS, PARQUET)
"""Every kind that `synthesize` knows."""
