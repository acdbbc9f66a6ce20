"""Fills exactly the asked size with records: one block of varied records, repeated under new identifiers."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, count
from typing import BinaryIO

from pytest_membudget.errors import UsageError
from pytest_membudget.inputs.format import BLOCK_MARK, Draw
from pytest_membudget.inputs.kinds import FORMATS

BLOCK_BYTES = 512 * 1024
"""What is held in memory at a time, whatever the size of the file; about 5,000 different records."""

_FIRST_BLOCK = 100_000_000
"""Nine digits from the start, so that identifiers are as long in the last block as in the first."""


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
