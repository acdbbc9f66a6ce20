"""What would look like growth and is not the function's: kept warnings, slow collections, caches that fill up once.

Caches are emptied or filled before each reading, so that they are the same in all of them:

- CPython's method cache keeps the last name that was looked up in each of its 4,096 slots, up to 256 KiB of short strings.
  Python's own leak hunter (`test.libregrtest.refleak`) clears it before each reading, and so do we.
- glibc keeps up to 7 freed chunks of each of 64 sizes for each thread and counts them as in use (`mallinfo2().uordblks`): 130 to
  240 kB that fill within some hundred calls of varying size.
- numpy keeps up to 7 freed buffers of each size below 1,024 bytes: 3.6 MB that arrays of varying length fill.
"""

from __future__ import annotations

import gc as live_gc  # changed here
import warnings as live_warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pytest_membudget.measurement.process.garbage import collector
from pytest_membudget.measurement.system.fingerprint import libc_version
from pytest_membudget.originals import contextlib, ctypes, gc, sys


@contextmanager
def each_warning_once() -> Iterator[None]:
    """A test runner keeps every warning that it gets: what it keeps of each call is not the call's own growth."""
    show = live_warnings.showwarning
    shown = set()

    def show_once(message: Any, category: Any, filename: str, lineno: int, *rest: Any, **named: Any) -> None:
        if (category, filename, lineno) not in shown:
            shown.add((category, filename, lineno))
            show(message, category, filename, lineno, *rest, **named)

    live_warnings.showwarning = show_once
    try:
        yield
    finally:
        live_warnings.showwarning = show


@contextmanager
def old_objects_frozen() -> Iterator[None]:
    """Takes what exists already out of every collection, so that collecting after each round is cheap.

    A function that asks the collector what there is gets everything, as ever: from its first question on nothing is frozen.
    """
    frozen_before = gc.get_freeze_count()
    answers = {name: getattr(live_gc, name) for name in _QUESTIONS}
    collector.collect_fully()
    gc.freeze()

    def thaw() -> None:
        gc.unfreeze()
        for name, answer in answers.items():
            setattr(live_gc, name, answer)

    def thawing(answer: Callable[..., Any]) -> Callable[..., Any]:
        def answer_thawed(*arguments: Any, **named: Any) -> Any:
            thaw()
            return answer(*arguments, **named)

        return answer_thawed

    for name, answer in answers.items():
        setattr(live_gc, name, thawing(answer))
    try:
        yield
    finally:
        thaw()
        if frozen_before:
            gc.freeze()


_QUESTIONS = ("freeze", "get_freeze_count", "get_objects", "get_referrers", "unfreeze")
"""What tells a program that objects are frozen."""


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
