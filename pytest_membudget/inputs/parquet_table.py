"""parquet: payments in typed columns, plain and uncompressed, so that size follows rows."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any, BinaryIO

from pytest_membudget.errors import MissingExtraError, UsageError
from pytest_membudget.inputs.kinds import CITIES, CURRENCIES, Draw

GROUP_ROWS = 2000
"""Rows of a full row group, about 140 kB: what is held in memory at a time."""

_FIRST_IDENTIFIER = 100_000_000_00000
"""Group and row make the identifier, as block and record do in the other kinds."""


def write_parquet(stream: BinaryIO, size_bytes: int, seed: int) -> int:
    """Writes a file of exactly `size_bytes` and returns its number of rows.

    What no further row fits into, about 2 kB at most, is padding between the rows and the footer, which readers find
    from the file's end.

    Raises:
        MissingExtraError: pyarrow is not installed.
        UsageError: the size cannot hold a file of one row; names the smallest that can.
    """
    block = _block(seed)
    smallest_bytes, *full = (_write(BytesIO(), block, rows) for rows in (1, GROUP_ROWS, 2 * GROUP_ROWS))
    if size_bytes < smallest_bytes:
        raise UsageError(
            f"{size_bytes} B cannot hold a valid parquet file; the smallest has {smallest_bytes} B"
        )
    row_bytes = (full[1] - full[0]) / GROUP_ROWS
    rows = 1 + int((size_bytes - smallest_bytes) / row_bytes)
    # A further row may begin a row group, which costs less than the smallest file has.
    while not 0 <= (missing_bytes := size_bytes - _write(stream, block, rows)) <= smallest_bytes:
        rows = max(1, rows + math.floor(missing_bytes / row_bytes))
    _write(stream, block, rows, padding_bytes=missing_bytes)
    return rows


def _write(stream: BinaryIO, block: Any, rows: int, padding_bytes: int = 0) -> int:
    """Writes `rows` from the stream's start, in full row groups and a last one with what remains; returns the size."""
    from pyarrow.parquet import ParquetWriter

    stream.seek(0)
    stream.truncate()
    with ParquetWriter(stream, block.schema, compression="none", use_dictionary=False) as writer:
        for group, first in enumerate(range(0, rows, GROUP_ROWS)):
            writer.write_table(_group(block, group).slice(0, rows - first))
        stream.write(bytes(padding_bytes))
    return stream.tell()


def _group(block: Any, number: int) -> Any:
    """The block under the identifiers of row group `number`."""
    import pyarrow

    first = _FIRST_IDENTIFIER + number * 100_000
    identifiers = pyarrow.array(range(first, first + GROUP_ROWS), pyarrow.int64())
    return block.set_column(0, "id", identifiers)


def _block(seed: int) -> Any:
    """A full row group of varied payments, a pyarrow table."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("a synthetic parquet file", "pyarrow", "parquet") from None
    draw = Draw(f"parquet {seed}")
    every_row = range(GROUP_ROWS)
    return pyarrow.table(
        {
            "id": pyarrow.array(every_row, pyarrow.int64()),
            "date": pyarrow.array([draw.date() for _ in every_row]).cast(pyarrow.date32()),
            "account": [f"AC{draw.whole(1000000, 9999999)}" for _ in every_row],
            "amount": [float(draw.money(100000)) for _ in every_row],
            "currency": [draw.pick(CURRENCIES) for _ in every_row],
            "city": [draw.pick(CITIES) for _ in every_row],
            "note": [draw.words(draw.whole(1, 6)) for _ in every_row],
        }
    )
