"""What grows where malloc's figures do not show it, and what only looks like growth there."""

import contextlib
import ctypes
import mmap
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tempfile
import tracemalloc
from multiprocessing import shared_memory
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_membudget import check_growth
from pytest_membudget.measurement.growth import culprits
from pytest_membudget.measurement.growth.caches import cache_steadier
from pytest_membudget.measurement.growth.repeat import Rounds
from pytest_membudget.measurement.growth.samples import FigureReader, Figures
from pytest_membudget.measurement.process.heap import read_heap
from pytest_membudget.records.judgement import Culprit
from pytest_membudget.stats.growth import Trend

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells"),
]


def test_chunks_that_glibc_keeps_for_a_thread_do_not_count_as_growth():
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    steady, source = cache_steadier(), random.Random(0)
    for _ in range(3):  # as a check does: what fills one cache moves another
        steady()
    before = read_heap().used_bytes
    for size in [source.randrange(24, 1033) for _ in range(500)]:
        library.free(library.malloc(size))
    steady()
    assert abs(read_heap().used_bytes - before) < 16_384  # it is 60 to 130 kB without


def test_names_that_the_interpreter_remembers_do_not_count_as_growth():
    reader, pattern = FigureReader(), re.compile("a")
    for _ in range(3):
        before = reader.read().heap_bytes
    for number in range(3000):
        held = [f"{number:08d}"] * (number % 5)
        held += pattern.finditer("banana")
    del held
    assert reader.read().heap_bytes - before < 1000
    reader.close()


_INTERNS = """
import sys
from pytest_membudget.measurement.growth.samples import FigureReader

kept = [sys.intern(f"kept {number}") for number in range(15_000)]  # as many as a test session has
reader = FigureReader()
for _ in range(3):
    before = reader.read().heap_bytes
for number in range(40_000):
    sys.intern(f"gone {number}")
print(reader.read().heap_bytes - before)
"""


@pytest.mark.processes
@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="interned strings never end there")
def test_strings_that_end_do_not_enlarge_the_interpreters_table_at_some_call():
    done = subprocess.run([sys.executable, "-c", _INTERNS], capture_output=True, text=True, check=True)
    assert abs(int(done.stdout)) < 16_384  # it is 962,544 without


def _keep(size, kept=[]):  # noqa: B006 - that is how it leaks
    kept.append(b"x" * size)


@pytest.mark.processes
def test_a_child_that_keeps_memory_is_a_leak_and_the_cap_holds_for_it_too(monkeypatch):
    monkeypatch.setattr("pytest_membudget.measurement.growth.judge.MOST_GROWN_BYTES", 64 << 20)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        g = check_growth(lambda: pool.apply(_keep, (300_000,)))
    assert g.verdict == "leak"
    assert g.bytes_per_call == pytest.approx(300_000, rel=0.1)
    assert g.calls < 1000


def test_segments_of_shared_memory_that_nobody_unlinks_are_a_leak():
    segments = []

    def forgets():
        segment = shared_memory.SharedMemory(create=True, size=40_000)
        segment.buf[:] = bytes(40_000)
        segment.close()
        segments.append(segment)

    try:
        g = check_growth(forgets, per_call="4 KiB")
    finally:
        for segment in segments:
            segment.unlink()
    assert g.verdict == "leak"
    assert [each.kind for each in g.resources] == ["segments"]
    assert g.resources[0].examples


_MIB = 1 << 20


def system_v_segment(kept, size_bytes):
    """Made, written and detached: it is in no process from then on."""
    library = ctypes.CDLL(None)
    library.shmat.restype, library.shmat.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_int, ctypes.c_void_p, ctypes.c_int],
    )
    library.shmdt.argtypes = [ctypes.c_void_p]
    number = library.shmget(0, size_bytes, 0o1600)
    kept.callback(library.shmctl, number, 0, None)
    address = library.shmat(number, None, 0)
    ctypes.memset(address, 1, size_bytes)
    library.shmdt(address)


def memory_file(kept, size_bytes):
    descriptor = os.memfd_create("test")
    kept.callback(os.close, descriptor)
    os.write(descriptor, bytes(size_bytes))


def file_without_a_name(kept, size_bytes):
    descriptor, path = tempfile.mkstemp(dir="/dev/shm")
    kept.callback(os.close, descriptor)
    Path(path).unlink()
    os.write(descriptor, bytes(size_bytes))


def file_in_a_new_folder(kept, size_bytes):
    folder = kept.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))
    Path(folder, "file").write_bytes(bytes(size_bytes))


@pytest.mark.parametrize(
    "hold",
    [system_v_segment, memory_file, file_without_a_name, file_in_a_new_folder],
    ids=lambda hold: hold.__name__,
)
def test_shared_memory_of_every_kind_is_held(hold):
    with contextlib.closing(FigureReader()) as reader, contextlib.ExitStack() as kept:
        before = reader.read()
        hold(kept, _MIB)
        now = reader.read()
    assert now.files_bytes + now.shared_bytes - before.files_bytes - before.shared_bytes >= _MIB


def test_shared_memory_that_is_mapped_counts_once():
    with contextlib.closing(FigureReader()) as reader:
        before = reader.read()
        descriptor = os.memfd_create("test")
        os.ftruncate(descriptor, _MIB)
        with mmap.mmap(descriptor, _MIB) as pages:
            pages.write(bytes(_MIB))
            now = reader.read()
        os.close(descriptor)
    assert now.shared_bytes == before.shared_bytes
    assert now.mapped_bytes - before.mapped_bytes >= _MIB


class Scripted:
    """A reader whose heap holds a random buffer beside small blocks that grow by 64 bytes a call."""

    left_behind = shared_files = None

    def __init__(self):
        self.calls, self.source = 0, random.Random(0)

    def __call__(self):
        self.calls += 1

    def read(self):
        small_bytes = 64 * self.calls
        heap_bytes = small_bytes + self.source.randrange(500_000)
        nothing = Figures(*[0] * len(Figures._fields))
        return nothing._replace(heap_bytes=heap_bytes, small_bytes=small_bytes)

    def read_settled(self, before):
        return self.read()


def test_small_blocks_that_grow_are_found_beside_large_buffers_that_come_and_go():
    scripted = Scripted()
    rounds = Rounds(scripted, scripted, 60)
    while rounds.calls < 500:
        rounds.advance(10)
    heap = rounds.trends(0)["heap_bytes"]
    assert (heap.direction, heap.slope) == ("growing", 64)
    assert heap.fallback > 300_000


def test_a_function_may_stop_the_tracing_that_names_its_sites():
    kept = []

    def traces():
        tracemalloc.start()
        kept.append(bytes(1_000_000))
        tracemalloc.stop()

    g = check_growth(traces)
    assert g.verdict == "leak"
    assert not any(each.kind == "site" for each in g.culprits)


def test_a_census_does_not_find_itself():
    class Repeated:
        calls = 0

        def make_calls(self, count, for_s):
            return 10

    assert culprits.growing_types(Repeated(), 10) == []


@pytest.mark.parametrize(
    ("held_bytes", "found"),
    [
        ([0, 100, 200, 300, 400, 500, 600, 700], 10.0),
        ([0, 0, 0, 0, 4000, 4000, 4000, 4000], 100.0),
        ([0, 900, 100, 300, 500, 600, 200, 700], 0.0),
    ],
    ids=["steadily", "in-one-step", "up-and-down"],
)
def test_traced_memory_that_only_goes_up_and_down_is_no_growth(monkeypatch, held_bytes, found):
    class Repeated:
        calls = 0

        def make_calls(self, count, for_s):
            self.calls += 10

    readings = iter(held_bytes)
    monkeypatch.setattr(
        culprits, "tracemalloc", SimpleNamespace(get_traced_memory=lambda: (next(readings), 0))
    )
    assert culprits._traced_bytes_per_call(Repeated(), 1000) == found


def test_a_trifle_in_the_heap_does_not_explain_what_children_keep(monkeypatch):
    flat = Trend("flat", 0.0, 0.0, 0.0, 0.0)
    trends = dict.fromkeys(Figures._fields, flat) | {"heap_bytes": flat._replace(slope=25.0)}
    site = Culprit("site", "app.py:1", 25.0)
    monkeypatch.setattr(culprits, "growing_sites", lambda *_: [site])
    monkeypatch.setattr(culprits, "growing_types", lambda *_: [])
    repeated = SimpleNamespace(counted_s=0.0)
    assert culprits.find_culprits(repeated, trends, 10.0) == (site,)
    trends["children_bytes"] = flat._replace(slope=100_000.0)
    assert culprits.find_culprits(repeated, trends, 10.0) == ()


def test_arrow_memory_counts_by_what_its_pool_has_handed_out():
    arrow = pytest.importorskip("pyarrow")
    if arrow.default_memory_pool().backend_name == "system":
        pytest.skip("Arrow takes its memory from malloc here")
    reader = FigureReader()
    before = [reader.read() for _ in range(3)][-1]
    buffer = arrow.allocate_buffer(8_000_000)
    now = reader.read()
    reader.close()
    assert now.heap_bytes - before.heap_bytes == pytest.approx(len(memoryview(buffer)), rel=0.01)
    assert abs(now.mapped_bytes - before.mapped_bytes) < 1_000_000
