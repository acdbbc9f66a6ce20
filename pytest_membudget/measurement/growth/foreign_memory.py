"""Memory of allocators that neither Python nor the C library knows: asked where they answer, else by their resident pages.

- Arrow says what its pool has handed out. Its default pool (mimalloc) reserves address space by the gibibyte, of which the
  resident pages count and not the size.
- jemalloc, mimalloc and tcmalloc may be preloaded in malloc's place, and duckdb has a jemalloc inside. All of them say what is in
  use: jemalloc and tcmalloc of the process, mimalloc of the calling thread.
- polars has a jemalloc inside that exports nothing. Of it only what is resident can be read, which includes what it keeps after it
  was freed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.process.proc import PAGE_BYTES
from pytest_membudget.originals import contextlib, ctypes, os, re, sys

_LINUX = sys.platform.startswith("linux")
RESERVED_BYTES = 1 << 30
"""From this size on a mapping is taken for address space that an allocator reserved."""
_PRELOADED = re.compile(rb"lib(jemalloc|mimalloc|tcmalloc|snmalloc|hoard)[^/]*$", re.MULTILINE)


def arrow_bytes() -> int:
    """What Arrow's pool has handed out; 0 where it is not loaded, or takes its memory from malloc."""
    arrow: Any = sys.modules.get("pyarrow")
    # A module that is imported only half has no pool yet.
    with contextlib.suppress(AttributeError):
        if arrow is not None and arrow.default_memory_pool().backend_name != "system":
            return int(arrow.total_allocated_bytes())
    return 0


class ForeignAllocator(NamedTuple):
    """An allocator beside Python's and the C library's."""

    name: str
    read_used_bytes: Callable[[], int] | None
    """What it has handed out; `None` where it does not say."""
    is_complete: bool
    """Whether that is all of it, and not the calling thread's part."""


_IMPORTED = ("duckdb", "polars")


class ForeignAllocators:
    """Those of this process: in malloc's place from the start, or inside of a library once that is imported."""

    def __init__(self) -> None:
        self.preloaded = _preloaded()
        self._imported: dict[str, ForeignAllocator] = {}

    @property
    def imported(self) -> tuple[ForeignAllocator, ...]:
        """A function may import such a library in its first call."""
        for name in _IMPORTED:
            if name in sys.modules and name not in self._imported:
                self._imported[name] = ForeignAllocator(name, *_asked_inside(name))
        return tuple(self._imported.values())

    @property
    def unknown(self) -> tuple[str, ...]:
        """Those of which only resident pages tell, all of it or a part."""
        return tuple(each.name for each in (*self.preloaded, *self.imported) if not each.is_complete)

    def used_bytes(self) -> int:
        """What those that answer have handed out."""
        return sum(
            each.read_used_bytes() for each in (*self.preloaded, *self.imported) if each.read_used_bytes
        )


def _preloaded() -> tuple[ForeignAllocator, ...]:
    names: set[str] = set()
    if _LINUX:
        names = {name.decode() for name in _PRELOADED.findall(proc.read("self", "maps"))}
    if not names:
        return ()
    process = ctypes.CDLL(None)
    found = []
    for name in sorted(names):
        read, is_complete = None, True
        with contextlib.suppress(AttributeError):  # built without these calls
            if name == "jemalloc":
                read = _jemalloc_reader(process.mallctl)
            elif name == "tcmalloc":
                read = _tcmalloc_reader(process.MallocExtension_GetNumericProperty)
            elif name == "mimalloc":
                read, is_complete = _mimalloc_reader(process), False
        found.append(ForeignAllocator(name, read, read is not None and is_complete))
    return tuple(found)


def _asked_inside(name: str) -> tuple[Callable[[], int] | None, bool]:
    library = getattr(sys.modules.get("_duckdb"), "__file__", None) if name == "duckdb" else None
    if library is None:
        return None, False
    with contextlib.suppress(OSError, AttributeError):
        read = _jemalloc_reader(ctypes.CDLL(library).duckdb_je_mallctl)
        return read, read is not None
    return None, False


def _jemalloc_reader(control: Any) -> Callable[[], int] | None:
    """`mallctl`, by any prefix: https://jemalloc.net/jemalloc.3.html. `None` where it was built without statistics."""
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    control.argtypes = [ctypes.c_char_p, pointer, pointer, pointer, size]
    value, length, epoch = size(), size(ctypes.sizeof(size)), ctypes.c_uint64(1)

    def read() -> int:
        # What the thread keeps for its next requests counts as allocated.
        control(b"thread.tcache.flush", None, None, None, 0)
        control(b"epoch", None, None, ctypes.byref(epoch), 8)
        failed = control(b"stats.allocated", ctypes.byref(value), ctypes.byref(length), None, 0)
        return 0 if failed else value.value

    return read if read() else None


def _tcmalloc_reader(ask: Any) -> Callable[[], int] | None:
    """`generic.current_allocated_bytes`: https://gperftools.github.io/gperftools/tcmalloc.html."""
    ask.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    value = ctypes.c_size_t()

    def read() -> int:
        answered = ask(b"generic.current_allocated_bytes", ctypes.byref(value))
        return value.value if answered else 0

    return read if read() else None


class _Area(ctypes.Structure):
    """`mi_heap_area_t` of mimalloc 2: https://microsoft.github.io/mimalloc/group__analysis.html."""

    _fields_ = tuple(
        (name, ctypes.c_size_t) for name in ("blocks", "reserved", "committed", "used", "block_size", "full")
    )


_AreaVisitor = ctypes.CFUNCTYPE(
    ctypes.c_bool,
    *(ctypes.c_void_p, ctypes.POINTER(_Area), ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p),
)


def _mimalloc_reader(library: Any) -> Callable[[], int] | None:
    """Adds up the areas of the calling thread's heap, some dozens of them a megabyte.

    Not where Python takes its own small blocks from it (PYTHONMALLOC): the heap must not change while it is visited.
    """
    if os.environ.get("PYTHONMALLOC", "").startswith("malloc"):
        return None
    heap, visit, collect = library.mi_heap_get_default, library.mi_heap_visit_blocks, library.mi_collect
    heap.restype = ctypes.c_void_p
    visit.argtypes = [ctypes.c_void_p, ctypes.c_bool, _AreaVisitor, ctypes.c_void_p]
    used_bytes = 0

    def add(_heap: Any, area: Any, _block: Any, _size: int, _argument: Any) -> bool:
        nonlocal used_bytes
        used_bytes += area[0].used * area[0].block_size
        return True

    visitor = _AreaVisitor(add)

    def read() -> int:
        nonlocal used_bytes
        collect(False)  # takes what other threads have freed of it
        used_bytes = 0
        visit(heap(), False, visitor, None)
        return used_bytes

    return read if read() else None


class ResidentPages:
    """How much of a large mapping is resident, by `mincore`; keeps its buffer, which would else be memory that comes and goes."""

    def __init__(self) -> None:
        self._buffer: Any = None
        self._mincore: Any = None
        if _LINUX:
            with contextlib.suppress(OSError, AttributeError):
                self._mincore = ctypes.CDLL(None).mincore
                self._mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]

    def bytes_of(self, begin: int, end: int) -> int:
        """Of the mapping at these addresses, in bytes (0.7 ms for 1 GiB); its size where the kernel does not say."""
        pages = -(-(end - begin) // PAGE_BYTES)
        if self._mincore is None:
            return end - begin
        if self._buffer is None or len(self._buffer) < pages:
            self._buffer = ctypes.create_string_buffer(pages)
        if self._mincore(begin, end - begin, self._buffer):
            return 0  # it is gone meanwhile
        return bytes(memoryview(self._buffer)[:pages]).count(1) * PAGE_BYTES


def anonymous_bytes(pid: int) -> int:
    """Resident memory of a process that belongs to no file; 0 for one that is gone."""
    sizes = proc.sizes(pid)
    return 0 if sizes is None else sizes.anonymous_bytes


def private_bytes_of(pid: int) -> int:
    """Resident memory that a process shares with no other, 0 where the system does not say (1 ms for 100 MB)."""
    shares = proc.shares(pid) if _LINUX else None
    return 0 if shares is None else shares.private_bytes
