"""Garbage is collected where it is affordable, and nobody is blamed for what finalizers raise then."""

import gc
import sys
from types import SimpleNamespace

from pytest_membudget.measurement.process import reclaim
from pytest_membudget.measurement.process.reclaim import FullCollections, GarbageCollector


class _Clock:
    def __init__(self, *times_s):
        self._times = iter(times_s)

    def perf_counter(self):
        return next(self._times)


def test_a_full_collection_waits_until_the_last_ones_are_a_small_part_of_the_time(monkeypatch):
    # Made at 0 s; asked at 1 s, takes 1 s; asked at 3 s: 1 s of 3 is spent and another may follow; asked at 100 s.
    monkeypatch.setattr(reclaim, "time", _Clock(0, 1, 2, 3, 100, 101))
    collector = GarbageCollector(share=0.05)
    assert collector.collect()
    before = FullCollections.so_far().runs
    assert not collector.collect()
    assert FullCollections.so_far().runs == before
    assert collector.collect()


def test_a_first_collection_that_would_take_long_waits_too(monkeypatch):
    monkeypatch.setattr(reclaim, "time", _Clock(0, 2, 10, 10.3))
    monkeypatch.setattr(reclaim, "sys", SimpleNamespace(getallocatedblocks=lambda: 6_600_000))
    collector = GarbageCollector(share=0.05)
    assert not collector.collect()  # 0.4 s would be a fifth of the time
    assert collector.collect()


class _Raises:
    def __init__(self):
        self.me = self

    def __del__(self):
        raise ValueError("in a finalizer")


def test_what_finalizers_raise_is_kept_and_handed_on_later(monkeypatch):
    blamed, later = [], []
    monkeypatch.setattr(sys, "unraisablehook", blamed.append)
    collector = GarbageCollector()
    gc.collect()
    _Raises()
    collector.collect_fully()
    assert blamed == []
    assert sys.unraisablehook == blamed.append
    monkeypatch.setattr(sys, "unraisablehook", later.append)
    collector.report_deferred()
    collector.report_deferred()
    (raised,) = later
    assert isinstance(raised.exc_value, ValueError)
    assert "_Raises" in repr(raised.object)


def test_garbage_that_python_collects_inside_is_a_doubt_where_it_may_be_older():
    kept = reclaim.Kept(collections=FullCollections.so_far())
    assert kept.caveats() == []
    cycle = []
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert [each.kind for each in kept.caveats()] == ["collected-inside"]
