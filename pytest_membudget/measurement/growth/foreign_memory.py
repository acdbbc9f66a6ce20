"""Memory of allocators that neither Python nor the C library knows: Arrow's pool, and what only resident pages tell.

- Arrow says what its pool has handed out, exactly. Its default pool (mimalloc) reserves address space by the gibibyte, of which the
  resident pages count and not the size.
- polars and duckdb have allocators inside, and jemalloc, mimalloc or tcmalloc may be preloaded in malloc's place. Of those only
  what is resident can be read; what they keep after it was freed is in that too.
"""

from __future__ import annotations

from typing import Any

from pytest_membudget.measurement.process.high_water import PAGE_BYTES
from pytest_membudget.originals import builtins, contextlib, ctypes, os, re, sys

_LINUX = sys.platform.startswith("linux")
RESERVED_BYTES = 1 << 30
"""From this size on a mapping is taken for address space that an allocator reserved."""
_LIBRARIES = ("polars", "duckdb")
_PRELOADED = re.compile(rb"lib(jemalloc|mimalloc|tcmalloc|snmalloc|hoard)[^/]*$", re.MULTILINE)


def arrow_bytes() -> int:
    """What Arrow's pool has handed out; 0 where it is not loaded, or takes its memory from malloc."""
    arrow: Any = sys.modules.get("pyarrow")
    # A module that is imported only half has no pool yet.
    with contextlib.suppress(AttributeError):
        if arrow is not None and arrow.default_memory_pool().backend_name != "system":
            return int(arrow.total_allocated_bytes())
    return 0


def libraries_with_allocators() -> tuple[str, ...]:
    """Loaded libraries whose memory shows only by resident pages."""
    return tuple(name for name in _LIBRARIES if name in sys.modules)


def preloaded_allocators() -> tuple[str, ...]:
    """Allocators in the place of malloc, likewise."""
    if _LINUX:
        with contextlib.suppress(OSError), builtins.open("/proc/self/maps", "rb") as maps:
            return tuple(sorted({name.decode() for name in _PRELOADED.findall(maps.read())}))
    return ()


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
    with (
        contextlib.suppress(OSError, IndexError),
        builtins.open(f"/proc/{pid}/statm", "rb", buffering=0) as statm,
    ):
        fields = statm.read(128).split()
        return (int(fields[1]) - int(fields[2])) * PAGE_BYTES
    return 0


class SharedFiles:
    """Files in shared memory that appeared since this was made and are this user's: what nobody maps is in no process."""

    folder = "/dev/shm"  # noqa: S108 - where the system has them

    def __init__(self) -> None:
        self._before = self._names()

    def read(self) -> tuple[int, int]:
        """Their number and the bytes that they hold. Another program's of the same user count too."""
        count = size_bytes = 0
        for name in self._names() - self._before:
            with contextlib.suppress(OSError):
                status = os.stat(f"{self.folder}/{name}", follow_symlinks=False)
                if status.st_uid == os.getuid():
                    count += 1
                    size_bytes += status.st_blocks * 512
        return count, size_bytes

    def names(self) -> frozenset[str]:
        """What is there now and was not there before."""
        return self._names() - self._before

    def _names(self) -> frozenset[str]:
        try:
            return frozenset(os.listdir(self.folder)) if _LINUX else frozenset()
        except OSError:
            return frozenset()
