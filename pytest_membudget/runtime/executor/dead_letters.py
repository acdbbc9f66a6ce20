"""Inputs that failed, one JSON line each, so that they can be run again. Nothing in them is ever executed."""

from __future__ import annotations

import base64
import datetime
import functools
import logging
import os
import stat
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from pytest_membudget.errors import UnreadableFileError, UsageError, text_of
from pytest_membudget.records.json_lines import (
    NotPlainDataError,
    add_line,
    decode_plain,
    encode_plain,
    read_lines,
    rewrite,
)
from pytest_membudget.records.run import Cause, Outcome
from pytest_membudget.records.storage import encode_line
from pytest_membudget.units import format_size

_logger = logging.getLogger("pytest_membudget.runtime")

ItemKind = Literal["text", "path", "bytes", "json", "data", "opaque"]

LARGEST_LINE_BYTES = 16 * 1024 * 1024

_BEGINNING = b'{"format":"membudget-dead-letter"'
_LONGEST_TEXT = 2000
_LONGEST_TRACEBACK = 8000


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One input that failed.

    Attributes:
        kind: how `item` is written: its text, base64 where that is no Unicode (`is_base64`), JSON that stands for itself,
            or `encode_plain` makes it. An `opaque` item is a text for the reader alone.
        bound: the arguments of a `functools.partial`, (positional, by name), as `encode_plain` makes it; `None` where there
            were none. `bound_text` is for the reader, where they are more than data.
    """

    format: Literal["membudget-dead-letter"] = "membudget-dead-letter"
    version: Literal[1] = 1
    function: str
    bound: Any = None
    bound_text: str = ""
    kind: ItemKind
    item: Any
    is_base64: bool = False
    item_type: str = ""
    cause: Cause
    error_type: str = ""
    error: str = ""
    traceback: str = ""
    attempts: int = 0
    size_bytes: int | None = None
    estimate_bytes: int | None = None
    peak_bytes: int | None = None
    duration_s: float = 0.0
    at: str = ""


class Letters(NamedTuple):
    """What a file holds, and the numbers of its torn lines: a program was killed while it wrote them."""

    letters: list[DeadLetter]
    torn: tuple[int, ...]


class DeadLetterFile:
    """Adds to a file of dead letters. A disk that is full costs letters, and no outcome.

    Raises:
        UsageError: no line can be added there; better now than after an hour of work.
    """

    def __init__(self, path: Path, fn: Callable[..., Any]) -> None:
        check_writable(path)
        self.path = path
        self._fn = fn
        self._lost = 0
        self._why = ""

    def add(self, outcome: Outcome) -> None:
        """Adds an input that failed; one that was cancelled was never tried."""
        if outcome.ok or outcome.cause == "cancelled":
            return
        try:
            append(self.path, letter_of(self._fn, outcome))
        except Exception as error:  # the outcomes of all other inputs are worth more than this line
            self._why = (error.strerror if isinstance(error, OSError) else None) or text_of(error)
            if not self._lost:
                _logger.warning("dead letters: %s cannot be written: %s", self.path, self._why)
            self._lost += 1

    @property
    def caveats(self) -> tuple[str, ...]:
        """What is missing in the file."""
        if not self._lost:
            return ()
        missing = (
            f"{self._lost} failed inputs could not be added to {self.path} ({self._why}); "
            "they are in the batch's dead_letters, and nowhere else"
        )
        return (missing,)


def function_name(fn: Callable[..., Any]) -> str:
    """`module:qualified.name`, by which the shell finds a function; for one of a script, the script's module name.

    A `functools.partial` goes by its function.
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
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
    kind, item = _written(outcome.item)
    bound, bound_text = _bound(fn)
    letter = DeadLetter(
        function=function_name(fn) if name is None else name,
        bound=bound,
        bound_text=bound_text,
        kind=kind,
        item=item,
        item_type=f"{type(outcome.item).__module__}.{type(outcome.item).__qualname__}",
        cause=outcome.cause,
        error_type=type(outcome.error).__qualname__,
        error=_fitting(text_of(outcome.error), _LONGEST_TEXT),
        traceback=_traceback(outcome.error),
        attempts=outcome.attempts,
        size_bytes=outcome.size_bytes,
        estimate_bytes=outcome.estimate_bytes,
        peak_bytes=outcome.peak_bytes,
        duration_s=outcome.duration_s,
        at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    size_bytes = len(encode_line(letter))
    if size_bytes <= LARGEST_LINE_BYTES:
        return letter
    shown = f"an item that takes {format_size(size_bytes)} here, more than the {format_size(LARGEST_LINE_BYTES)} of a line: "
    beginning = _fitting(text_of(outcome.item, repr), 200)
    return msgspec.structs.replace(
        letter,
        kind="opaque",
        item=shown + beginning,
        is_base64=False,
        bound=None,
        bound_text=_fitting(bound_text, 200),
    )


def append(path: Path, letter: DeadLetter) -> None:
    """Adds one line: programs that share the file neither mix nor lose their lines.

    Raises:
        OSError: the line cannot be written; nothing of it is in the file then.
    """
    add_line(path, encode_line(letter).removesuffix(b"\n"))


def check_writable(path: Path) -> None:
    """Fails now rather than after an hour of work.

    Raises:
        UsageError: no line can be added there.
    """
    try:
        if path.exists() and stat.S_ISFIFO(path.stat().st_mode):
            raise UsageError(f"dead_letters: {path} is a pipe, which keeps no line; name a file")
        with path.open("ab"):
            return
    except OSError as error:
        raise UsageError(
            f"dead_letters: {path} cannot be written ({error.strerror}); name another file"
        ) from None


def read(path: str | os.PathLike[str]) -> list[DeadLetter]:
    """All letters of a file; torn lines are left out. Raises as `read_all`."""
    return read_all(path).letters


def read_all(path: str | os.PathLike[str]) -> Letters:
    """All letters of a file, and which of its lines are torn.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: a line is none of ours; says which.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise UnreadableFileError(f"{path} is not a plain file and cannot hold dead letters; name another")
    letters, torn = [], []
    for number, line in enumerate(read_lines(path, most_bytes=LARGEST_LINE_BYTES), 1):
        if not line.strip():
            continue
        if len(line) > LARGEST_LINE_BYTES:
            raise UnreadableFileError(
                f"{path}, line {number} is not a dead letter: it is longer than {format_size(LARGEST_LINE_BYTES)}"
            )
        try:
            letters.append(msgspec.json.decode(line, type=DeadLetter))
        except (ValueError, RecursionError) as error:
            if not _is_torn(line):
                raise UnreadableFileError(f"{path}, line {number} is not a dead letter: {error}") from None
            torn.append(number)
    return Letters(letters, tuple(torn))


def replace(path: Path, old: Sequence[DeadLetter], new: Sequence[DeadLetter]) -> None:
    """Puts `new` in the place of `old`; what was added meanwhile stays, and so do torn lines.

    Raises:
        OSError: the file cannot be written; it is as it was then.
    """
    gone = [encode_line(letter).removesuffix(b"\n") for letter in old]
    written = [encode_line(letter).removesuffix(b"\n") for letter in new]

    def change(lines: Sequence[bytes]) -> Sequence[bytes]:
        left = list(gone)
        kept = []
        for line in lines:
            same = _same_line(line)
            if same in left:
                left.remove(same)
            else:
                kept.append(line)
        return [*written, *kept]

    rewrite(path, change)


def refusal(letter: DeadLetter) -> str | None:
    """Why the letter's input cannot be run again; `None` where it can."""
    try:
        item_of(letter)
        arguments_of(letter)
    except UnreadableFileError as error:
        return str(error)
    return None


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
    if letter.kind == "data":
        return _decoded(letter.item)
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


def arguments_of(letter: DeadLetter) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the function got beside the item: positional arguments, and those by name.

    Raises:
        UnreadableFileError: they were more than data, or are not what a partial can have.
    """
    if letter.bound_text:
        raise UnreadableFileError(
            f"the function had the arguments {letter.bound_text}, which are more than plain data, so the item "
            f"{letter.item!r} cannot be run again from a file"
        )
    if letter.bound is None:
        return (), {}
    bound = _decoded(letter.bound)
    match bound:
        case (tuple() as positional, dict() as by_name) if all(isinstance(each, str) for each in by_name):
            return positional, by_name
    raise UnreadableFileError(f"the arguments {bound!r} are not those of a partial")


def _decoded(written: Any) -> Any:
    try:
        return decode_plain(written)
    except (ValueError, RecursionError) as error:
        raise UnreadableFileError(f"{_fitting(repr(written), 200)} is not plain data: {error}") from None


def _written(item: Any) -> tuple[ItemKind, Any]:
    """An item's kind, and itself as JSON can carry it."""
    try:
        if isinstance(item, os.PathLike) and not isinstance(item, Path):
            item = Path(os.fsdecode(os.fspath(item)))
        data = encode_plain(item)
    except (Exception, SystemExit):  # an item's own methods may raise anything
        return "opaque", _fitting(text_of(item, repr), 1000)
    if isinstance(data, str):
        return "text", data
    if isinstance(data, dict) and isinstance(data.get("path"), str):
        return "path", data["path"]
    return "data", data


def _bound(fn: Callable[..., Any]) -> tuple[Any, str]:
    """The arguments of a partial as data, or as a text where they are more than that."""
    positional: tuple[Any, ...] = ()
    by_name: dict[str, Any] = {}
    while isinstance(fn, functools.partial):
        positional, by_name, fn = (*fn.args, *positional), {**fn.keywords, **by_name}, fn.func
    if not positional and not by_name:
        return None, ""
    try:
        return encode_plain((positional, by_name)), ""
    except NotPlainDataError:
        return None, _fitting(text_of((positional, by_name), repr), 1000)


def _traceback(error: BaseException | None) -> str:
    """The end of the traceback, the worker's own included; empty where it cannot be made."""
    try:
        lines = traceback.format_exception(error) if error is not None else []
    except (Exception, SystemExit):  # formatting calls the exception's own methods
        return ""
    text = "".join(lines)
    return _fitting(text[-_LONGEST_TRACEBACK:], _LONGEST_TRACEBACK)


def _fitting(text: str, longest: int) -> str:
    return text[:longest].encode("utf-8", "replace").decode()


def _is_torn(line: bytes) -> bool:
    """Whether `line` is the beginning of a letter, as a program leaves it that is killed while it writes."""
    return _BEGINNING.startswith(line) or (line.startswith(_BEGINNING) and not line.endswith(b"}"))


def _same_line(line: bytes) -> bytes:
    """`line` as this version would write it: keys that it does not know are no difference."""
    try:
        return encode_line(msgspec.json.decode(line, type=DeadLetter)).removesuffix(b"\n")
    except (ValueError, RecursionError):
        return line
