"""Python's own small blocks, in bytes: those in use, those that are free, and the arenas that hold both.

`sys.getallocatedblocks()` counts blocks of anything from 16 to 512 bytes, and no function gives their bytes. The
interpreter prints them, exactly, with the other statistics of its allocator (`sys._debugmallocstats`). It prints to C's stderr
alone, so for that moment a stream of ours takes its place, or where that cannot be done a file takes that of descriptor 2.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import IO, NamedTuple

from pytest_membudget.originals import builtins, contextlib, ctypes, fcntl, os, re, sys, tempfile

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
        self._stream = _stream_on(self._file.fileno())

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
        if self._stream is None:
            self._hand_on_late_text()
        else:
            self._stream.close()
        self._file.close()

    def _print(self) -> bytes:
        """What the interpreter prints."""
        target = self._file.fileno()
        if self._stream is None:
            self._hand_on_late_text()
        os.lseek(target, 0, os.SEEK_SET)
        os.ftruncate(target, 0)
        if self._stream is None:
            return self._print_in_place_of_stderr(target)
        with self._stream.as_stderr():
            sys._debugmallocstats()  # noqa: SLF001 - only this has bytes
        return self._text_from(0)

    def _print_in_place_of_stderr(self, target: int) -> bytes:
        """Text that another thread wrote meanwhile goes where it was meant to go, but for what got into the middle."""
        try:
            kept = os.dup(STDERR)
        except OSError:  # the program has closed its stderr
            kept = None
        try:
            os.dup2(target, STDERR, inheritable=False)
            sys._debugmallocstats()  # noqa: SLF001 - only this has bytes
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


class _Stream:
    """A C stream on a file, which C's `stderr` can mean for a moment: descriptor 2 stays what it is for all others.

    For the GNU C library, whose `stderr` is a variable; others may have it in memory that cannot be written to.
    """

    def __init__(self, descriptor: int) -> None:
        self._library, self._stderr = _c_library()
        # No standard descriptor: the program may have closed those, and what is written to them is not for us.
        own = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, STDERR + 1)
        self._stream = self._library.fdopen(own, b"w")
        if not self._stream:
            os.close(own)
            raise OSError("no stream could be opened")

    @contextlib.contextmanager
    def as_stderr(self) -> Iterator[None]:
        """What C code prints to `stderr` goes to the file; Python's lock is held meanwhile."""
        before, self._stderr.value = self._stderr.value, self._stream
        try:
            yield
        finally:
            self._stderr.value = before
            self._library.fflush(self._stream)

    def close(self) -> None:
        """Gives the stream and its descriptor back."""
        self._library.fclose(self._stream)


@functools.cache
def _c_library() -> tuple[ctypes.CDLL, ctypes.c_void_p]:
    """The C library and its `stderr`, looked up once: each lookup leaves garbage in the memory that is being measured."""
    library = ctypes.CDLL(None)
    library.fdopen.restype = ctypes.c_void_p
    library.fflush.argtypes = library.fclose.argtypes = (ctypes.c_void_p,)
    return library, ctypes.c_void_p.in_dll(library, "stderr")


def libc_version() -> str:
    """Such as "glibc 2.36"; empty where the library does not say."""
    if hasattr(os, "confstr"):
        with contextlib.suppress(ValueError, OSError):
            return os.confstr("CS_GNU_LIBC_VERSION") or ""
    return ""


def _stream_on(descriptor: int) -> _Stream | None:
    if not libc_version():
        return None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return _Stream(descriptor)
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
        # `os.fdopen` looks `io.open` up when it is called, which pyfakefs replaces.
        return builtins.open(os.memfd_create("malloc-statistics"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _bytes_of(line: re.Pattern[bytes], text: bytes) -> int:
    found = line.search(text)
    return int(found[1].replace(b",", b"")) if found else 0
