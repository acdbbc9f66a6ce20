"""The heap of the C library: bytes in use, and bytes it keeps from the system."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from pytest_membudget.measurement.process.small_blocks import SmallBlockReader
from pytest_membudget.originals import contextlib, ctypes, sys

_LINUX = sys.platform.startswith("linux")


class Heap(NamedTuple):
    """Bytes in use in malloc's heaps, in its single mappings, and what the heaps took from the system in all."""

    used_bytes: int
    mapped_bytes: int
    system_bytes: int

    @property
    def kept_bytes(self) -> int:
        """What the heaps hold without using it: fragments, and memory kept for the next request."""
        return max(0, self.system_bytes - self.used_bytes) if self.system_bytes else 0


def heap_is_known() -> bool:
    """Whether malloc's own figures can be read here: not with musl's, for one."""
    return _heap_info() is not None


def read_heap() -> Heap:
    """The heap now; zeros where malloc does not say.

    A few microseconds; malloc walks through its free pieces, so that 100,000 of them make it 10 ms.
    """
    ask_in_use, ask = _heap_info(), _mallinfo()
    if ask_in_use is None:
        return Heap(0, 0, 0)
    found = ask_in_use()
    return Heap(int(found.heap_used), int(found.mmap_used), int(ask().arena) if ask else 0)


def heap_in_use_bytes() -> int:
    """Bytes in use in the heaps and in single mappings, in half the time that `read_heap` takes."""
    ask = _heap_info()
    if ask is None:
        return 0
    found = ask()
    return int(found.heap_used) + int(found.mmap_used)


def trim_heap() -> bool:
    """Gives freed memory that malloc keeps back to the system (2 µs where there is none); False where it cannot.

    Arrow's pool gives back what it keeps as well, where it is loaded (0.3 ms).
    """
    _trim_arrow()
    try:
        import psutil

        psutil.heap_trim()
    except (ImportError, AttributeError, OSError, RuntimeError):
        return False
    return True


def _trim_arrow() -> None:
    arrow = sys.modules.get("pyarrow")
    if arrow is None:
        return
    # A module that is imported only half, or a release without these calls, has nothing to give back.
    with contextlib.suppress(AttributeError):
        arrow.default_memory_pool().release_unused()


class TaskHeap:
    """Heap in use of this process: malloc exactly, and Python's small blocks by their number.

    How many bytes a block has is measured once, at the start; afterwards a reading takes some microseconds and
    collects nothing. Garbage that waits for the collector is counted: it is gone in a later reading, and
    `judge_task_series` looks at what never is.
    """

    def __init__(self) -> None:
        with contextlib.closing(SmallBlockReader()) as reader:
            blocks = sys.getallocatedblocks()
            self._bytes_per_block = reader.read().used_bytes / blocks if blocks else 0.0

    def read(self) -> int:
        """Bytes of heap in use now."""
        return heap_in_use_bytes() + int(sys.getallocatedblocks() * self._bytes_per_block)


@functools.cache
def _heap_info() -> Any:
    try:
        import psutil
    except ImportError:
        return None
    return getattr(psutil, "heap_info", None)


@functools.cache
def _mallinfo() -> Any:
    if not _LINUX:
        return None
    # AttributeError: not glibc, or one before 2.33.
    with contextlib.suppress(OSError, AttributeError):
        ask = ctypes.CDLL(None).mallinfo2
        ask.restype = _MallocInfo
        return ask
    return None


class _MallocInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks"),
            "keepcost",
        )
    )
