"""Python's own small blocks, in bytes: those in use, those that are free, and the arenas that hold both.

`sys.getallocatedblocks()` counts blocks of anything from 16 to 512 bytes, and no function gives their bytes. The
interpreter prints them, exactly, with the other statistics of its allocator (`sys._debugmallocstats`). It prints to
descriptor 2 alone, so for that moment a file takes the place of stderr.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, NamedTuple

SMALLEST_BLOCK_BYTES = 16
STDERR = 2

_IN_USE = re.compile(rb"^# bytes in allocated blocks +=\s+([\d,]+)", re.MULTILINE)
_AVAILABLE = re.compile(rb"^# bytes in available blocks +=\s+([\d,]+)", re.MULTILINE)
_UNUSED_POOLS = re.compile(rb"^\d+ unused pools \* \d+ bytes +=\s+([\d,]+)", re.MULTILINE)
_ARENAS = re.compile(rb"^\d+ arenas \* \d+ bytes/arena +=\s+([\d,]+)", re.MULTILINE)
_OWN_TEXT = re.compile(rb"Small block threshold.*^ *\d+ free [^\n]*=[ \d,]+\n", re.MULTILINE | re.DOTALL)


class SmallBlocks(NamedTuple):
    """Bytes in use, bytes that are free for further blocks, and bytes of the arenas that hold both."""

    used_bytes: int
    free_bytes: int
    arena_bytes: int


class SmallBlockReader:
    """Reads the statistics through a file of its own, which is open until `close`."""

    def __init__(self) -> None:
        self._file = _open_beyond_stderr()
        self._taken_bytes = 0

    @functools.cached_property
    def exact(self) -> bool:
        """False where this interpreter prints no bytes: then each block counts as the smallest there is."""
        return bool(_IN_USE.search(self._print())) or sys.getallocatedblocks() == 0

    def read(self) -> SmallBlocks:
        """The figures now; zeros where Python takes its blocks from malloc (`PYTHONMALLOC=malloc`)."""
        text = self._print()
        if not _IN_USE.search(text):
            return SmallBlocks(sys.getallocatedblocks() * SMALLEST_BLOCK_BYTES, 0, 0)
        free_bytes = _bytes_of(_AVAILABLE, text) + _bytes_of(_UNUSED_POOLS, text)
        return SmallBlocks(_bytes_of(_IN_USE, text), free_bytes, _bytes_of(_ARENAS, text))

    def close(self) -> None:
        """Closes the file."""
        self._hand_on_late_text()
        self._file.close()

    def _print(self) -> bytes:
        """What the interpreter prints. Text that another thread wrote meanwhile goes where it was meant to go."""
        target = self._file.fileno()
        self._hand_on_late_text()
        os.lseek(target, 0, os.SEEK_SET)
        os.ftruncate(target, 0)
        try:
            kept = os.dup(STDERR)
        except OSError:  # the program has closed its stderr
            kept = None
        try:
            os.dup2(target, STDERR, inheritable=False)
            with _in_one_piece():
                sys._debugmallocstats()  # noqa: SLF001 - the only place that tells bytes
        finally:
            if kept is None:
                os.close(STDERR)
            else:
                os.dup2(kept, STDERR)
                os.close(kept)
        text = self._text_from(0)
        self._taken_bytes = len(text)
        foreign = _OWN_TEXT.sub(b"", text, count=1)
        if foreign and kept is not None and _OWN_TEXT.search(text):
            os.write(STDERR, foreign)
        return text

    def _hand_on_late_text(self) -> None:
        """Another thread may have begun to write while stderr was ours, and ended after the file was read."""
        late = self._text_from(self._taken_bytes)
        if late:
            self._taken_bytes += len(late)
            with contextlib.suppress(OSError):
                os.write(STDERR, late)

    def _text_from(self, begin: int) -> bytes:
        """Leaves the place where it is at which the next text would be written."""
        target = self._file.fileno()
        size = os.fstat(target).st_size - begin
        if size <= 0:
            return b""
        if hasattr(os, "pread"):
            return os.pread(target, size, begin)
        place = os.lseek(target, 0, os.SEEK_CUR)
        os.lseek(target, begin, os.SEEK_SET)
        text = os.read(target, size)
        os.lseek(target, place, os.SEEK_SET)
        return text


_UNBUFFERED, _FULLY_BUFFERED = 2, 0
_GATHERED = ctypes.create_string_buffer(1 << 16)


@contextlib.contextmanager
def _in_one_piece() -> Iterator[None]:
    """Has C's stderr gather what is printed: another thread's text gets before or after it, not into the middle."""
    found = _c_stderr()
    if found is None:
        yield
        return
    library, stream = found
    library.setvbuf(stream, _GATHERED, _FULLY_BUFFERED, len(_GATHERED))
    try:
        yield
    finally:
        library.fflush(stream)
        library.setvbuf(stream, None, _UNBUFFERED, 0)


@functools.cache
def _c_stderr() -> tuple[ctypes.CDLL, ctypes.c_void_p] | None:
    """The C library and its stderr, looked up once: each lookup leaves memory that is being measured."""
    try:
        library = ctypes.CDLL(None)
        library.setvbuf.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t)
        return library, ctypes.c_void_p.in_dll(library, "stderr")
    except (OSError, TypeError, ValueError, AttributeError):  # it has another name there, or no such library
        return None


def _open_beyond_stderr() -> IO[bytes]:
    """A file in memory, or a temporary one, whose descriptor is no standard one: the program may have closed those."""
    with contextlib.ExitStack() as low:
        while True:
            file = _nameless_file()
            if file.fileno() > STDERR:
                return file
            low.enter_context(file)


def _nameless_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("malloc-statistics"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _bytes_of(line: re.Pattern[bytes], text: bytes) -> int:
    found = line.search(text)
    return int(found[1].replace(b",", b"")) if found else 0
