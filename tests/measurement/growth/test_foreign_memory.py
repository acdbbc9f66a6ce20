"""Allocators beside Python's and the C library's: asked where they answer, judged by pages where they do not."""

import ctypes
import mmap
import sys
from types import SimpleNamespace

import pytest

from pytest_membudget import check_growth
from pytest_membudget.measurement.growth import foreign_memory, repeat
from pytest_membudget.measurement.growth.foreign_memory import ForeignAllocator, ForeignAllocators

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these allocators are asked on Linux")
PAGES = "7f0000000000-7f0000001000 r-xp 00000000 08:01 1 /usr/lib/lib%s.so.2\n"


def function(kind, *arguments):
    """As `ctypes` gives it: what is called, with attributes for its types."""

    def wrap(body):
        return ctypes.CFUNCTYPE(kind, *arguments)(body)

    return wrap


def jemalloc(stats):
    """`mallctl` of a jemalloc whose statistics move on with the epoch only, as the real ones do."""
    seen = {}

    def control(name, value, _length, new_value, _new_length):
        if name == b"epoch":
            seen["allocated"] = stats.get("allocated")
        elif name == b"stats.allocated":
            if seen["allocated"] is None:
                return 2  # ENOENT: built without statistics
            ctypes.cast(value, ctypes.POINTER(ctypes.c_size_t))[0] = seen["allocated"]
        return 0

    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    return function(ctypes.c_int, ctypes.c_char_p, pointer, pointer, pointer, size)(control)


def test_jemalloc_says_what_it_has_handed_out_now():
    stats = {"allocated": 5_000}
    read = foreign_memory._jemalloc_reader(jemalloc(stats))
    stats["allocated"] = 7_000
    assert read() == 7_000


def test_a_jemalloc_without_statistics_is_not_asked():
    assert foreign_memory._jemalloc_reader(jemalloc({})) is None


def test_mimalloc_is_added_up_by_the_areas_of_its_heap(monkeypatch):
    monkeypatch.delenv("PYTHONMALLOC", raising=False)
    areas = [foreign_memory._Area(used=3, block_size=64), foreign_memory._Area(used=2, block_size=4096)]

    def visit(heap, _all_blocks, visitor, argument):
        return all(visitor(heap, ctypes.pointer(area), None, 0, argument) for area in areas)

    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    library = SimpleNamespace(
        mi_heap_get_default=function(size)(lambda: 1),
        mi_heap_visit_blocks=function(
            ctypes.c_bool, pointer, ctypes.c_bool, foreign_memory._AreaVisitor, pointer
        )(visit),
        mi_collect=function(None, ctypes.c_bool)(lambda _: None),
    )
    read = foreign_memory._mimalloc_reader(library)
    assert (read(), read()) == (8384, 8384)
    monkeypatch.setenv("PYTHONMALLOC", "malloc_debug")
    assert foreign_memory._mimalloc_reader(library) is None


@pytest.fixture
def imported(monkeypatch):
    """An allocator inside of a library that is imported, which says what `held` holds, or nothing."""

    def add(held=None):
        read = (lambda: held["bytes"]) if held is not None else None
        monkeypatch.setitem(sys.modules, "duckdb", SimpleNamespace())
        monkeypatch.setattr(foreign_memory, "_IMPORTED", ("duckdb",))
        monkeypatch.setattr(foreign_memory, "_asked_inside", lambda _: (read, read is not None))

    return add


def test_what_a_library_keeps_in_an_allocator_of_its_own_is_a_leak_of_so_many_bytes(imported):
    held = {"bytes": 0}
    imported(held)

    def leaks():
        held["bytes"] += 1000

    g = check_growth(leaks, culprits=False)
    assert g.verdict == "leak"
    assert g.bytes_per_call == pytest.approx(1000, rel=0.05)
    assert not any("duckdb" in caveat for caveat in g.caveats)


def test_mappings_beside_such_an_allocator_count_where_they_are_not_its_own(imported):
    imported({"bytes": 0})
    held = []
    g = check_growth(lambda: held.append(mmap.mmap(-1, 4096)), culprits=False)
    assert g.verdict == "leak"
    assert g.bytes_per_call >= 4096


def test_an_allocator_that_does_not_answer_is_named_and_few_calls_do_not_clear_it(imported, monkeypatch):
    imported()
    monkeypatch.setattr(repeat, "CALLS_BEYOND_DOUBT", 10**9)
    g = check_growth(lambda: None, timeout_s=1)
    assert g.duration_s >= 0.5
    assert any(caveat.startswith("duckdb: an allocator of its own") for caveat in g.caveats)
    assert ForeignAllocators().unknown == ("duckdb",)


def test_a_part_of_the_heap_is_not_taken_for_the_whole():
    allocators = ForeignAllocators()
    allocators.preloaded = (ForeignAllocator("mimalloc", lambda: 5000, is_complete=False),)
    assert "mimalloc" in allocators.unknown
    assert allocators.used_bytes() >= 5000
