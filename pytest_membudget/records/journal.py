"""Records as lines of JSON in a file that several processes add to, whatever is added at once in one write."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Generic, NamedTuple, TypeVar

import msgspec

from pytest_membudget.records.storage import encode_line

Record = TypeVar("Record", bound=msgspec.Struct)


class Lines(NamedTuple, Generic[Record]):
    """What a file holds. A process that was killed, or a full disk, may leave lines that cannot be read."""

    records: list[Record]
    unreadable: int


def append(file: Path, records: Iterable[msgspec.Struct]) -> None:
    """Adds `records` at the end of `file`, which need not exist.

    Raises:
        OSError: they cannot be written.
    """
    lines = b"".join(map(encode_line, records))
    with file.open("a+b") as stream:
        if _ends_in_a_torn_line(stream):
            lines = b"\n" + lines
        stream.write(lines)


def _ends_in_a_torn_line(stream: BinaryIO) -> bool:
    if not stream.seek(0, os.SEEK_END):
        return False
    stream.seek(-1, os.SEEK_END)
    return stream.read(1) != b"\n"


def read(file: Path, kind: type[Record]) -> Lines[Record]:
    """All records of `file` in their order, and how many lines are none; none where there is no file.

    Raises:
        OSError: it cannot be read.
    """
    records: list[Record] = []
    unreadable = 0
    for line in file.read_bytes().split(b"\n") if file.exists() else ():
        try:
            if line:
                records.append(msgspec.json.decode(line, type=kind))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            unreadable += 1
    return Lines(records, unreadable)
