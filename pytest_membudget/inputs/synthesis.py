"""Puts a synthetic file in place."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_membudget.errors import UsageError
from pytest_membudget.inputs.document import write_document
from pytest_membudget.inputs.kinds import KINDS, PARQUET
from pytest_membudget.records.files import SyntheticFile
from pytest_membudget.records.storage import replacing
from pytest_membudget.units import Size, parse_size


def synthesize(path: str | os.PathLike[str], size: Size, kind: str = "csv", seed: int = 0) -> SyntheticFile:
    """Makes a file of exactly `size` with varied, valid content; the same seed gives the same bytes.

    A file that is at `path` is replaced, whole or not at all. Parquet comes as close as its row groups allow
    (`size_bytes` is what the file really has), and its bytes also depend on the version of pyarrow.

    Raises:
        ValueError: the size cannot be read or cannot hold a valid document, or the kind is unknown.
        MissingExtraError: parquet without pyarrow.
        OSError: the file cannot be written; what was there before stays.
    """
    if kind not in KINDS:
        raise UsageError(f"{kind!r} is not a kind of synthetic file; the kinds are {', '.join(KINDS)}")
    size_bytes = parse_size(size)
    with replacing(path) as stream:
        if kind == PARQUET:
            from pytest_membudget.inputs.parquet_table import write_parquet

            rows = write_parquet(stream, size_bytes, seed)
        else:
            rows = write_document(stream, size_bytes, kind, seed)
        written_bytes = stream.tell()
    return SyntheticFile(Path(path), written_bytes, rows, kind)
