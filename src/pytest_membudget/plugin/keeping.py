"""Records that a test adds to the session's report, beside its own: kept as lines of JSON in a file.

The file is in the folder that all processes of the session share, so that the one that reports sees them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from pytest_membudget.plugin.shared import shared_folder

Record = TypeVar("Record", bound=msgspec.Struct)


def keep(config: pytest.Config, file_name: str, records: Sequence[msgspec.Struct]) -> None:
    """Adds them to the session's, where there is to be a report."""
    if records and config.pluginmanager.has_plugin("membudget-measuring"):
        lines = b"".join(msgspec.json.encode(each) + b"\n" for each in records)
        with (shared_folder(config) / file_name).open("ab") as stream:
            stream.write(lines)


def kept(folder: Path, file_name: str, kind: type[Record]) -> list[Record]:
    """All of the session, in the order in which their tests ended."""
    file = folder / file_name
    if not file.exists():
        return []
    return [msgspec.json.decode(line, type=kind) for line in file.read_bytes().splitlines()]
