"""Caches that fill once: those that are the same in all readings, and those that say how far they go.

`cache_steadier` empties or fills these before each reading:

- CPython's method cache keeps the last name that was looked up in each of its 4,096 slots, up to 256 KiB of short strings.
  Python's own leak hunter (`test.libregrtest.refleak`) clears it before each reading, and so do we.
- glibc keeps up to 7 freed chunks of each of 64 sizes for each thread and counts them as in use (`mallinfo2().uordblks`): 130 to
  240 kB that fill within some hundred calls of varying size.
- numpy keeps up to 7 freed buffers of each size below 1,024 bytes: 3.6 MB that arrays of varying length fill.
- CPython's table of interned strings uses up a place for each string, also for one that has ended, and is made once more, and larger, when
  all are used up: 532 KiB at a call that nothing tells, in a process with some 15,000 of them. That is brought about before the first reading.

`shrink_databases` has sqlite give back the pages of files that it keeps: 2 MB for each connection, until which each further row looks like a leak.

`BoundedCaches` finds what states a capacity: `functools.lru_cache`, deques with a `maxlen`, the cache of `re`, and objects with a length and
an attribute such as `maxsize` or `capacity` (those of cachetools, SQLAlchemy, Jinja, urllib3, Hypothesis). Until such a cache is full it
grows like a leak, and no figure of memory tells them apart; what its entries hold does. Only containers of the interpreter's own types
are read, so no code of the program runs.
"""

from __future__ import annotations

import functools
import re as live_re  # its cache is replaced when it is purged
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import islice
from types import CodeType, FrameType, FunctionType, MemberDescriptorType, ModuleType
from typing import Any, NamedTuple

from pytest_membudget.measurement.process.heap import trim_heap
from pytest_membudget.measurement.process.small_blocks import libc_version
from pytest_membudget.originals import contextlib, ctypes, gc, sys

_CHUNKS = 7
"""`TCACHE_FILL_COUNT` of glibc up to 2.41; where more fit in, the rest fills as before."""
_NUMPY_SIZES = 1024
"""`NBUCKETS` of numpy's `alloc.c`; it keeps `NCACHE` buffers of each, 7 as well."""
_INTERNED = 1 << 16
"""So many places does the table have for the next strings where 20,000 to 43,000 are interned (`USABLE_FRACTION` of 65,536 slots, and more)."""
_SIZES = range(24, 1033, 16)
"""The largest request of each of the 64 classes (`tidx2usize`, 64-bit)."""


def cache_steadier() -> Callable[[], None]:
    """What to call before each reading, in the thread that runs the function (0.2 ms)."""
    clear_names = getattr(sys, "_clear_internal_caches", None) or getattr(sys, "_clear_type_cache", None)
    fill = _chunk_filler()
    _renew_table_of_interned_strings()

    def steady() -> None:
        if clear_names is not None:
            clear_names()
        if fill is not None:
            fill()
        if "numpy" in sys.modules:
            _fill_numpy(sys.modules["numpy"])

    return steady


def _renew_table_of_interned_strings() -> None:
    """Interns strings that end at once, until the table must have been made once more (25 ms)."""
    never_end = sys.version_info[:2] == (3, 12) or "t" in getattr(sys, "abiflags", "")  # interned ones
    if sys.implementation.name == "cpython" and not never_end:
        for number in range(_INTERNED):
            sys.intern(f"membudget {number}")


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


def shrink_databases() -> bool:
    """Whether any connection of this thread has emptied its cache of pages (`PRAGMA shrink_memory`). What lies in memory alone stays."""
    kind: Any = getattr(sys.modules.get("sqlite3"), "Connection", None)
    if kind is None:
        return False
    done = False
    for each in _all_objects():
        if issubclass(type(each), kind):
            # It may be closed, or another thread's, or its authorizer may forbid it.
            with contextlib.suppress(Exception):
                kind.execute(each, "PRAGMA shrink_memory").close()
                done = True
    return done


_MOST_CACHES = 4096
_LATEST = 8
_MOST_OBJECTS = 20_000
_FIXED = (type, ModuleType, FunctionType, CodeType, FrameType)
"""Objects that are there without any entry of a cache, and lead to everything."""
_CONTAINERS = (dict, OrderedDict, list, set, deque)
_CAPACITIES = frozenset({"capacity", "cachesize", "maxentries", "maxitems", "maxlen", "maxsize", "sizelimit"})
_LruCache = type(functools.cache(int))


class FilledCache(NamedTuple):
    """A cache that has got entries: its capacity, and what each of the latest adds to what the oldest hold, in bytes."""

    name: str
    entries: int
    capacity: int
    added: int
    bytes_per_entry: float

    def __str__(self) -> str:
        return f"{self.name} has {self.entries:,} of at most {self.capacity:,} entries"


class _Cache(NamedTuple):
    owner: Any
    entries: int
    capacity: int
    holder: Any


class BoundedCaches:
    """The caches of this process that state a capacity, with the entries that they had when `remember` was called.

    What is remembered lies in arrays of fixed size: made later, it would look like growth of the function.
    """

    def __init__(self) -> None:
        self._owners = array("Q", bytes(8 * _MOST_CACHES))
        self._entries = array("Q", bytes(8 * _MOST_CACHES))
        self.are_known = False

    def remember(self) -> None:
        """Counts the entries of each (10 ms for 100,000 objects)."""
        for place, cache in enumerate(islice(_bounded_caches(), _MOST_CACHES)):
            self._owners[place], self._entries[place] = id(cache.owner), cache.entries
        self.are_known = True
        trim_heap()  # the list of all objects, which would stay resident

    def filled(self) -> list[FilledCache]:
        """Those that have more entries than when they were remembered. One that was not there then is what something else keeps."""
        before = dict(zip(self._owners, self._entries, strict=True))
        return [
            FilledCache(
                _name(cache.owner), cache.entries, cache.capacity, added, _bytes_per_entry(_entries(cache))
            )
            for cache in _bounded_caches()
            if (added := cache.entries - before.get(id(cache.owner), cache.entries)) > 0
        ]


def _all_objects() -> list[Any]:
    gc.collect()
    was_frozen = gc.get_freeze_count() > 0  # not where the function itself has asked for it
    gc.unfreeze()  # what is frozen is not listed
    found = gc.get_objects()
    if was_frozen:
        gc.freeze()
    return found


def _bounded_caches() -> Iterator[_Cache]:
    readers: dict[type, Callable[[Any], _Cache | None] | None] = {}
    for each in _all_objects():
        kind = type(each)
        if kind not in readers:
            readers[kind] = _reader(kind)
        read = readers[kind]
        if read is not None and (cache := read(each)) is not None:
            yield cache
    remembered, capacity = getattr(live_re, "_cache", None), getattr(live_re, "_MAXCACHE", None)
    if type(remembered) is dict and type(capacity) is int:
        yield _Cache(remembered, len(remembered), capacity, remembered)


def _reader(kind: type) -> Callable[[Any], _Cache | None] | None:
    if kind is _LruCache:
        return _read_lru_cache
    if kind is deque:
        return _read_deque
    if kind.__flags__ & _HEAP_TYPE and any("__len__" in base.__dict__ for base in kind.__mro__):
        slots = {
            name: member
            for base in kind.__mro__
            for name, member in base.__dict__.items()
            if type(member) is MemberDescriptorType
        }
        return functools.partial(_read_attributes, slots)
    return None


_HEAP_TYPE = 1 << 9
"""`Py_TPFLAGS_HEAPTYPE`: made by a `class` statement, or by C code that might have been."""


def _read_lru_cache(cache: Any) -> _Cache | None:
    _, _, capacity, entries = cache.cache_info()
    return _Cache(cache, entries, capacity, cache) if capacity else None


def _read_deque(cache: deque[Any]) -> _Cache | None:
    return _Cache(cache, len(cache), cache.maxlen, cache) if cache.maxlen else None


def _read_attributes(slots: dict[str, Any], cache: Any) -> _Cache | None:
    attributes: dict[str, Any] = {}
    for name, member in slots.items():
        with contextlib.suppress(AttributeError):  # not set
            attributes[name] = member.__get__(cache)
    with contextlib.suppress(AttributeError, TypeError):  # it has slots alone
        attributes.update(object.__getattribute__(cache, "__dict__"))
    for name, capacity in attributes.items():
        # cachetools has `_Cache__maxsize`, hypothesis `max_size`.
        if type(capacity) is int and name.rpartition("__")[2].replace("_", "").lower() in _CAPACITIES:
            held = [value for value in attributes.values() if type(value) in _CONTAINERS]
            held += [cache] if isinstance(cache, dict) and not held else []
            holder = max(held, key=_length, default=None)
            return _Cache(cache, _length(holder), capacity, holder) if holder is not None else None
    return None


def _name(cache: Any) -> str:
    if type(cache) is _LruCache:
        wrapped = getattr(cache, "__wrapped__", None)
        return f"the lru_cache of {getattr(wrapped, '__qualname__', type(wrapped).__qualname__)}"
    if cache is getattr(live_re, "_cache", None):
        return "the cache of re"
    return f"a {type(cache).__qualname__}"


def _length(container: Any) -> int:
    return dict.__len__(container) if isinstance(container, dict) else len(container)


def _entries(cache: _Cache) -> list[tuple[Any, ...]]:
    """Of the oldest ones and the latest ones up to 8 each, as far as the holder has an order."""
    holder = cache.holder
    if type(holder) is _LruCache:
        # Key and result of each entry, between types of the cache's own; behind them the mapping and the function.
        own = {"_lru_cache_wrapper", "_lru_list_elem"}
        held = [
            each for each in gc.get_referents(holder) if type(each) is not type or each.__name__ not in own
        ]
        return _ends(
            list(zip(held[0 : 2 * cache.entries : 2], held[1 : 2 * cache.entries : 2], strict=False))
        )
    with contextlib.suppress(RuntimeError):  # changed by another thread
        if isinstance(holder, dict):
            return _ends(list(zip(dict.keys(holder), dict.values(holder), strict=True)))
        return _ends([(each,) for each in holder])
    return []


def _ends(entries: list[Any]) -> list[Any]:
    return entries if len(entries) <= 2 * _LATEST else entries[:_LATEST] + entries[-_LATEST:]


def _bytes_per_entry(entries: list[tuple[Any, ...]]) -> float:
    """What the latest entries hold together that the oldest do not, for each of them."""
    latest = entries[len(entries) // 2 :]
    known = _reachable(entries[: len(entries) // 2], set())
    before = set(known)
    return sum(_reachable(latest, before).values()) / max(1, len(latest))


def _reachable(entries: list[tuple[Any, ...]], known: set[int]) -> dict[int, int]:
    """Sizes of the objects that entries lead to beside the known ones, by `id`; of each entry the first 20,000."""
    sizes: dict[int, int] = {}
    for entry in entries:
        waiting, most = deque(entry), len(sizes) + _MOST_OBJECTS
        while waiting and len(sizes) < most:
            each = waiting.popleft()
            # `isinstance` would ask the object.
            if id(each) not in sizes and id(each) not in known and not issubclass(type(each), _FIXED):
                sizes[id(each)] = _size_of(each)
                waiting.extend(gc.get_referents(each))
    return sizes


def _size_of(each: object) -> int:
    try:
        return sys.getsizeof(each)
    except Exception:  # whatever a type's own __sizeof__ raises
        return 0
