"""The file of inputs that are done: a JSON line for each that ended well, so that the next run skips it.

Nothing in it is ever executed. A path goes by its name, its size and its time of change: a file that was written again is a new
input. Other plain data go by their JSON text. An input of another type has no key, and runs every time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from pytest_membudget.errors import UnreadableFileError, UsageError, path_of
from pytest_membudget.records.json_lines import add_line, read_lines
from pytest_membudget.records.storage import encode_line
from pytest_membudget.runtime.executor.dead_letters import function_name

_logger = logging.getLogger("pytest_membudget.runtime")

LONGEST_KEY = 1024 * 1024
"""Characters: an input whose JSON is longer is no key worth keeping."""


class DoneLine(msgspec.Struct, frozen=True, kw_only=True):
    """One input that ended well."""

    format: Literal["membudget-done"] = "membudget-done"
    version: Literal[1] = 1
    function: str
    key: str


class DoneFile:
    """The inputs that `fn` has done, by earlier runs and by this one.

    Raises:
        UsageError: the file cannot be written.
        UnreadableFileError: it holds something else.
    """

    def __init__(self, path: str | os.PathLike[str], fn: Callable[..., Any]) -> None:
        self._path = path_of("done", path)
        self._function = function_name(fn)
        self._without_key = 0
        self._lost = 0
        self._check_writable()
        self._keys: set[str | None] = self._read()

    def has(self, key: str | None) -> bool:
        """Whether an earlier run has done the input with that key."""
        return key in self._keys

    def add(self, key: str | None) -> None:
        """The input with that key has ended well. A disk that is full costs a repeat, and no outcome."""
        if key is None:
            self._without_key += 1
            return
        try:
            add_line(self._path, encode_line(DoneLine(function=self._function, key=key)).removesuffix(b"\n"))
        except OSError as error:
            if not self._lost:
                _logger.warning("done: %s cannot be written: %s", self._path, error.strerror or error)
            self._lost += 1

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the next run will do again although it ended well."""
        found = []
        if self._lost:
            found.append(f"{self._lost} inputs that ended well could not be written to {self._path}")
        if self._without_key:
            found.append(
                f"{self._without_key} inputs are neither paths nor plain data: they are not in {self._path}, "
                "and the next run does them again"
            )
        return tuple(found)

    def _check_writable(self) -> None:
        try:
            if self._path.exists() and not stat.S_ISREG(self._path.stat().st_mode):
                raise UsageError(f"done: {self._path} is no regular file; name another")
            with self._path.open("ab"):
                return
        except OSError as error:
            raise UsageError(
                f"done: {self._path} cannot be written ({error.strerror}); name another file"
            ) from None

    def _read(self) -> set[str | None]:
        """A line that was torn by a full disk says nothing of its input; a file of something else is refused."""
        keys: set[str | None] = set()
        others = 0
        for line in read_lines(self._path, most_bytes=4 * LONGEST_KEY):
            try:
                read = msgspec.json.decode(line, type=DoneLine)
            except (msgspec.DecodeError, UnicodeDecodeError):
                others += bool(line.strip())
                continue
            if read.function == self._function:
                keys.add(read.key)
        if others > 1 and not keys:
            raise UnreadableFileError(
                f"done: {self._path} is no file of inputs that were done: {others} lines cannot be read; name another file"
            )
        return keys


def key_of(item: Any) -> str | None:
    """The text that an input goes by; `None` for one that is neither a path nor plain data."""
    try:
        key = json.dumps(_plain(item), allow_nan=False)
    except (Exception, SystemExit):  # an item's own methods may raise anything
        return None
    return key if len(key) <= LONGEST_KEY else None


def _plain(value: Any) -> Any:
    """Lists and text of which each says one value alone: `(1,)`, `[1]` and `["1"]` differ."""
    if isinstance(value, str | bytes | os.PathLike):
        return _path_or_text(value)
    if isinstance(value, dict):
        pairs = [[_plain(key), _plain(member)] for key, member in value.items()]
        return ["dict", *sorted(pairs, key=json.dumps)]
    if type(value) in {tuple, list}:
        return [type(value).__name__, *map(_plain, value)]
    if value is None or type(value) in {bool, int, float}:
        return value
    raise TypeError(type(value))


def _path_or_text(value: Any) -> Any:
    with contextlib.suppress(OSError, ValueError):
        name = os.fsdecode(value)
        status = os.stat(name)  # noqa: PTH116 - many small calls
        return ["path", os.path.abspath(name), status.st_size, status.st_mtime_ns]  # noqa: PTH100
    return value if isinstance(value, str) else ["bytes", os.fsdecode(value)]
