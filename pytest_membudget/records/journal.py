"""Records as lines of JSON in a file that several processes add to, whatever is added at once in one write."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

Record = TypeVar("Record", bound=msgspec.Struct)


def append(file: Path, records: Iterable[msgspec.Struct]) -> None:
    """Adds `records` at the end of `file`, which need not exist."""
    with file.open("ab") as stream:
        stream.write(b"".join(msgspec.json.encode(each) + b"\n" for each in records))


def read(file: Path, kind: type[Record]) -> list[Record]:
    """All records of `file` in their order; none where there is no file."""
    if not file.exists():
        return []
    return [msgspec.json.decode(line, type=kind) for line in file.read_bytes().splitlines()]
