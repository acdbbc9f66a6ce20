"""Inputs that failed, one JSON line each, so that they can be run again. Nothing in them is ever executed."""

from __future__ import annotations

import base64
import datetime
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from pytest_membudget.errors import UnreadableFileError, UsageError, text_of
from pytest_membudget.records.run import Cause, Outcome
from pytest_membudget.records.storage import write_atomically

ItemKind = Literal["text", "path", "bytes", "json", "opaque"]

LARGEST_LINE_BYTES = 16 * 1024 * 1024


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One input that failed. `item` is its text, base64 where that is no Unicode, or JSON, as `kind` says."""

    format: Literal["membudget-dead-letter"] = "membudget-dead-letter"
    version: Literal[1] = 1
    function: str
    kind: ItemKind
    item: Any
    is_base64: bool = False
    cause: Cause
    error_type: str = ""
    error: str = ""
    attempts: int = 0
    size_bytes: int | None = None
    estimate_bytes: int | None = None
    peak_bytes: int | None = None
    duration_s: float = 0.0
    at: str = ""


def function_name(fn: Callable[..., Any]) -> str:
    """`module:qualified.name`, by which the shell finds a function; for one of a script, the script's module name."""
    module = getattr(fn, "__module__", None) or ""
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    if module in {"__main__", "__mp_main__"}:
        main = sys.modules.get("__main__")
        spec = getattr(main, "__spec__", None)
        file = getattr(main, "__file__", None)
        module = spec.name if spec is not None else Path(file).stem if file else module
    return f"{module}:{name}"


def letter_of(fn: Callable[..., Any], outcome: Outcome, *, name: str | None = None) -> DeadLetter:
    """What is written of a failed outcome; `name` where the function goes by another one than its own."""
    kind, item, is_base64 = _written(outcome.item)
    return DeadLetter(
        function=function_name(fn) if name is None else name,
        kind=kind,
        item=item,
        is_base64=is_base64,
        cause=outcome.cause,
        error_type=type(outcome.error).__qualname__,
        error=text_of(outcome.error)[:2000].encode("utf-8", "replace").decode(),
        attempts=outcome.attempts,
        size_bytes=outcome.size_bytes,
        estimate_bytes=outcome.estimate_bytes,
        peak_bytes=outcome.peak_bytes,
        duration_s=outcome.duration_s,
        at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def append(path: Path, letter: DeadLetter) -> None:
    """Adds one line, in one write: programs that share the file do not mix their lines.

    Raises:
        OSError: the line cannot be written; nothing of it is in the file then.
    """
    line = msgspec.json.encode(letter) + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        _write_whole(descriptor, line)
    finally:
        os.close(descriptor)


def _write_whole(descriptor: int, line: bytes) -> None:
    written = 0
    try:
        while written < len(line):
            written += os.write(descriptor, line[written:])
    except OSError:
        # Half a line would make the whole file unreadable.
        end = os.lseek(descriptor, 0, os.SEEK_CUR) if written else 0
        if written and os.fstat(descriptor).st_size == end:
            os.ftruncate(descriptor, end - written)
        raise


def check_writable(path: Path) -> None:
    """Fails now rather than after an hour of work.

    Raises:
        UsageError: no line can be added there.
    """
    try:
        with path.open("ab"):
            return
    except OSError as error:
        raise UsageError(
            f"dead_letters: {path} cannot be written ({error.strerror}); name another file"
        ) from None


def read(path: str | os.PathLike[str]) -> list[DeadLetter]:
    """All letters of a file.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: a line is none of ours; says which.
    """
    letters = []
    with Path(path).open("rb") as stream:
        number = 0
        while line := stream.readline(LARGEST_LINE_BYTES + 1):
            number += 1
            if len(line) > LARGEST_LINE_BYTES:
                raise UnreadableFileError(
                    f"{path}, line {number} is longer than {LARGEST_LINE_BYTES} B; not dead letters"
                )
            if not line.strip():
                continue
            try:
                letters.append(msgspec.json.decode(line, type=DeadLetter))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise UnreadableFileError(f"{path}, line {number} is not a dead letter: {error}") from None
    return letters


def replace(path: Path, old: list[DeadLetter], new: list[DeadLetter]) -> None:
    """Puts `new` in the place of `old`; lines that were added meanwhile stay.

    Raises:
        OSError: the file cannot be written; it is as it was then.
    """
    added = read(path)[len(old) :]
    write_atomically(path, b"".join(msgspec.json.encode(letter) + b"\n" for letter in (*new, *added)))


def item_of(letter: DeadLetter) -> Any:
    """The input as the function took it.

    Raises:
        UnreadableFileError: it was written for the reader only, or is not what its kind says.
    """
    if letter.kind == "json":
        return letter.item
    if letter.kind == "opaque":
        raise UnreadableFileError(
            f"the item {letter.item!r} is neither a path nor plain data, so it cannot be run again from a file"
        )
    if not isinstance(letter.item, str):
        raise UnreadableFileError(
            f"the item {letter.item!r} is not the text that its kind {letter.kind!r} needs"
        )
    text = letter.item
    if letter.is_base64:
        try:
            data = base64.b64decode(letter.item, validate=True)
        except ValueError as error:
            raise UnreadableFileError(f"the item {letter.item!r} is not base64: {error}") from None
        if letter.kind == "bytes":
            return data
        text = os.fsdecode(data)
    return Path(text) if letter.kind == "path" else text


def _written(item: Any) -> tuple[ItemKind, Any, bool]:
    if isinstance(item, bytes):
        return "bytes", base64.b64encode(item).decode(), True
    if isinstance(item, str | os.PathLike):
        kind: ItemKind = "text" if isinstance(item, str) else "path"
        text = os.fspath(item)
        if isinstance(text, bytes):
            return kind, base64.b64encode(text).decode(), True
        try:
            text.encode()
        except UnicodeEncodeError:  # a file name that is no Unicode
            return kind, base64.b64encode(os.fsencode(text)).decode(), True
        return kind, text, False
    try:
        if msgspec.json.decode(msgspec.json.encode(item)) == item:
            return "json", item, False
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        pass
    return "opaque", text_of(item, repr)[:1000].encode("utf-8", "replace").decode(), False
