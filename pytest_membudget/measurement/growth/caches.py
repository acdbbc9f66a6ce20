"""Caches that fill once, emptied or filled before each reading, so that they are the same in all of them.

- CPython's method cache keeps the last name that was looked up in each of its 4,096 slots, up to 256 KiB of short strings.
  Python's own leak hunter (`test.libregrtest.refleak`) clears it before each reading, and so do we.
- glibc keeps up to 7 freed chunks of each of 64 sizes for each thread and counts them as in use (`mallinfo2().uordblks`): 130 to
  240 kB that fill within some hundred calls of varying size.
- numpy keeps up to 7 freed buffers of each size below 1,024 bytes: 3.6 MB that arrays of varying length fill.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_membudget.measurement.system.fingerprint import libc_version
from pytest_membudget.originals import contextlib, ctypes, sys

_CHUNKS = 7
"""`TCACHE_FILL_COUNT` of glibc up to 2.41; where more fit in, the rest fills as before."""
_NUMPY_SIZES = 1024
"""`NBUCKETS` of numpy's `alloc.c`; it keeps `NCACHE` buffers of each, 7 as well."""
_SIZES = range(24, 1033, 16)
"""The largest request of each of the 64 classes (`tidx2usize`, 64-bit)."""


def cache_steadier() -> Callable[[], None]:
    """What to call before each reading, in the thread that runs the function (0.2 ms)."""
    clear_names = getattr(sys, "_clear_internal_caches", None) or getattr(sys, "_clear_type_cache", None)
    fill = _chunk_filler()

    def steady() -> None:
        if clear_names is not None:
            clear_names()
        if fill is not None:
            fill()
        if "numpy" in sys.modules:
            _fill_numpy(sys.modules["numpy"])

    return steady


def _fill_numpy(numpy: Any) -> None:
    """Makes and drops as many small arrays as numpy keeps buffers (1 ms)."""
    with contextlib.suppress(AttributeError):  # it is imported only half
        empty = numpy.empty
        for size in range(1, _NUMPY_SIZES):
            _ = [empty(size, "u1") for _ in range(_CHUNKS)]


def _chunk_filler() -> Callable[[], None] | None:
    if not libc_version():
        return None
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        malloc, free = library.malloc, library.free
        malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        free.restype, free.argtypes = None, [ctypes.c_void_p]
        sizes = [size for size in _SIZES for _ in range(_CHUNKS)]

        def fill() -> None:
            for chunk in [malloc(size) for size in sizes]:
                free(chunk)

        return fill
    return None
