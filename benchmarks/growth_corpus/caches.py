"""Clean: memory that is kept, but within bounds: caches, rings, pools, lazy state."""

import collections
import ctypes
import functools
import itertools
import logging
import logging.handlers
import mmap
import os
import re
import time
import weakref

from growth_corpus.case import clean

_LIBC = ctypes.CDLL(None)
_LIBC.malloc.restype = ctypes.c_void_p
_LIBC.malloc.argtypes = [ctypes.c_size_t]
_LIBC.free.argtypes = [ctypes.c_void_p]


def _bounded(size, random):
    @functools.lru_cache(maxsize=size)
    def made(number):
        return bytes(50)

    return made


@clean
def lru_cache_of_128(random):
    made, numbers = _bounded(128, random), itertools.count()
    return lambda: made(next(numbers))


@clean
def lru_cache_of_1000(random):
    made, numbers = _bounded(1000, random), itertools.count()
    return lambda: made(next(numbers))


@clean
def lru_cache_of_3000(random):
    made, numbers = _bounded(3000, random), itertools.count()
    return lambda: made(next(numbers))


@clean
def lru_cache_of_3000_filled_at_random(random):
    made = _bounded(3000, random)
    return lambda: made(random.randrange(3000))


@clean
def cache_with_500_keys(random):
    cache = {}
    return lambda: cache.setdefault(random.randrange(500), bytes(200))


@clean
def cache_with_3000_keys_of_text(random):
    cache = {}
    return lambda: cache.setdefault(f"key {random.randrange(3000)}", [1, 2])


@clean
def slow_cache_of_500(random):
    cache, numbers = {}, itertools.count()

    def call():
        time.sleep(0.0005)
        cache[next(numbers) % 500] = bytes(100)

    return call


@clean
def cache_emptied_at_1000(random):
    cache = {}

    def call():
        cache[random.getrandbits(60)] = None
        if len(cache) > 1000:
            cache.clear()

    return call


@clean
def batch_written_every_777_calls(random):
    batch = []

    def call():
        batch.append(bytes(300))
        if len(batch) == 777:
            batch.clear()

    return call


@clean
def ring_of_1000(random):
    ring = collections.deque(maxlen=1000)
    return lambda: ring.append(random.random())


@clean
def ring_of_cycles(random):
    ring = collections.deque(maxlen=500)

    def call():
        node = {}
        node["self"] = node
        ring.append(node)

    return call


@clean
def ring_in_a_list(random):
    ring, numbers = [None] * 3000, itertools.count()

    def call():
        ring[next(numbers) % 3000] = bytes(64)

    return call


@clean
def latest_result_up_to_2_mb(random):
    held = [None]

    def call():
        held[0] = bytes(random.randrange(2_000_000))

    return call


@clean
def latest_result_up_to_64_kb(random):
    held = [None]

    def call():
        held[0] = bytes(random.randrange(65_536))

    return call


@clean
def pool_of_blocks_of_any_size(random):
    pool = [None] * 300

    def call():
        pool[random.randrange(300)] = bytes(random.randrange(4000))

    return call


@clean
def native_pool_of_blocks_of_any_size(random):
    pool = [_LIBC.malloc(16) for _ in range(200)]

    def call():
        index = random.randrange(200)
        _LIBC.free(pool[index])
        pool[index] = _LIBC.malloc(random.randrange(1, 2000))

    return call


@clean
def pool_of_8_mappings(random):
    pool, numbers = [None] * 8, itertools.count()

    def call():
        pool[next(numbers) % 8] = mmap.mmap(-1, 1 << 16)

    return call


@clean
def pool_of_20_descriptors(random):
    pool = []

    def call():
        if len(pool) < 20:
            pool.append(os.open(os.devnull, os.O_RDONLY))
        return os.fstat(pool[random.randrange(len(pool))])

    return call


@clean
def patterns_beyond_the_cache_of_re(random):
    return lambda: re.match(f"a{random.randrange(2000)}b", "abc")


@clean
def warm_up_of_300_calls(random):
    state = []
    return lambda: state.append(bytes(100)) if len(state) < 300 else None


@clean
def lazy_state_at_call_700(random):
    calls, state = itertools.count(), {}

    def call():
        if next(calls) == 700:
            state["table"] = [bytes(1000) for _ in range(100)]

    return call


@clean
def log_with_bounded_memory(random):
    logger = logging.Logger("bounded")
    logger.addHandler(logging.handlers.MemoryHandler(100, target=logging.NullHandler()))
    return lambda: logger.info("seen %s", random.random())


@clean
def weak_values(random):
    class Value: ...

    values = weakref.WeakValueDictionary()

    def call():
        value = Value()
        values[random.randrange(10**9)] = value

    return call


@clean
def allocated_late_and_shrinking(random):
    state = [bytes(100) for _ in range(20_000)]
    return lambda: state.pop() if state else None
