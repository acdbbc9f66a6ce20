"""Files of ours: written whole or not at all, read as the expected shape or refused in one sentence."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from pytest_membudget.errors import UnreadableFileError, UsageError
from pytest_membudget.units import format_size

if sys.platform != "win32":
    import fcntl

T = TypeVar("T")

LARGEST_FILE_BYTES = 256 * 1024 * 1024
"""Larger files are refused unread: a report of 10,000 tests takes a few megabytes."""

_CONFLICT = re.compile(rb"^<<<<<<< ", re.MULTILINE)
_C1 = re.compile(rb"\xc2([\x80-\x9f])")
_MOST_CONTAINERS = 5_000_000
_ABANDONED_S = 3600.0
_BYTE = re.compile(r"\s*\(byte (\d+)\)")


def check_writable(path: str | os.PathLike[str], *, such_as: str) -> None:
    """Fails now where `write_atomically` would fail later; `such_as` is a file name to show.

    Makes the folder where it is missing.

    Raises:
        UsageError: a directory, a pipe or a device, or a folder that cannot be made or written to.
    """
    if Path(path).is_dir():
        raise UsageError(f"{path} is a directory; name a file in it, such as {Path(path) / such_as}")
    try:
        target = _target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):  # without a name where the system has such files
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
    target = _target(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:
        unnamed = _unnamed_file(target.parent)
        with temporary.open("xb") if unnamed is None else os.fdopen(unnamed, "wb") as stream:
            yield stream
            stream.flush()
            with contextlib.suppress(FileNotFoundError):
                mode = stat.S_IMODE(target.stat().st_mode)
                os.chmod(temporary if unnamed is None else unnamed, mode)  # noqa: PTH101 - a file without a name
            if unnamed is not None:
                # A name for the moment before it is `target`. With a descriptor of a folder Python calls linkat(2), which
                # follows the link that /proc is.
                os.link(f"/proc/self/fd/{unnamed}", temporary, src_dir_fd=unnamed, follow_symlinks=True)
                temporary.replace(target)
        if unnamed is None:
            temporary.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        # A full disk names no file, a missing folder a temporary one.
        if isinstance(error, OSError) and error.filename in {None, str(temporary)}:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    _remove_abandoned(target)


def _target(path: str | os.PathLike[str]) -> Path:
    """The plain file that `path` stands for, which need not exist yet.

    Raises:
        OSError: a loop of links, a pipe, a device, or a link that another user left in a folder open to all. Linux
            itself follows no such link (`fs.protected_symlinks`), but it does not see what is resolved beforehand.
    """
    place = Path(path)
    if place.is_symlink():
        link, folder = place.lstat(), place.parent.stat()
        is_open_to_all = bool(folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH)
        if is_open_to_all and link.st_uid not in {os.geteuid(), folder.st_uid}:
            raise OSError(errno.EACCES, "is another user's link in a folder that all may write to", str(path))
    target = Path(os.path.realpath(path))
    try:
        found = target.stat()
    except FileNotFoundError:
        return target
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is not a plain file and cannot be replaced", str(path))
    return target


def _unnamed_file(folder: Path) -> int | None:
    """A descriptor of a file without a name, which vanishes with its process; `None` where there is no such thing."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not Path("/proc/self/fd").is_dir():
        return None
    try:
        return os.open(folder, flag | os.O_WRONLY, 0o666)
    except OSError:
        return None  # a file system without them; a real obstacle shows when the file is made by name


def _remove_abandoned(target: Path) -> None:
    """Removes what writers of `target` left that were killed: parts that nothing was written to for an hour."""
    part = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{16}\.part")
    with contextlib.suppress(OSError):
        for name in os.listdir(target.parent):
            if part.fullmatch(name):
                with contextlib.suppress(OSError):
                    if time.time() - (target.parent / name).stat().st_mtime > _ABANDONED_S:
                        (target.parent / name).unlink()


@contextlib.contextmanager
def working_folder(purpose: str) -> Iterator[Path]:
    """A folder of this user alone among the temporary ones, removed when the block ends.

    What killed programs left there for the same `purpose` is removed at the start: the lock of a folder ends with its program,
    in whichever container that runs. Windows has no such lock: folders of killed programs stay.
    """
    prefix = f"membudget-{purpose}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _remove_unlocked(left)
    # The folder is locked before it has a name that others remove.
    folder = Path(tempfile.mkdtemp(prefix=f".{prefix}"))
    lock = _lock_folder(folder)
    try:
        folder = folder.rename(folder.with_name(folder.name[1:]))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _remove_unlocked(folder: Path) -> None:
    """Removes a folder of this user's that no living program has locked."""
    with contextlib.suppress(OSError):
        lock = _lock_folder(folder)
        if lock is not None:
            if os.fstat(lock).st_uid == os.geteuid():
                shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock_folder(folder: Path) -> int | None:
    """A descriptor that keeps `folder` locked until it is closed; `None` where another program has it, or there are no locks."""
    if sys.platform == "win32":
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


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
    """Readable, diff-friendly JSON with a newline at its end, whatever its text holds, as `encode_line` has it."""
    return escape_controls(msgspec.json.format(encoded(value), indent=indent)) + b"\n"


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
    if not is_plain_file(source):
        raise UnreadableFileError(f"{source} is not a plain file and cannot be {what}; name another")
    with source.open("rb") as stream:
        data = b"" if found.st_size > LARGEST_FILE_BYTES else stream.read(LARGEST_FILE_BYTES + 1)
    if max(found.st_size, len(data)) > LARGEST_FILE_BYTES:
        raise UnreadableFileError(
            f"{source} has {format_size(found.st_size)}, more than the {format_size(LARGEST_FILE_BYTES)} "
            f"that {what} may have; is it the right file?"
        )
    return data


def is_plain_file(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a file with content of its own, so that opening it waits for nothing.

    Files of `/proc` and `/sys` call themselves plain too; reading or writing some of them waits for ever.

    Raises:
        OSError: it cannot be found.
    """
    return stat.S_ISREG(Path(path).stat().st_mode) and not os.path.realpath(path).startswith(
        ("/proc/", "/sys/")
    )


def decode_json(data: bytes, shape: type[T], *, name: str, what: str) -> T:
    """`data` as a `shape`; `name` says in messages where it came from.

    Raises:
        UnreadableFileError: it is not JSON, not of that shape, or names a key twice in one object.
    """
    refusal = _refusal(data)
    if refusal is not None:
        raise UnreadableFileError(f"{name} is not {what}: {refusal}")
    try:
        value = msgspec.json.decode(data, type=shape)
        json.loads(data, object_pairs_hook=_refuse_twins, parse_int=_unread, parse_float=_unread)
    except RecursionError:
        raise UnreadableFileError(
            f"{name} is not {what}: its lists or objects lie too deep in one another"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise UnreadableFileError(f"{name} is not {what}: {_one_line(_place(str(error), data))}") from None
    return value


def _refusal(data: bytes) -> str | None:
    """What keeps `data` from being read at all, in words."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or data[1:2] == b"\0" or data[:1] == b"\0":
        return "it is text in UTF-16 (line 1, column 1); save it as UTF-8"
    if data.startswith(b"\xef\xbb\xbf"):
        return "it begins with a byte order mark (line 1, column 1); save it as UTF-8 without one"
    conflict = _CONFLICT.search(data)
    if conflict is not None:
        line = data[: conflict.start()].count(b"\n") + 1
        return f"line {line} begins a merge that is not resolved; keep one side of each conflict and no test twice"
    containers = data.count(b"[") + data.count(b"{")
    # 60 bytes each and more once they are read: a list of empty lists takes 25 times its size.
    if containers > _MOST_CONTAINERS:
        return f"it has {containers:,} lists and objects, more than the {_MOST_CONTAINERS:,} that are read"
    return None


def encode_line(record: msgspec.Struct) -> bytes:
    """`record` as one line of JSON, whatever its text holds.

    Names of files that are not UTF-8 reach us as lone surrogates, which UTF-8 cannot carry: they are written as their
    escapes. So are the control characters U+0080 to U+009F, which JSON allows and terminals obey.
    """
    return escape_controls(encoded(record)) + b"\n"


def encoded(value: object) -> bytes:
    """`value` as JSON, with lone surrogates as their escapes."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(encodable(msgspec.to_builtins(value)))


def encodable(value: Any) -> Any:
    """`value` with each lone surrogate as its escape, so that it can be written as UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encodable(item) for item in value]
    return value


def escape_controls(json_text: bytes) -> bytes:
    """JSON whose control characters U+0080 to U+009F are escapes; they can only stand in strings."""
    return _C1.sub(lambda found: b"\\u00%02x" % found[1][0], json_text)


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


def from_here(path: str | os.PathLike[str]) -> str:
    """As short as a reader who stands in the working directory needs it."""
    text = os.fspath(path)
    here = Path.cwd()
    return str(Path(text).relative_to(here)) if Path(text).is_relative_to(here) else text
