"""Files of ours: written whole or not at all, read as the expected shape or refused in one sentence."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from pytest_membudget.errors import UnreadableFileError, UsageError
from pytest_membudget.units import format_size

T = TypeVar("T")

LARGEST_FILE_BYTES = 256 * 1024 * 1024
"""Larger files are refused unread: a report of 10,000 tests takes a few megabytes."""

_CONFLICT = b"\n<<<<<<< "
_BYTE = re.compile(r"\s*\(byte (\d+)\)")


def check_writable(path: str | os.PathLike[str], *, such_as: str) -> None:
    """Fails now where `write_atomically` would fail later; `such_as` is a file name to show.

    Raises:
        UsageError: a directory, or a folder that is missing or cannot be written to.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise UsageError(f"{path} is a directory; name a file in it, such as {target / such_as}")
    if not target.parent.is_dir():
        raise UsageError(
            f"the folder of {path} does not exist: {target.parent}; make it first or name another place"
        )
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", suffix=".part"):
            pass
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}; name another place") from None


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Replaces `path` by `content`: after a crash or a full disk it holds the old bytes or the new ones.

    Raises:
        OSError: the folder is missing, not writable or full; nothing is left behind then.
    """
    with replacing(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A stream whose content takes the place of `path` when the block ends, and vanishes when it raises.

    Raises:
        OSError: the folder is missing, not writable or full, or `path` is something else than a plain file.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "is not a plain file and cannot be replaced", str(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as stream:
            yield stream
        with contextlib.suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is None:  # a full disk names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def private_directory(path: str | os.PathLike[str]) -> Path:
    """A directory of this user alone, made where it is missing.

    Raises:
        UnreadableFileError: it is a symbolic link, not a directory, another user's, or open to others.
        OSError: it cannot be made.
    """
    directory = Path(path)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700, parents=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UnreadableFileError(f"{directory} is not a plain directory; remove it or name another place")
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise UnreadableFileError(
            f"{directory} belongs to user {found.st_uid}, not to {os.getuid()}; name another place"
        )
    if hasattr(os, "getuid") and stat.S_IMODE(found.st_mode) & 0o077:
        raise UnreadableFileError(
            f"{directory} has mode {stat.S_IMODE(found.st_mode):04o}, open to others; run: chmod 700 {directory}"
        )
    return directory


def encode_json(value: object, *, indent: int = 2) -> bytes:
    """Readable, diff-friendly JSON with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=indent) + b"\n"


def read_json(path: str | os.PathLike[str], shape: type[T], *, what: str) -> T:
    """The file at `path` as a `shape`; `what` names it in messages ("a baseline").

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: it is too large, not JSON, or not of that shape; says where.
    """
    return decode_json(read_bounded(path, what=what), shape, name=str(path), what=what)


def read_bounded(path: str | os.PathLike[str], *, what: str) -> bytes:
    """The bytes of a plain file of at most `LARGEST_FILE_BYTES`.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: it is a directory or a device, or too large.
    """
    source = Path(path)
    found = source.stat()
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableFileError(f"{source} is not a plain file and cannot be {what}; name another")
    with source.open("rb") as stream:
        data = b"" if found.st_size > LARGEST_FILE_BYTES else stream.read(LARGEST_FILE_BYTES + 1)
    if max(found.st_size, len(data)) > LARGEST_FILE_BYTES:
        raise UnreadableFileError(
            f"{source} has {format_size(found.st_size)}, more than the {format_size(LARGEST_FILE_BYTES)} "
            f"that {what} may have; is it the right file?"
        )
    return data


def decode_json(data: bytes, shape: type[T], *, name: str, what: str) -> T:
    """`data` as a `shape`; `name` says in messages where it came from.

    Raises:
        UnreadableFileError: it is not JSON, not of that shape, or names a key twice in one object.
    """
    try:
        value = msgspec.json.decode(data, type=shape)
        json.loads(data, object_pairs_hook=_refuse_twins, parse_int=_unread, parse_float=_unread)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if _CONFLICT in data:
            line = data[: data.index(_CONFLICT)].count(b"\n") + 2
            raise UnreadableFileError(
                f"{name} is not {what}: line {line} begins a merge that nobody has resolved; keep one side of each "
                "conflict and no test twice"
            ) from None
        raise UnreadableFileError(f"{name} is not {what}: {_one_line(_place(str(error), data))}") from None
    return value


def _unread(number: str) -> None:
    """Numbers were read before; here only keys matter."""


def _refuse_twins(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            first_key, first_value = pairs[0]
            beginning = (
                f", which begins with {first_key!r}: {first_value!r}" if first_value is not None else ""
            )
            raise ValueError(f"the key {key!r} stands twice in one object{beginning}")
        seen.add(key)


def _place(message: str, data: bytes) -> str:
    """The message with line and column in place of a byte's position."""
    if message == "Input data was truncated":
        lines = data.count(b"\n") + 1
        return f"it ends too early, in line {lines}; was it written to the end?"
    match = _BYTE.search(message)
    if match is None:
        return message
    before = data[: int(match[1])]
    line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    return f"{message[: match.start()]} in line {line}, column {column}"


def _one_line(message: str) -> str:
    text = message if len(message) <= 300 else message[:297] + "..."
    return "".join(character if character.isprintable() else " " for character in text)
