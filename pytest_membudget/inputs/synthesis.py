"""Writes files of exactly the asked size: one block of varied records, repeated under new identifiers."""

from __future__ import annotations

import os
from bisect import bisect_right
from itertools import accumulate, count
from pathlib import Path
from typing import BinaryIO

from pytest_membudget.errors import UsageError
from pytest_membudget.inputs.kinds import BLOCK_MARK, FORMATS, KINDS, PARQUET, Draw
from pytest_membudget.records.run import SyntheticFile
from pytest_membudget.records.storage import replacing
from pytest_membudget.units import Size, parse_size

BLOCK_BYTES = 512 * 1024
"""What is held in memory at a time, whatever the size of the file; about 5,000 different records."""

_FIRST_BLOCK = 100_000_000
"""Nine digits from the start, so that identifiers are as long in the last block as in the first."""


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
            from pytest_membudget.inputs.parquet_table import write_parquet

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
