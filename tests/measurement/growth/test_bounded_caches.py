"""Which caches are being filled, as far as they state how much they hold at most?"""

import functools
import gc
import itertools
import re
import sqlite3
import time
from collections import OrderedDict, deque
from types import SimpleNamespace

import pytest

from pytest_membudget import check_growth
from pytest_membudget.measurement.growth import explanations, judge
from pytest_membudget.measurement.growth.caches import BoundedCaches, FilledCache
from pytest_membudget.measurement.growth.samples import Figures
from pytest_membudget.stats.growth import Effort, Trend


class Capped(dict):
    """As hypothesis and older cachetools have it: the mapping itself."""

    def __init__(self):
        self.max_size = 50


class Wrapped:
    """As Jinja, urllib3 and cachetools have it: a mapping inside, and a mangled name."""

    def __init__(self):
        self.__maxsize, self._data = 50, OrderedDict()

    def __len__(self):
        raise AssertionError("no code of the program may run")

    def __setitem__(self, key, value):
        self._data[key] = value


class Slotted(Wrapped):
    """As SQLAlchemy has it."""

    __slots__ = ("_data", "capacity", "unset")

    def __init__(self):
        self.capacity, self._data = 50, OrderedDict()


def cached():
    @functools.lru_cache(50)
    def load(key):
        return bytes(1000)

    return load, load


def cached_methods():
    @functools.lru_cache(50)
    def load(key):
        return bytes(1000).hex

    return load, load


def kept_in(cache):
    return cache, lambda key: cache.__setitem__(f"key {key}", bytes(1000))


MAKERS = {
    "lru_cache": cached,
    "lru_cache of methods of C": cached_methods,
    "deque": lambda: (cache := deque(maxlen=50), lambda _: cache.append(bytes(1000))),
    "mapping": lambda: kept_in(Capped()),
    "wrapped": lambda: kept_in(Wrapped()),
    "slotted": lambda: kept_in(Slotted()),
}


@pytest.fixture(autouse=True)
def _thawed():
    yield
    gc.unfreeze()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_entries_that_came_are_counted_with_what_each_of_them_holds(make):
    cache, add = make()
    add(0)
    caches = BoundedCaches()
    caches.remember()
    for number in range(1, 31):
        add(number)
    [filled] = [each for each in caches.filled() if each.capacity == 50]
    assert (filled.entries, filled.added) == (31, 30)
    assert 1000 <= filled.bytes_per_entry <= 1300
    del cache


def test_patterns_that_re_remembers_are_entries_of_a_cache():
    re.purge()
    caches = BoundedCaches()
    caches.remember()
    for number in range(20):
        re.compile(f"a{number}b+")
    assert 20 in [each.added for each in caches.filled()]


def test_what_all_entries_share_is_not_what_one_of_them_holds():
    shared, cache = [bytes(100_000)], deque(maxlen=50)
    caches = BoundedCaches()
    caches.remember()
    cache.append(0)
    caches.remember()
    cache.extend([number, shared] for number in range(20))
    [filled] = [each for each in caches.filled() if each.capacity == 50]
    assert filled.bytes_per_entry < 300


def test_a_cache_that_is_made_meanwhile_is_not_one_that_is_filled():
    caches = BoundedCaches()
    caches.remember()
    cache = deque(range(10), maxlen=50)
    assert not [each for each in caches.filled() if each.capacity == cache.maxlen]


@pytest.mark.kernel
@pytest.mark.parametrize(("leaks", "verdict"), [(0, "inconclusive"), (50_000, "leak")])
def test_a_slow_function_that_fills_a_cache_is_not_accused_for_that(leaks, verdict):
    numbers, kept = itertools.count(), []
    load = functools.lru_cache(2000)(lambda _: bytes(10_000))

    def call():
        load(next(numbers))
        kept.append(bytes(leaks))
        time.sleep(0.002)

    g = check_growth(call, timeout_s=4)
    assert g.verdict == verdict, g
    assert any("of at most 2,000 entries" in caveat for caveat in g.caveats) == (not leaks)


def test_what_some_entries_share_counts_once_among_them():
    cache, caches = Wrapped(), BoundedCaches()
    for number in range(16):
        cache[number] = bytes(100)
    caches.remember()
    shared = bytes(40_000)
    for number in range(16, 24):
        cache[number] = [shared, number]
    (found,) = [each for each in caches.filled() if each.capacity == 50 and each.added == 8]
    assert 5000 < found.bytes_per_entry < 5200


def test_pages_that_sqlite_keeps_of_a_file_are_no_leak(tmp_path):
    connection = sqlite3.connect(tmp_path / "rows.db", isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")
    connection.execute("CREATE TABLE rows (text)")
    row = ("x" * 100,)
    g = check_growth(lambda: connection.execute("INSERT INTO rows VALUES (?)", row), culprits=False)
    connection.close()
    assert g.verdict == "clean"


@pytest.mark.parametrize(("growth_bytes", "waits"), [(60_000, False), (70_000, True)])
def test_children_that_make_more_pages_their_own_are_called_longer(monkeypatch, growth_bytes, waits):
    nothing = Figures(*[0] * len(Figures._fields))
    readings = iter([5_000_000, 5_000_000 + growth_bytes])
    monkeypatch.setattr(judge, "descendants", lambda: [1])
    monkeypatch.setattr(judge, "private_bytes_of", lambda _: next(readings))
    judging = judge.Judge(SimpleNamespace(first=nothing, last=nothing._replace(children=1)), 0, 10.0)
    assert judging._children_take_pages()  # the first reading is what later ones are compared with
    assert judging._children_take_pages() == waits


@pytest.mark.parametrize(
    ("changes", "explains"),
    [
        ({}, True),
        ({"grown_bytes": 300_000}, False),
        ({"threads": 1}, False),
        ({"small_blocks_grow": True}, False),
        ({"python_allocates": True}, False),
    ],
    ids=["malloc-for-another", "too-much-for-one", "no-other", "small-blocks", "python"],
)
def test_what_malloc_keeps_for_other_threads_is_no_leak(monkeypatch, changes, explains):
    nothing = Figures(*[0] * len(Figures._fields))
    last = nothing._replace(threads=changes.get("threads", 2))
    rounds = SimpleNamespace(
        first=nothing, last=last, small_blocks_grow=changes.get("small_blocks_grow", False)
    )
    monkeypatch.setattr(explanations, "python_allocates", lambda *_: changes.get("python_allocates", False))
    flat = Trend("flat", 0.0, 0.0, 0.0, 0.0)
    growing = flat._replace(direction="growing", slope=30.0, grown=changes.get("grown_bytes", 200_000))
    trends = dict.fromkeys(Figures._fields, flat) | {"heap_bytes": growing}
    sought = explanations.Explanations(rounds, 0, 10.0)
    assert sought.instead_of_a_leak(trends, Effort(8192, 8.0)) == explains
    at_the_end = Effort(8192, 10.0, exhausted=True)
    assert not sought.of_what_has_ended(trends, at_the_end)  # it goes on steadily
    trends["heap_bytes"] = growing._replace(direction="unclear", low=9.0)
    assert sought.of_what_has_ended(trends, at_the_end) == explains
    assert any("for each other thread" in each for each in sought.found.caveats("clean")) == explains


@pytest.mark.parametrize(
    ("entries", "changes", "explains"),
    [
        (100, {"direction": "slowing", "low": 9.0}, True),
        (99, {"direction": "slowing"}, False),
        (100, {"direction": "unclear"}, True),
        (100, {"direction": "unclear", "low": 9.0}, False),
    ],
    ids=["full", "not-full", "may-have-ended", "goes-on"],
)
def test_growth_that_has_ended_is_explained_by_caches_that_are_full_by_now(entries, changes, explains):
    nothing = Figures(*[0] * len(Figures._fields))
    filled = FilledCache("a cache", entries, 100, added=90, bytes_per_entry=10.0)
    rounds = SimpleNamespace(last=nothing, small_blocks_grow=True, filled_caches=lambda: (0.9, (filled,)))
    sought = explanations.Explanations(rounds, 0, 10.0)
    flat = Trend("flat", 0.0, 0.0, 0.0, 0.0)
    trends = dict.fromkeys(Figures._fields, flat) | {"heap_bytes": flat._replace(**changes)}
    assert sought.of_what_has_ended(trends, Effort(500, 10.0, exhausted=True)) == explains


@pytest.mark.parametrize(
    ("figure", "changes", "calls", "may"),
    [
        ("heap_bytes", {"low": 30.0}, 33, True),
        ("heap_bytes", {"low": 30.0}, 300, False),
        ("heap_bytes", {"fallback": 60_000.0, "falls": 9}, 51, True),
        ("heap_bytes", {"fallback": 60_000.0, "falls": 9}, 300, False),
        ("heap_bytes", {"fallback": 60_000.0, "falls": 4}, 300, True),
        ("shared_bytes", {"grown": 1e6}, 20, True),
        ("children_bytes", {"grown": 50_000.0}, 20, False),
    ],
)
def test_few_calls_are_not_called_clean_beside_what_seems_to_grow(figure, changes, calls, may):
    nothing = Figures(*[0] * len(Figures._fields))
    judging = judge.Judge(SimpleNamespace(first=nothing, may_hide_growth=False), 0, 10.0)
    flat = Trend("flat", 0.0, 0.0, 0.0, 0.0)
    trends = dict.fromkeys(Figures._fields, flat) | {figure: flat._replace(**changes)}
    assert judging._may_hide_growth(trends, Effort(calls, 1.5)) == may
