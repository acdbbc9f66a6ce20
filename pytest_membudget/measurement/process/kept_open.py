"""Descriptors of ours: files of /proc/self that stay open, since to open one costs several times what it costs to read it.

Code under test may close descriptors that it does not know. A number that came to mean another file must never be read
as ours, let alone written to, so each use asks what the number means now (1 µs).
"""

from __future__ import annotations

from pytest_membudget.originals import fcntl, os


class KeptOpen:
    """One such file, opened when first asked for, and again where the descriptor is no longer ours."""

    def __init__(self, file: str, flags: int) -> None:
        self._file = file
        self._flags = flags
        self._descriptor = -1
        self._identity: tuple[int, int] | None = None

    def descriptor(self) -> int:
        """The open file.

        Raises:
            OSError: it cannot be opened.
        """
        if not self._is_ours():
            self._descriptor = os.open(self._file, self._flags | os.O_CLOEXEC)
            self._identity = identity(self._descriptor)
        return self._descriptor

    def close(self) -> None:
        """Closes it until it is asked for again: in a forked child, for one, where it is still its parent's."""
        if self._is_ours():
            os.close(self._descriptor)
        self._identity = None

    def _is_ours(self) -> bool:
        return self._identity is not None and identity(self._descriptor) == self._identity


def pipe() -> tuple[int, int]:
    """Both ends of a pipe, above the standard descriptors: where a program has closed one of those, its number is not ours."""
    reading, writing = os.pipe()
    return above_standard(reading), above_standard(writing)


def above_standard(descriptor: int) -> int:
    """The descriptor, moved where its number is that of standard input, output or errors."""
    if descriptor > 2:
        return descriptor
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)
    return moved


def identity(descriptor: int) -> tuple[int, int] | None:
    """The file that the number means, by its device and inode; `None` where it is closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino
