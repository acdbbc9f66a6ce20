"""Containers that grow for ever: amortized growth, small steps, rare steps."""

import array
import collections
import functools
import heapq
import itertools
import queue

from growth_corpus.case import leaking


@leaking(8)
def list_of_none(random):
    kept = []
    return lambda: kept.append(None)


@leaking(32)
def list_of_floats(random):
    kept = []
    return lambda: kept.append(random.random())


@leaking(24)
def list_of_objects(random):
    kept = []
    return lambda: kept.append(object())


@leaking(140)
def list_of_bytes(random):
    kept = []
    return lambda: kept.append(bytes(100))


@leaking(60)
def dict_of_numbers(random):
    kept = {}
    return lambda: kept.__setitem__(len(kept), None)


@leaking(100)
def dict_of_text(random):
    kept = {}
    return lambda: kept.__setitem__(f"key {len(kept)}", 1)


@leaking(28)
def set_of_numbers(random):
    kept, numbers = set(), itertools.count(1000)
    return lambda: kept.add(next(numbers))


@leaking(16)
def set_of_objects(random):
    kept = set()
    return lambda: kept.add(object())


@leaking(8)
def deque_without_bound(random):
    kept = collections.deque()
    return lambda: kept.append(None)


@leaking(8)
def bytearray_extended(random):
    kept = bytearray()
    return lambda: kept.extend(b"12345678")


@leaking(8)
def array_appended(random):
    kept = array.array("q")
    return lambda: kept.append(7)


@leaking(8)
def text_appended(random):
    kept = [""]

    def call():
        kept[0] += "12345678"

    return call


@leaking(24)
def heap_pushed(random):
    kept = []
    return lambda: heapq.heappush(kept, random.random())


@leaking(8)
def queue_never_read(random):
    kept = queue.SimpleQueue()
    return lambda: kept.put(None)


@leaking(60)
def counter_of_everything(random):
    kept = collections.Counter()
    return lambda: kept.update([random.getrandbits(60)])


@leaking(32)
def lists_under_few_keys(random):
    kept = collections.defaultdict(list)
    return lambda: kept[random.randrange(16)].append(random.random())


@leaking(48)
def linked_list(random):
    kept = [None]

    def call():
        kept[0] = (kept[0],)

    return call


@leaking(100)
def unbounded_cache(random):
    @functools.cache
    def square(number):
        return number * number

    numbers = itertools.count(10**6)
    return lambda: square(next(numbers))


@leaking(10)
def every_tenth_call(random):
    kept, calls = [], itertools.count()
    return lambda: kept.append(bytes(80)) if next(calls) % 10 == 0 else None


@leaking(8)
def every_hundredth_call(random):
    kept, calls = [], itertools.count()
    return lambda: kept.append(bytes(900)) if next(calls) % 100 == 0 else None


@leaking(8)
def every_thousandth_call(random):
    kept, calls = [], itertools.count()
    return lambda: kept.append(bytes(9000)) if next(calls) % 1000 == 0 else None


@leaking(10)
def one_call_in_fifty_at_random(random):
    kept = []
    return lambda: kept.append(bytes(500)) if random.random() < 0.02 else None


@leaking(8)
def small_leak_among_large_buffers(random):
    kept = []

    def call():
        bytes(1_000_000)
        kept.append(None)

    return call


@leaking(24)
def leak_among_cycles(random):
    kept = []

    def call():
        cycle = []
        cycle.append(cycle)
        kept.append(object())

    return call


@leaking(24)
def leak_behind_a_bounded_cache(random):
    kept = []

    @functools.lru_cache(maxsize=1000)
    def squared(number):
        return number * number

    def call():
        squared(random.randrange(10**6))
        kept.append(object())

    return call


@leaking(1_000_000)
def large_blocks(random):
    kept = []
    return lambda: kept.append(bytearray(1_000_000))


@leaking(100_000)
def medium_blocks(random):
    kept = []
    return lambda: kept.append(bytes(100_000))
