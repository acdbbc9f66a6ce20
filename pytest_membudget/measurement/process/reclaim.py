"""Before a judged block: garbage is collected, freed memory goes back to the system, and what stays is known.

Freed memory that the process keeps is resident already, so a block that reuses it seems to take none. `malloc_trim`
gives the C library's share back, and Arrow that of its pool where it is loaded. Python's own small blocks come in
arenas, and one survivor keeps a whole arena: the free blocks in them are counted, and a measurement that could have
reused them says so. So it does where a library's pool can only be bounded (`allocator_pools`).
"""

from __future__ import annotations

from typing import NamedTuple

from pytest_membudget.measurement.process import allocator_pools, garbage, heap, high_water
from pytest_membudget.measurement.process.garbage import FullCollections
from pytest_membudget.measurement.process.heap import trim_thread_arenas
from pytest_membudget.measurement.process.small_blocks import SmallBlockReader, SmallBlocks
from pytest_membudget.originals import contextlib, sys
from pytest_membudget.records.caveats import Caveat, Kind

WORTH_SAYING_BYTES = 2 * 1024 * 1024
WORTH_TRIMMING_BYTES = 1024 * 1024
"""Where less was added than this a trim would change little."""
LITTLE_BYTES = 128 * 1024
LITTLE_BLOCKS = 4000
"""Of 16 to 512 bytes each."""


class _LastTrim:
    """What was resident after the last trim: where no more is, nothing is kept since."""

    resident_bytes = 0


def trim_threads() -> int:
    """Gives back what the arenas of ended threads keep, where much is resident that was not after the last time (20 to 150 ms).

    Returns the bytes that were given back.
    """
    before_bytes = high_water.resident_bytes()
    if before_bytes < _LastTrim.resident_bytes + WORTH_TRIMMING_BYTES:
        _LastTrim.resident_bytes = min(_LastTrim.resident_bytes, before_bytes)
        return 0
    trim_thread_arenas()
    _LastTrim.resident_bytes = high_water.resident_bytes()
    return max(0, before_bytes - _LastTrim.resident_bytes)


class _Lately:
    """What was found last: between two short tests next to nothing changes, and asking again would take longer than they."""

    trimmed_resident_bytes = -LITTLE_BYTES
    trimmed_heap_bytes = 0
    trims = True
    counted_resident_bytes = counted_blocks = -1_000_000_000
    blocks = SmallBlocks(0, 0, 0)


def trim_if_worthwhile() -> bool:
    """Gives freed memory back (50 to 100 µs) where more is resident or less in use than after the last time; whether that can be done."""
    resident_bytes, used_bytes = high_water.resident_bytes(), heap.heap_in_use_bytes()
    if (
        resident_bytes < _Lately.trimmed_resident_bytes + LITTLE_BYTES
        and used_bytes > _Lately.trimmed_heap_bytes - LITTLE_BYTES
    ):
        # Memory that went elsewhere must not hide what malloc keeps from now on, nor what is freed of what was added.
        _Lately.trimmed_resident_bytes = min(_Lately.trimmed_resident_bytes, resident_bytes)
        _Lately.trimmed_heap_bytes = max(_Lately.trimmed_heap_bytes, used_bytes)
        return _Lately.trims
    _Lately.trims = heap.trim_heap()
    _Lately.trimmed_resident_bytes, _Lately.trimmed_heap_bytes = high_water.resident_bytes(), used_bytes
    return _Lately.trims


def _small_blocks_lately() -> SmallBlocks:
    """Python's small blocks (0.1 to 0.4 ms), counted again where resident memory or their number has changed by something."""
    resident_bytes, blocks = high_water.resident_bytes(), sys.getallocatedblocks()
    changed = abs(resident_bytes - _Lately.counted_resident_bytes) > 2 * LITTLE_BYTES
    if changed or abs(blocks - _Lately.counted_blocks) > LITTLE_BLOCKS:
        _Lately.blocks = _small_blocks()
        _Lately.counted_resident_bytes, _Lately.counted_blocks = resident_bytes, blocks
    return _Lately.blocks


class Kept(NamedTuple):
    """What the process holds without using it, in bytes; `trimmed` is whether the C library gave its share back.

    `pool` is a library's own that gives nothing back when asked.
    """

    small_blocks_bytes: int = 0
    trimmed: bool = True
    pool: allocator_pools.Pool | None = None
    collections: FullCollections | None = None
    """Before the start, where old garbage was left alone; `None` where all of it was collected."""

    def caveats(self) -> list[Caveat]:
        """What a reader of the figure must know."""
        found = []
        if self.small_blocks_bytes > WORTH_SAYING_BYTES:
            found.append(Caveat("kept-small-blocks", self.small_blocks_bytes))
        if not self.trimmed:
            found.append(Caveat("not-trimmed"))
        if self.pool is not None:
            kind: Kind = "arrow-pool" if self.pool.owner == "pyarrow" else "library-pool"
            found.append(Caveat(kind, self.pool.most_bytes, self.pool.owner))
        if self.collections is not None and FullCollections.so_far().collected > self.collections.collected:
            found.append(Caveat("collected-inside"))
        return found


def reclaim() -> Kept:
    """Collects (fully where that is affordable), trims and counts what is kept, as far as anything has changed."""
    collections = None if garbage.collector.collect() else FullCollections.so_far()
    blocks = _small_blocks_lately()
    trimmed = trim_if_worthwhile()
    if trimmed:
        trim_threads()
    return Kept(blocks.free_bytes, trimmed, allocator_pools.read_pool(blocks.arena_bytes), collections)


def read_pool() -> allocator_pools.Pool | None:
    """A library's own pool, where one may hold free memory at the end of a block."""
    allocator_pools.wait_for_frees()
    return allocator_pools.read_pool(_small_blocks().arena_bytes)


def kept_small_blocks_bytes() -> int:
    """Free blocks in Python's arenas, in bytes; zero where the interpreter does not tell."""
    return _small_blocks().free_bytes


def _small_blocks() -> SmallBlocks:
    with contextlib.suppress(OSError), contextlib.closing(SmallBlockReader()) as reader:
        return reader.read()
    return SmallBlocks(0, 0, 0)  # no descriptor is left for the file that they are read through
