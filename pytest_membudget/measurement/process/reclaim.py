"""Before a judged block: garbage is collected, freed memory goes back to the system, and what stays is known.

A full collection takes 10 to 400 ms where much is alive, so one before each short test would take longer than the tests. Fully
is therefore collected while that takes at most a twentieth of the time; at other times only what is young. Old garbage then stays
where it is, which changes a figure only where Python itself collects it inside the block: `FullCollections` shows that.

What a finalizer raises, and a `ResourceWarning` under `-W error` is an exception too, belongs to whatever test left the garbage.
pytest would blame the test in whose call it comes. So it is kept, and handed on by `report_deferred` when the tests are over.

Freed memory that the process keeps is resident already, so a block that reuses it seems to take none. `malloc_trim`
gives the C library's share back, and Arrow that of its pool where it is loaded. Python's own small blocks come in
arenas, and one survivor keeps a whole arena: the free blocks in them are counted, and a measurement that could have
reused them says so. So it does where a library's pool can only be bounded (`heap.Pool`).
"""

from __future__ import annotations

import sys as live_sys  # its hook changes by design
from dataclasses import dataclass
from typing import Any, NamedTuple

from pytest_membudget.measurement.process import heap, high_water
from pytest_membudget.measurement.process.heap import trim_thread_arenas
from pytest_membudget.measurement.process.small_blocks import SmallBlockReader, SmallBlocks
from pytest_membudget.originals import contextlib, gc, sys, time
from pytest_membudget.records.measurement import Caveat, CaveatKind

WORTH_SAYING_BYTES = 2 * 1024 * 1024
WORTH_TRIMMING_BYTES = 1024 * 1024
"""Where less was added than this a trim would change little."""
LITTLE_BYTES = 128 * 1024
"""So much may be kept before a block: giving it back would take longer than a short test, and the block would fault it in again."""
LITTLE_BLOCKS = 4000
"""Of 16 to 512 bytes each."""

SHARE_OF_TIME = 0.05
_LITTLE_S = 0.1
_PER_BLOCK_S = 60e-9
"""Measured: 24 ns of processor time in an empty interpreter, 120 with pandas, 40 beside a million dicts."""
_OLDEST = 2
_YOUNG = 1
_FROZEN_BY_PYTHON = 1000
"""CPython 3.12 begins with some 400 frozen objects; a program that freezes its own has tens of thousands."""
_MOST_DEFERRED = 1000


class FullCollections(NamedTuple):
    """Python's full collections so far: their number, and the number of objects that they freed."""

    runs: int
    collected: int

    @classmethod
    def so_far(cls) -> FullCollections:
        """As the interpreter counts them (1 µs)."""
        oldest = gc.get_stats()[_OLDEST]
        return cls(oldest["collections"], oldest["collected"])


class GarbageCollector:
    """Collects before judged blocks: fully while that takes at most `share` of the time since it was made."""

    def __init__(self, share: float = SHARE_OF_TIME) -> None:
        self._share = share
        self._began_s = time.perf_counter()
        self._spent_s = self._last_s = self._first_s = 0.0
        self._deferred: list[_Unraisable] = []
        self._allocated = self._fully_due = 0

    def collect(self, share: float | None = None) -> bool:
        """Collects; whether it was a full collection, after which no old garbage is left. `share` counts for this time only."""
        begun_s = time.perf_counter()
        allowed_s = (self._share if share is None else share) * (begun_s - self._began_s)
        if self._spent_s + self._last_s > allowed_s or not self._is_first_affordable(
            max(allowed_s, _LITTLE_S)
        ):
            self.collect_young()
            return False
        self.collect_fully()
        self._last_s = time.perf_counter() - begun_s
        self._spent_s += self._last_s
        return True

    def _is_first_affordable(self, allowed_s: float) -> bool:
        """Whether the first full collection takes no longer than that; of the others the one before shows that."""
        if not self._last_s and self._first_s <= allowed_s:
            self._first_s = sys.getallocatedblocks() * _PER_BLOCK_S
        return bool(self._last_s) or self._first_s <= allowed_s

    def collect_young(self) -> None:
        """What came since the last time, which takes 10 to 20 µs after a short test.

        Python counts such collections, and after ten of them it collects everything: in a suite of short tests that took a tenth of the
        time. So they are left out of its count until as much was allocated as it waits for by itself.
        """
        allocated, collections, fully_due = gc.get_count()
        self._collect(_YOUNG)
        first, second, third = gc.get_threshold()
        if fully_due < self._fully_due:  # it has collected fully since
            self._allocated = 0
        self._fully_due = fully_due
        self._allocated += allocated + collections * first
        if self._allocated < first * second * third and gc.get_freeze_count() < _FROZEN_BY_PYTHON:
            gc.freeze()  # which sets the counts to 0; young objects there are none
            gc.unfreeze()
            self._fully_due = 0

    def collect_fully(self) -> None:
        """Whatever it takes."""
        self._collect(_OLDEST)

    def report_deferred(self) -> None:
        """Hands what finalizers raised to the hook that is installed now."""
        deferred, self._deferred = self._deferred, []
        for each in deferred:
            # The interpreter's own hook takes nothing but the interpreter's own records.
            with contextlib.suppress(TypeError):
                live_sys.unraisablehook(each)  # type: ignore[arg-type]

    def _collect(self, generation: int) -> None:
        before = live_sys.unraisablehook
        live_sys.unraisablehook = self._defer
        try:
            gc.collect(generation)
        finally:
            live_sys.unraisablehook = before

    def _defer(self, raised: Any) -> None:
        if len(self._deferred) < _MOST_DEFERRED:
            # Neither the object nor its frames: what was garbage must go now.
            error = None if raised.exc_value is None else raised.exc_value.with_traceback(None)
            self._deferred.append(
                _Unraisable(raised.exc_type, error, None, raised.err_msg, _Shown(raised.object))
            )


class _Shown:
    """Stands for an object that is gone, and reads like it."""

    def __init__(self, original: object) -> None:
        self._text = object.__repr__(original)
        with contextlib.suppress(Exception):  # whatever its own representation raises
            self._text = repr(original)

    def __repr__(self) -> str:
        return self._text


class _Unraisable(NamedTuple):
    """What `sys.unraisablehook` gets."""

    exc_type: type[BaseException]
    exc_value: BaseException | None
    exc_traceback: None
    err_msg: str | None
    object: _Shown


collector = GarbageCollector()
at_end = GarbageCollector()
"""After judged blocks that hold more than at their start, with a share of the time that is its own."""


class Series(NamedTuple):
    """What blocks share that follow one another, before most of which nothing was freed but what they took themselves.

    `little_bytes` of freed memory may be kept before a block, and be missing in its figure. `share` of the time is for full
    collections before judged blocks, and as much for those after them.
    """

    little_bytes: int = LITTLE_BYTES
    share: float = SHARE_OF_TIME
    #: a block by itself: what went before it is unknown, so the allocators are asked
    is_single: bool = False


SINGLE = Series(is_single=True)


_NO_BLOCKS = SmallBlocks(0, 0, 0)


@dataclass(slots=True)
class _Lately:
    """What was found last: between two short tests next to nothing changes, and asking again would take longer than they."""

    threads_trimmed_resident_bytes: int = 0  #: resident after the arenas of ended threads were trimmed
    trimmed_resident_bytes: int = -LITTLE_BYTES  #: resident after the last trim, or less where less was since
    trimmed_heap_bytes: int = 0  #: in use in malloc's heap then, or more where more was since
    trims: bool = True  #: whether the C library gives memory back
    trims_unasked: int = 0  #: blocks of a series in a row before which malloc was not asked
    growing_for: int = 0  #: blocks of a series to come before which young garbage is collected
    counted_resident_bytes: int = -1_000_000_000  #: resident when Python's small blocks were counted
    counted_blocks: int = -1_000_000_000  #: their number then
    blocks: SmallBlocks = _NO_BLOCKS  #: what they held then
    counts_unasked: int = 0  #: blocks of a series in a row before which they were not counted


_lately = _Lately()


def trim_threads() -> int:
    """Gives back what the arenas of ended threads keep, where much is resident that was not after the last time (20 to 150 ms).

    Returns the bytes that were given back.
    """
    before_bytes = high_water.resident_bytes()
    if before_bytes < _lately.threads_trimmed_resident_bytes + WORTH_TRIMMING_BYTES:
        _lately.threads_trimmed_resident_bytes = min(_lately.threads_trimmed_resident_bytes, before_bytes)
        return 0
    trim_thread_arenas()
    _lately.threads_trimmed_resident_bytes = high_water.resident_bytes()
    return max(0, before_bytes - _lately.threads_trimmed_resident_bytes)


MOST_UNASKED = 8
"""So many blocks of a series in a row do not ask malloc what is in use, which takes 15 to 70 µs: it walks through its free pieces."""

GROWING_FOR = 16
"""So many blocks of a series after one before which more was resident."""


def expect_frees() -> None:
    """The next block of a series asks the allocators: a fixture of several tests has ended, or the like."""
    _lately.trims_unasked = _lately.counts_unasked = MOST_UNASKED


def collect_if_growing() -> None:
    """Collects young garbage where more was resident lately.

    Memory would grow by each test's garbage, be given back and be faulted in again, which takes ten times as long.
    """
    if _lately.growing_for and gc.isenabled():
        _lately.growing_for -= 1
        collector.collect_young()


def trim_if_worthwhile(little_bytes: int = LITTLE_BYTES, *, in_series: bool = False) -> bool:
    """Gives freed memory back (50 to 100 µs) where more is resident or less in use than after the last time; whether that can be done.

    Memory of a series' own blocks that was freed shows in what is resident; `in_series`, malloc is seldom asked about older one.
    Less than `little_bytes` may stay.
    """
    resident_bytes = high_water.resident_bytes()
    has_grown = resident_bytes >= _lately.trimmed_resident_bytes + little_bytes
    if in_series and not has_grown and _lately.trims_unasked < MOST_UNASKED:
        _lately.trimmed_resident_bytes = min(_lately.trimmed_resident_bytes, resident_bytes)
        _lately.trims_unasked += 1
        return _lately.trims
    _lately.trims_unasked = 0
    used_bytes = heap.heap_in_use_bytes()
    if not has_grown and used_bytes > _lately.trimmed_heap_bytes - little_bytes:
        # Memory that went elsewhere must not hide what malloc keeps from now on, nor what is freed of what was added.
        _lately.trimmed_resident_bytes = min(_lately.trimmed_resident_bytes, resident_bytes)
        _lately.trimmed_heap_bytes = max(_lately.trimmed_heap_bytes, used_bytes)
        return _lately.trims
    if has_grown:
        _lately.growing_for = GROWING_FOR
        expect_frees()  # what has come before this block, a fixture of its own say, may be freed after it and stay resident
    _lately.trims = heap.trim_heap()
    _lately.trimmed_resident_bytes, _lately.trimmed_heap_bytes = high_water.resident_bytes(), used_bytes
    return _lately.trims


def _small_blocks_lately(*, in_series: bool) -> SmallBlocks:
    """Python's small blocks (0.1 to 0.4 ms), counted again where resident memory or their number has changed by something.

    Their number takes 15 to 70 µs, as Python walks through its pools; in a series it is asked for as seldom as malloc.
    """
    resident_bytes = high_water.resident_bytes()
    changed = abs(resident_bytes - _lately.counted_resident_bytes) > 2 * LITTLE_BYTES
    if in_series and not changed and _lately.counts_unasked < MOST_UNASKED:
        _lately.counts_unasked += 1
        return _lately.blocks
    # What came before this block may be freed after it.
    _lately.counts_unasked = MOST_UNASKED if changed else 0
    blocks = sys.getallocatedblocks()
    if changed or abs(blocks - _lately.counted_blocks) > LITTLE_BLOCKS:
        _lately.blocks = _small_blocks()
        _lately.counted_resident_bytes, _lately.counted_blocks = resident_bytes, blocks
    return _lately.blocks


class Kept(NamedTuple):
    """What the process holds without using it, in bytes; `trimmed` is whether the C library gave its share back.

    `pool` is a library's own that gives nothing back when asked.
    """

    small_blocks_bytes: int = 0
    trimmed: bool = True
    pool: heap.Pool | None = None
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
            kind: CaveatKind = "arrow-pool" if self.pool.owner == "pyarrow" else "library-pool"
            found.append(Caveat(kind, self.pool.most_bytes, self.pool.owner))
        if self.collections is not None and FullCollections.so_far().collected > self.collections.collected:
            found.append(Caveat("collected-inside"))
        return found


def reclaim(series: Series = SINGLE) -> Kept:
    """Collects (fully where that is affordable), trims and counts what is kept, as far as anything has changed."""
    collections = None if collector.collect(series.share) else FullCollections.so_far()
    blocks = _small_blocks_lately(in_series=not series.is_single)
    trimmed = trim_if_worthwhile(series.little_bytes)
    if trimmed:
        trim_threads()
    return Kept(blocks.free_bytes, trimmed, heap.read_pool(blocks.arena_bytes), collections)


def read_pool() -> heap.Pool | None:
    """A library's own pool, where one may hold free memory at the end of a block."""
    heap.wait_for_frees()
    return heap.read_pool(_small_blocks().arena_bytes)


def kept_small_blocks_bytes() -> int:
    """Free blocks in Python's arenas, in bytes; zero where the interpreter does not say."""
    return _small_blocks().free_bytes


def _small_blocks() -> SmallBlocks:
    with contextlib.suppress(OSError), contextlib.closing(SmallBlockReader()) as reader:
        return reader.read()
    return SmallBlocks(0, 0, 0)  # no descriptor is left for the file that they are read through
