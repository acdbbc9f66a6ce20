"""The heap of the C library: bytes in use, bytes it keeps from the system, and giving those back.

`malloc_trim(0)` gives back free pages inside all arenas, but the free end, the *top*, of the main arena only: 150 MB stay resident
after a pool of 16 threads. glibc gives each thread an arena of its own and hands the arenas of ended threads to the next new ones.
So `trim_thread_arenas` starts as many threads as there are arenas without a thread. Each takes what is free of its arena in blocks
of 120 KiB; larger ones may be mapped singly, and freeing such a one would raise malloc's threshold for that. Of blocks that lie
one behind the other it frees all but the first, lets that one grow over the others, which malloc does in place, and tells the
kernel that the pages of this one block hold nothing (`MADV_DONTNEED`). Then it is freed. Nothing but the thread's own blocks is
touched. Checked with glibc 2.36; `malloc_info` is in glibc alone.

Some libraries have an allocator of their own. Arrow's pool gives back what the calling thread freed, and not what its own threads
did; what is in use of it is known. polars has a jemalloc inside, whose calls it does not export. What it frees stays resident for
about a second and then goes by itself. What is in use and what is free cannot be distinguished from outside, so what is known is how much there is at
most (`Pool`): what is resident and anonymous, and neither malloc's nor in Python's arenas.
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

from pytest_membudget.measurement.process import high_water, proc
from pytest_membudget.measurement.process.small_blocks import SmallBlockReader
from pytest_membudget.originals import _thread, contextlib, ctypes, os, sys, time

_LINUX = sys.platform.startswith("linux")

BLOCK_BYTES = 120 * 1024
MOST_BLOCKS = 4096
"""What an arena keeps is taken from it in such blocks, and given back; larger ones might be mapped by themselves."""

LONGEST_WAIT_S = 5.0
"""For the threads that do that."""

ENDING_POLLS = 50
"""How often, once a millisecond, a thread that was joined is waited for: it may still be there for a moment."""

_MADV_DONTNEED = 4
_IS_MAPPED = 2
_WORD = 8
_AVAILABLE = re.compile(rb'<heap nr="(\d+)">.*?<total type="fast"[^>]* size="(\d+)"/>\s*<total type="rest"[^>]* size="(\d+)"', re.DOTALL)  # fmt: skip

LEAST_POOL_BYTES = 16 * 1024 * 1024
"""Stacks of threads and the like lie below."""

SETTING = "_RJEM_MALLOC_CONF"
AT_ONCE = "dirty_decay_ms:0,muzzy_decay_ms:0"
"""With this setting, made before the program starts, polars gives memory back as soon as it is free."""

_MOST_WAITING_S = 0.03
_ONE_WAIT_S = 0.001


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
    `judge_task_series` judges what never is.
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


class Arenas(NamedTuple):
    """How many arenas malloc has, and the most that is free in one of those that are not the main one, resident or not."""

    number: int = 1
    free_bytes: int = 0


def read_arenas() -> Arenas:
    """The arenas now (0.5 ms; more where much is free in many pieces); the main one alone where malloc does not say."""
    library = _library()
    if library is None:
        return Arenas()
    text, size = ctypes.c_char_p(), ctypes.c_size_t()
    stream = library.open_memstream(ctypes.byref(text), ctypes.byref(size))
    if not stream:
        return Arenas()
    library.malloc_info(0, stream)
    library.fclose(stream)
    found = _AVAILABLE.findall(ctypes.string_at(text, size.value))
    library.free(text)
    free = [int(fast) + int(rest) for number, fast, rest in found if number != b"0"]
    return Arenas(max(1, len(found)), max(free, default=0))


def trim_thread_arenas() -> Arenas:
    """Gives back what arenas without a thread keep at their top (20 to 150 ms); the arenas as they were before.

    Those of living threads are left alone.
    """
    arenas = read_arenas()
    if arenas.number > 1 and arenas.free_bytes > BLOCK_BYTES:
        most_blocks = min(MOST_BLOCKS, arenas.free_bytes // BLOCK_BYTES + 1)
        _run_in_threads(arenas.number - _living_threads(), most_blocks)
    return arenas


class _Native:
    """Threads that Python does not know, such as OpenBLAS's: those that stayed when they were waited for."""

    threads = 0


def _living_threads() -> int:
    """The threads of this process. One that Python has joined may take a moment to be gone.

    Native threads look the same, and stay: they are waited for once (50 ms), and again only where there are more.
    """
    for _ in range(ENDING_POLLS):
        living = len(proc.threads())
        unknown = living - _thread._count() - 1  # noqa: SLF001 - the only count without `threading`
        if unknown <= _Native.threads:
            break
        time.sleep(0.001)
    _Native.threads = max(0, unknown)
    return living


def _run_in_threads(count: int, most_blocks: int) -> None:
    """Trims in `count` threads, none of which ends before the last has its arena: else they would share one."""
    attached: list[None] = []
    done: list[None] = []
    deadline_s = time.monotonic() + LONGEST_WAIT_S

    def run() -> None:
        library = _library()
        with contextlib.suppress(Exception):  # it would be printed in the middle of a test
            library.free(library.malloc(1024))  # from here on the thread has an arena
            attached.append(None)
            while len(attached) < count and time.monotonic() < deadline_s:
                time.sleep(0.0005)
            _trim(library, most_blocks)
        done.append(None)

    started = 0
    with contextlib.suppress(RuntimeError):  # no more threads can be started
        for _ in range(count):
            _thread.start_new_thread(run, ())
            started += 1
    while len(done) < started and time.monotonic() < deadline_s:
        time.sleep(0.0005)


def _trim(library: Any, most_blocks: int) -> None:
    blocks: list[int] = []
    while len(blocks) < most_blocks and _take(library, BLOCK_BYTES, blocks):
        pass
    for first, *others in _runs(library, blocks):
        end = (others[-1] if others else first) + BLOCK_BYTES
        for block in reversed(others):
            library.free(block)
        grown = library.realloc(first, end - first)
        if grown:
            _give_back(library, grown)
        library.free(grown or first)


def _runs(library: Any, blocks: list[int]) -> list[list[int]]:
    """Blocks that lie one behind the other, together."""
    runs: list[list[int]] = []
    end = 0
    for block in sorted(blocks):
        if block - end > 2 * _WORD:
            runs.append([])
        runs[-1].append(block)
        end = block + library.malloc_usable_size(block)
    return runs


def _take(library: Any, size: int, blocks: list[int]) -> bool:
    """Takes a block; False where malloc has none, or has mapped it singly."""
    block = library.malloc(size)
    if not block:
        return False
    blocks.append(block)
    return not ctypes.c_size_t.from_address(block - _WORD).value & _IS_MAPPED


def _give_back(library: Any, block: int) -> None:
    """Gives back the pages that lie wholly inside a block."""
    first = -(-block // proc.PAGE_BYTES) * proc.PAGE_BYTES
    size = (block + library.malloc_usable_size(block)) // proc.PAGE_BYTES * proc.PAGE_BYTES - first
    library.madvise(first, size, _MADV_DONTNEED)


@functools.cache
def _library() -> Any:
    """The C library, called with the interpreter's lock held: each call takes microseconds. `None` where it is not glibc."""
    if not sys.platform.startswith("linux"):
        return None
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.PyDLL(None)
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        for name, result, *arguments in (
            ("malloc", pointer, size),
            ("realloc", pointer, pointer, size),
            ("free", None, pointer),
            ("malloc_usable_size", size, pointer),
            ("madvise", ctypes.c_int, pointer, size, ctypes.c_int),
            ("open_memstream", pointer, pointer, pointer),
            ("malloc_info", ctypes.c_int, ctypes.c_int, pointer),
            ("fclose", ctypes.c_int, pointer),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        return library
    return None


class Pool(NamedTuple):
    """A library that owns a pool, and the most that its pool may hold, in bytes."""

    owner: str
    most_bytes: int


def read_pool(arena_bytes: int) -> Pool | None:
    """The pool of a loaded library that may hold free memory, after a trim; `arena_bytes` are those of Python's arenas."""
    owner, used_bytes = _owner()
    if not owner:
        return None
    known = read_heap()
    if not known.system_bytes:
        return None
    resident_bytes, shared_bytes = high_water.resident_and_shared_bytes()
    # After a trim little is resident of what malloc has and is not in use.
    malloc_bytes = known.used_bytes + known.mapped_bytes
    most_bytes = resident_bytes - shared_bytes - malloc_bytes - arena_bytes - used_bytes
    return Pool(owner, most_bytes) if most_bytes > LEAST_POOL_BYTES else None


def wait_for_frees() -> None:
    """Waits until Arrow's threads have freed what the calling thread uses no more: they do so up to 20 ms later.

    What is in use for longer is held by the program.
    """
    waited_s = 0.0
    while waited_s < _MOST_WAITING_S and _owner()[1] > LEAST_POOL_BYTES:
        time.sleep(_ONE_WAIT_S)
        waited_s += _ONE_WAIT_S


def _owner() -> tuple[str, int]:
    """The loaded library with such a pool, and what it says to be in use of it."""
    if "polars" in sys.modules and AT_ONCE not in os.environ.get(SETTING, ""):
        return "polars", 0
    # A module that is imported only half, or a release without these calls, has used no pool.
    with contextlib.suppress(AttributeError):
        arrow = sys.modules.get("pyarrow")
        if arrow is not None and arrow.default_memory_pool().backend_name != "system":
            return "pyarrow", int(arrow.total_allocated_bytes())
    return "", 0
