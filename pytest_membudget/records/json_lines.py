"""Files of lines that several programs or processes add to, at the same time, and that a crash must not spoil.

A kill while a line is written leaves half of it at the end: what is added next ends it with a newline, so that it stays a
line of its own and spoils no other. `add_line` takes the file's lock for as long as it writes, so that `rewrite` loses
nothing. `add_records` is one write without a lock, for files of one session that are only added to.

`encode_plain` makes JSON of plain data that comes back as it was: what JSON alone would turn into something else carries its kind.
Numbers, text, `None` and lists stand for themselves. A tuple, a mapping, bytes, a path and the odd floats are objects with
one key that names what they are, so `(1, 2)` is `{"tuple": [1, 2]}`. Reading makes nothing but these: no class is looked
up and no code is run.
"""

from __future__ import annotations

import base64
import contextlib
import enum
import math
import numbers
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Generic, NamedTuple, TypeVar

import msgspec

from pytest_membudget.records.storage import encode_line, write_atomically

if sys.platform != "win32":  # there one program at a time is safe, as a line is one write; several are not
    import fcntl


def add_line(path: str | os.PathLike[str], line: bytes) -> None:
    """Adds `line`, which holds no newline, at the end of the file; makes the file, for this user alone, where it is missing.

    Raises:
        OSError: the line cannot be written; nothing of it is in the file then.
    """
    with _locked(path) as descriptor:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        is_torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
        data = (b"\n" if is_torn else b"") + line + b"\n"
        written = 0
        try:
            while written < len(data):
                written += os.write(descriptor, data[written:])
        except BaseException:
            if written:
                os.ftruncate(descriptor, end)
            raise


def read_lines(path: str | os.PathLike[str], *, most_bytes: int) -> Iterator[bytes]:
    """The lines of the file without their newlines; one that is longer than `most_bytes` is cut to one byte more.

    Raises:
        OSError: it cannot be read.
    """
    with Path(path).open("rb") as stream:
        while line := stream.readline(most_bytes + 1):
            rest = line
            while not rest.endswith(b"\n") and (rest := stream.readline(most_bytes + 1)):
                pass
            yield line.removesuffix(b"\n")


def rewrite(path: str | os.PathLike[str], change: Callable[[Sequence[bytes]], Sequence[bytes]]) -> None:
    """Replaces the file's lines by what `change` makes of them, while no other program adds one.

    Raises:
        OSError: the file cannot be written; it is as it was then.
    """
    with _locked(path) as descriptor:
        lines = _whole(descriptor).removesuffix(b"\n").split(b"\n")
        changed = change([line for line in lines if line])
        write_atomically(path, b"".join(line + b"\n" for line in changed))


@contextlib.contextmanager
def _locked(path: str | os.PathLike[str]) -> Iterator[int]:
    """A descriptor of the file, locked against other programs.

    A lock belongs to a file and not to its name: where another program has replaced the file while this one waited for
    the lock, the wait begins again with the new one.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o600)
        try:
            if sys.platform == "win32":
                yield descriptor
                return
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_still_at(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_still_at(path: str | os.PathLike[str], descriptor: int) -> bool:
    try:
        return os.path.samestat(Path(path).stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _whole(descriptor: int) -> bytes:
    parts, at = [], 0
    while part := os.pread(descriptor, 1 << 20, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


Record = TypeVar("Record", bound=msgspec.Struct)


class Lines(NamedTuple, Generic[Record]):
    """What a file holds. A process that was killed, or a full disk, may leave lines that cannot be read."""

    records: list[Record]
    unreadable: int


def add_records(file: Path, records: Iterable[msgspec.Struct]) -> None:
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


def read_records(file: Path, kind: type[Record]) -> Lines[Record]:
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


_DEEPEST = 100


class NotPlainDataError(Exception):
    """A value that is more than data: it cannot come back from a file."""


def encode_plain(value: Any) -> Any:
    """`value` as JSON can carry it. A subclass of text or bytes, such as numpy's, is its text or bytes.

    Raises:
        NotPlainDataError: it is an object of another kind, holds one, or its own methods raise.
    """
    try:
        return _encoded(value, 0)
    except NotPlainDataError:
        raise
    except (Exception, SystemExit) as error:  # the value's own methods may raise anything
        raise NotPlainDataError(
            f"a {type(value).__qualname__} that raises {type(error).__qualname__}"
        ) from None


def decode_plain(value: Any) -> Any:
    """What `encode_plain` was given.

    Raises:
        ValueError: no `encode_plain` wrote that.
    """
    if isinstance(value, list):
        return [decode_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError(f"an object with {len(value)} keys, where one names its kind")
    ((kind, content),) = value.items()
    if kind not in _DECODERS:
        raise ValueError(f"an object of the unknown kind {kind!r}")
    try:
        return _DECODERS[kind](content)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"an object of the kind {kind!r} that holds something else: {error}") from None


def _encoded(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise NotPlainDataError(f"data more than {_DEEPEST} levels deep")
    if type(value) is list:
        return [_encoded(each, depth + 1) for each in value]
    if type(value) is tuple:
        return {"tuple": [_encoded(each, depth + 1) for each in value]}
    if type(value) is dict:
        return {"dict": [[_encoded(each, depth + 1) for each in pair] for pair in value.items()]}
    return _scalar(value)


def _scalar(value: Any) -> Any:
    match value:
        case None | bool():
            return value
        case enum.Enum():
            raise NotPlainDataError(f"a member of {type(value).__qualname__}")
        case str():
            return _text(str.__str__(value))
        case bytes():
            return {"bytes": _base64(memoryview(value).tobytes())}
        case PurePath():
            return {"path": _text(os.fspath(value))}
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    raise NotPlainDataError(f"a {type(value).__qualname__}")


def _text(text: str) -> Any:
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is no Unicode
        return {"file name": _base64(os.fsencode(text))}
    return text


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _path(content: Any) -> Path:
    return Path(decode_plain(content))


def _float(text: str) -> float:
    if text not in {"nan", "inf", "-inf"}:
        raise ValueError(f"the float {text!r}")
    return float(text)


def _dict(pairs: Any) -> dict[Any, Any]:
    return {decode_plain(key): decode_plain(value) for key, value in pairs}


_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "bytes": _unbase64,
    "dict": _dict,
    "file name": lambda text: os.fsdecode(_unbase64(text)),
    "float": _float,
    "path": _path,
    "tuple": lambda items: tuple(decode_plain(each) for each in items),
}
