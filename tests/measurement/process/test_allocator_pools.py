"""A pool that cannot be asked is bounded by what is resident and nobody else's."""

import os
import subprocess
import sys
import types

import pytest

from pytest_membudget.measurement.process import heap, high_water, reclaim
from pytest_membudget.measurement.process.heap import Heap, Pool, read_pool

MIB = 1024 * 1024


@pytest.fixture
def _holding(monkeypatch):
    """A process of 300 MiB: 20 of files, 50 in malloc's heap, 60 mapped by malloc; and polars is loaded."""
    monkeypatch.setitem(sys.modules, "polars", types.ModuleType("polars"))
    monkeypatch.delitem(sys.modules, "pyarrow", raising=False)
    monkeypatch.delenv(heap.SETTING, raising=False)
    monkeypatch.setattr(heap, "read_heap", lambda: Heap(50 * MIB, 60 * MIB, 90 * MIB))
    monkeypatch.setattr(high_water, "resident_and_shared_bytes", lambda: (300 * MIB, 20 * MIB))


@pytest.mark.usefixtures("_holding")
def test_what_is_neither_mallocs_nor_pythons_is_the_pools():
    assert read_pool(arena_bytes=30 * MIB) == Pool("polars", 140 * MIB)
    assert "up to 140 MiB that it held at the start" in str(
        reclaim.Kept(pool=read_pool(30 * MIB)).caveats()[0]
    )


@pytest.mark.usefixtures("_holding")
def test_as_much_as_the_stacks_of_threads_is_not_worth_saying():
    assert read_pool(arena_bytes=154 * MIB) is None


@pytest.mark.usefixtures("_holding")
def test_without_the_library_there_is_no_pool(monkeypatch):
    monkeypatch.delitem(sys.modules, "polars")
    assert read_pool(0) is None


@pytest.mark.usefixtures("_holding")
def test_memory_that_goes_back_at_once_is_not_kept(monkeypatch):
    monkeypatch.setenv(heap.SETTING, f"background_thread:true,{heap.AT_ONCE}")
    assert read_pool(0) is None


@pytest.mark.usefixtures("_holding")
def test_where_malloc_does_not_say_what_it_has_nothing_is_known(monkeypatch):
    monkeypatch.setattr(heap, "read_heap", lambda: Heap(0, 0, 0))
    assert read_pool(0) is None


@pytest.mark.parametrize(("frees_after", "waits"), [(5, 5), (10**6, 30)])
def test_memory_that_arrow_frees_a_moment_later_is_waited_for(monkeypatch, frees_after, waits):
    naps = []
    pool = types.SimpleNamespace(backend_name="mimalloc")
    arrow = types.SimpleNamespace(
        default_memory_pool=lambda: pool,
        total_allocated_bytes=lambda: 0 if len(naps) >= frees_after else 130 * MIB,
    )
    monkeypatch.delitem(sys.modules, "polars", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    monkeypatch.setattr(heap, "time", types.SimpleNamespace(sleep=naps.append))
    heap.wait_for_frees()
    assert len(naps) == waits


# The library's name alone, and private memory that is mapped past malloc: as an allocator of its own does it.
SCRIPT = """
import mmap, sys, types
from pytest_membudget.measurement.process import reclaim

sys.modules["polars"] = types.ModuleType("polars")
python = [str(number) * 5 for number in range(300_000)]
malloc = bytearray(b"x") * 50_000_000
print(reclaim.reclaim().pool)
pool = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
pool.write(b"x" * len(pool))
print(reclaim.reclaim().pool.most_bytes)
"""


@pytest.mark.kernel
@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="Python's arenas are counted through a Linux memory file")
def test_in_a_real_process_it_is_counted_beside_malloc_and_python():
    before, after = subprocess.check_output([sys.executable, "-c", SCRIPT], text=True).split()
    assert before == "None"
    assert 60 * MIB < int(after) < 64 * MIB + heap.LEAST_POOL_BYTES


POLARS_SCRIPT = """
import polars
from pytest_membudget.measurement.probe import Probe

def block():
    polars.int_range(0, 8_000_000, eager=True)

for _ in range(2):
    probe = Probe(settle=True)
    probe.begin()
    block()
    probe.finish()
    print(probe.measurement.peak_bytes, *probe.measurement.caveats)
"""


@pytest.mark.kernel
@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of one block is exact on Linux")
@pytest.mark.parametrize(("setting", "may_reuse"), [("", True), (heap.AT_ONCE, False)])
def test_the_second_of_two_equal_blocks_of_polars_takes_as_much_or_says_why_not(setting, may_reuse):
    pytest.importorskip("polars")
    environment = {**os.environ, heap.SETTING: setting}
    shown = subprocess.check_output([sys.executable, "-c", POLARS_SCRIPT], text=True, env=environment)
    (first, _, early), (again, _, late) = (line.partition(" ") for line in shown.splitlines())
    assert int(first) > 55 * MIB
    assert not early
    if may_reuse and late:
        assert "keeps freed memory for about a second" in late
    else:  # on a machine that is slow enough polars has given it back by now
        assert int(again) > 55 * MIB
