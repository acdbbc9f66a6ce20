"""What of an input lies in files: a path's size, a folder's content, the paths in a tuple, list or dict together."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_MOST_ENTRIES = 100_000
"""Files of a folder, and items of a container, that are looked at; more would take longer than the task may."""

_DEEPEST = 4
"""Containers in containers beyond this are data rather than arguments."""

FOLDER = "/"
"""The kind of a folder."""

_COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst", ".lz4", ".br", ".z"})


class InputSize(NamedTuple):
    """Bytes in files, and the kind of the largest of them: the end of its name, such as `.csv` or `.csv.gz`."""

    bytes: int
    kind: str


def input_size(item: Any) -> InputSize | None:
    """The size of an input; `None` where there is no path in it.

    A path that does not exist is none: the caller's function will say what is wrong. A folder counts with all that is
    in it, also while that changes; a folder that holds the working directory, such as "." or "/", does not.
    """
    if isinstance(item, str | bytes | os.PathLike):
        return _path_size(item)
    found = [size for path in _paths(item, _DEEPEST) if (size := _path_size(path)) is not None]
    if not found:
        return None
    return InputSize(sum(size.bytes for size in found), max(found).kind)


def _paths(item: Any, depth: int) -> Iterator[Any]:
    if isinstance(item, str | bytes | os.PathLike):
        yield item
    elif depth and isinstance(item, tuple | list | Mapping):
        members: Iterable[Any] = item.values() if isinstance(item, Mapping) else item
        for member, _ in zip(members, range(_MOST_ENTRIES), strict=False):
            yield from _paths(member, depth - 1)


def _path_size(path: Any) -> InputSize | None:
    with contextlib.suppress(OSError, ValueError):
        name = os.fsdecode(path)
        status = os.stat(name)  # noqa: PTH116 - many small calls: a Path costs more than the answer
        if not stat.S_ISDIR(status.st_mode):
            return InputSize(status.st_size, kind_of(Path(name)))
        if not _holds_working_directory(name):
            return InputSize(_folder_bytes(name), FOLDER)
    return None


def _folder_bytes(folder: str) -> int:
    """What is in a folder; what disappears meanwhile does not count."""
    total_bytes, left, folders = 0, _MOST_ENTRIES, [folder]
    while folders and left > 0:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                left -= 1
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total_bytes += entry.stat().st_size
    return total_bytes


def _holds_working_directory(folder: str) -> bool:
    here = os.path.realpath(folder)
    return os.path.commonpath([here, os.path.realpath(".")]) == here


def kind_of(path: Path) -> str:
    """Such as `.csv` or `.csv.gz`; empty for a name without an end, or with a number there."""
    *_, last = ("", *(suffix.lower() for suffix in path.suffixes))
    if last in _COMPRESSED:
        return kind_of(path.with_suffix("")) + last
    return "" if last[1:].isdigit() else last
