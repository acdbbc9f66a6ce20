"""Before a judged block: garbage is collected, freed memory goes back to the system, and what stays is known.

Freed memory that the process keeps is resident already, so a block that reuses it seems to take none. `malloc_trim`
gives the C library's share back, and Arrow that of its pool where it is loaded. Python's own small blocks come in
arenas, and one survivor keeps a whole arena: the free blocks in them are counted, and a measurement that could have
reused them says so. So it does where a library's pool can only be bounded (`own_pools`).
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
from typing import NamedTuple

from pytest_membudget.measurement import heap, own_pools
from pytest_membudget.units import format_size

WORTH_SAYING_BYTES = 2 * 1024 * 1024

_FREE_BLOCKS = re.compile(r"# bytes in available blocks\s+=\s+([\d,]+)")
_ARENAS = re.compile(r"\d+ arenas \* \d+ bytes/arena\s+=\s+([\d,]+)")
_UNUSED_POOLS = re.compile(r"(\d+) unused pools \* (\d+) bytes")


class Kept(NamedTuple):
    """What the process holds without using it, in bytes; `trimmed` is whether the C library gave its share back.

    `pool` is a library's own that gives nothing back when asked.
    """

    small_blocks_bytes: int = 0
    trimmed: bool = True
    pool: own_pools.Pool | None = None

    def caveats(self) -> list[str]:
        """What a reader of the figure must know."""
        found = []
        if self.small_blocks_bytes > WORTH_SAYING_BYTES:
            found.append(
                f"up to {format_size(self.small_blocks_bytes)} of freed memory that Python kept before the start "
                "could be reused and is not in the peak; run it first or isolated to see that too"
            )
        if not self.trimmed:
            found.append(
                "memory that was freed before the start could not be given back to the system (psutil.heap_trim "
                "is missing here), so the block may have reused it unseen"
            )
        if self.pool is not None:
            found.append(str(self.pool))
        return found


def settle() -> Kept:
    """Collects (10-74 ms in a large session), trims (2 µs) and counts what is kept."""
    gc.collect()
    statistics = _malloc_statistics()
    trimmed = heap.trim_heap()
    return Kept(_free_bytes(statistics), trimmed, own_pools.read_pool(_arena_bytes(statistics)))


def kept_small_blocks_bytes() -> int:
    """Free blocks in Python's arenas, in bytes; zero where the interpreter does not tell."""
    return _free_bytes(_malloc_statistics())


def _arena_bytes(statistics: str) -> int:
    arenas = _ARENAS.search(statistics)
    return int(arenas[1].replace(",", "")) if arenas else 0


def _free_bytes(statistics: str) -> int:
    free = _FREE_BLOCKS.search(statistics)
    pools = _UNUSED_POOLS.search(statistics)
    total = int(free[1].replace(",", "")) if free else 0
    return total + (int(pools[1]) * int(pools[2]) if pools else 0)


def _malloc_statistics() -> str:
    """`sys._debugmallocstats` writes to the C library's stderr alone: for its millisecond that leads to memory."""
    report = getattr(sys, "_debugmallocstats", None)
    if report is None or not hasattr(os, "memfd_create"):
        return ""
    with contextlib.suppress(OSError):
        own = os.memfd_create("malloc-statistics")
        try:
            stderr = os.dup(2)
            try:
                os.dup2(own, 2)
                report()
            finally:
                os.dup2(stderr, 2)
                os.close(stderr)
            return os.pread(own, os.fstat(own).st_size, 0).decode("ascii", "replace")
        finally:
            os.close(own)
    return ""
