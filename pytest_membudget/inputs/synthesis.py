"""Writes files of exactly the asked size: one block of varied records, repeated under new identifiers."""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from io import BytesIO
from itertools import accumulate, count
from pathlib import Path
from typing import Any, BinaryIO

from pytest_membudget.errors import MissingExtraError, UsageError
from pytest_membudget.inputs.kinds import BLOCK_MARK, CITIES, CURRENCIES, FORMATS, KINDS, PARQUET, Draw
from pytest_membudget.records.run import SyntheticFile
from pytest_membudget.records.storage import replacing
from pytest_membudget.units import Size, parse_size

BLOCK_BYTES = 512 * 1024
"""What is held in memory at a time, whatever the size of the file; about 5,000 different records."""

_FIRST_BLOCK = 100_000_000
"""Nine digits from the start, so that identifiers are as long in the last block as in the first."""

GROUP_ROWS = 2000
"""Rows of a full row group, about 140 kB: what is held in memory at a time."""
_FIRST_IDENTIFIER = 100_000_000_00000
"""Group and row make the identifier, as block and record do in the other kinds."""


def synthesize(
    path: str | os.PathLike[str], size: Size, kind: str | None = None, seed: int = 0
) -> SyntheticFile:
    """Makes a file of exactly `size` with varied, valid content; the same seed gives the same bytes.

    Without `kind` it is the one that the name of the file ends in (`payments.json`), and csv where that is none.
    A file that is at `path` is replaced, whole or not at all. The bytes of parquet also depend on the version of
    pyarrow.

    Raises:
        ValueError: the size cannot be read or cannot hold a valid document, or the kind is unknown.
        MissingExtraError: parquet without pyarrow.
        OSError: the file cannot be written; what was there before stays.
    """
    if kind is None:
        ending = Path(path).suffix.removeprefix(".").lower()
        kind = ending if ending in KINDS else "csv"
    if kind not in KINDS:
        raise UsageError(f"{kind!r} is not a kind of synthetic file; the kinds are {', '.join(KINDS)}")
    size_bytes = parse_size(size)
    with replacing(path) as stream:
        if kind == PARQUET:
            # FOLDED

            rows = write_parquet(stream, size_bytes, seed)
        else:
            rows = write_document(stream, size_bytes, kind, seed)
        written_bytes = stream.tell()
    return SyntheticFile(Path(path), written_bytes, rows, kind)


def write_document(stream: BinaryIO, size_bytes: int, kind: str, seed: int) -> int:
    """Writes a document of exactly `size_bytes` and returns how many records it holds.

    Raises:
        UsageError: the size cannot hold a valid document; names the smallest that can.
    """
    form = FORMATS[kind]
    smallest_bytes = len(form.opening) + form.smallest_closing_bytes
    if size_bytes < smallest_bytes:
        raise UsageError(
            f"{size_bytes} B cannot hold a valid {kind} file; the smallest has {smallest_bytes} B"
        )
    left_bytes = size_bytes - smallest_bytes
    pieces, ends = _block(kind, seed, min(left_bytes, BLOCK_BYTES))
    stream.write(form.opening)
    records = 0
    for number in count(_FIRST_BLOCK):
        fitting = bisect_right(ends, left_bytes)
        if not fitting:
            break
        block = str(number).encode().join(pieces)
        stream.write(memoryview(block)[: ends[fitting - 1]])
        left_bytes -= ends[fitting - 1]
        records += fitting
    stream.write(form.closing(form.smallest_closing_bytes + left_bytes).encode())
    return records + 1


def _block(kind: str, seed: int, block_bytes: int) -> tuple[list[bytes], list[int]]:
    """Records of at least `block_bytes` together, cut where the block's number goes, and where each record ends."""
    form = FORMATS[kind]
    draw = Draw(f"{kind} {seed}")
    records: list[str] = []
    held_bytes = 0
    while held_bytes <= block_bytes:
        records.append(form.record(draw, f"{BLOCK_MARK}{len(records):05d}"))
        held_bytes += len(records[-1])
    pieces = "".join(records).encode("ascii").split(BLOCK_MARK.encode())
    return pieces, list(accumulate(map(len, records)))


def write_parquet(stream: BinaryIO, size_bytes: int, seed: int) -> int:
    """Writes payments in typed columns, exactly `size_bytes`, and returns the number of rows.

    The columns are plain and uncompressed, so that size follows rows. What no further row fits into, about 2 kB at most, is padding between the rows and the footer, which readers find
    from the file's end.

    Raises:
        MissingExtraError: pyarrow is not installed.
        UsageError: the size cannot hold a file of one row; names the smallest that can.
    """
    block = _table_block(seed)
    smallest_bytes, *full = (
        _write_groups(BytesIO(), block, rows) for rows in (1, GROUP_ROWS, 2 * GROUP_ROWS)
    )
    if size_bytes < smallest_bytes:
        raise UsageError(
            f"{size_bytes} B cannot hold a valid parquet file; the smallest has {smallest_bytes} B"
        )
    row_bytes = (full[1] - full[0]) / GROUP_ROWS
    rows = 1 + int((size_bytes - smallest_bytes) / row_bytes)
    # A further row may begin a row group, which costs less than the smallest file has.
    while not 0 <= (missing_bytes := size_bytes - _write_groups(stream, block, rows)) <= smallest_bytes:
        rows = max(1, rows + math.floor(missing_bytes / row_bytes))
    _write_groups(stream, block, rows, padding_bytes=missing_bytes)
    return rows


def _write_groups(stream: BinaryIO, block: Any, rows: int, padding_bytes: int = 0) -> int:
    """Writes `rows` from the stream's start, in full row groups and a last one with what remains; returns the size."""
    from pyarrow.parquet import ParquetWriter

    stream.seek(0)
    stream.truncate()
    with ParquetWriter(stream, block.schema, compression="none", use_dictionary=False) as writer:
        for group, first in enumerate(range(0, rows, GROUP_ROWS)):
            writer.write_table(_row_group(block, group).slice(0, rows - first))
        stream.write(bytes(padding_bytes))
    return stream.tell()


def _row_group(block: Any, number: int) -> Any:
    """The block under the identifiers of row group `number`."""
    import pyarrow

    first = _FIRST_IDENTIFIER + number * 100_000
    identifiers = pyarrow.array(range(first, first + GROUP_ROWS), pyarrow.int64())
    return block.set_column(0, "id", identifiers)


def _table_block(seed: int) -> Any:
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
