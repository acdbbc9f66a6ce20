"""What ran before must not change a figure, or the figure says by how much it may have."""

import gc
import os
import subprocess
import sys

import pytest

from pytest_membudget import originals
from pytest_membudget.measurement.process import reclaim, small_blocks
from pytest_membudget.measurement.process.reclaim import Kept, kept_small_blocks_bytes

pytestmark = [pytest.mark.kernel, pytest.mark.processes]
MIB = 1024 * 1024
# Each bytes(200) lies in a slot of 240 bytes, behind a pointer of 8.
BLOCK_BYTES = 100_000 * (240 + 8) + 20_000_000

SCRIPT = """
import sys
from pytest_membudget.measurement.probe import Probe

def large_blocks():
    return [bytes(100_000) + b"x" for _ in range(5_000)]

def small_blocks():
    return [str(number) * 3 for number in range(1_500_000)]

def survivors():
    return small_blocks()[::400]

def block():
    # The list has its full length at once: how one grows by realloc depends on what malloc did before.
    held = [None] * 100_000
    for index in range(len(held)):
        held[index] = bytes(200)
    return held, b"z" * 20_000_000

kept = []
def run(before):
    result = globals()[before]() if before != "nothing" else None
    if before == "survivors":
        kept.append(result)
    del result
    probe = Probe(settle=True)
    probe.begin()
    block()
    probe.finish()
    print(probe.measurement.peak_bytes, *probe.measurement.caveats)

for before in sys.argv[1:]:
    run(before)
"""


def peaks(*before):
    shown = subprocess.check_output([sys.executable, "-c", SCRIPT, *before], text=True)
    lines = [line.partition(" ") for line in shown.splitlines()]
    return [(int(peak), caveats) for peak, _, caveats in lines]


@pytest.mark.skipif(sys.platform != "linux", reason="freed memory is given back exactly with glibc")
def test_the_same_block_takes_the_same_first_last_and_after_others():
    (alone, caveats), *_ = peaks("nothing")
    assert caveats == ""
    assert alone == pytest.approx(BLOCK_BYTES, abs=2 * MIB)
    for peak, caveats in peaks("large_blocks", "nothing", "small_blocks", "nothing"):
        assert peak == pytest.approx(alone, abs=2 * MIB), caveats


@pytest.mark.skipif(sys.platform != "linux", reason="Python's arenas are counted through a Linux memory file")
def test_memory_that_survivors_hold_is_a_caveat_with_its_size():
    (alone, _), *_ = peaks("nothing")
    ((peak, caveats),) = peaks("survivors")
    assert alone - peak > 2 * MIB
    assert "of freed memory that Python kept before the start" in caveats


@pytest.fixture(params=["in C's stderr", "in place of descriptor 2"])
def statistics(request, monkeypatch):
    if request.param == "in place of descriptor 2":
        monkeypatch.setattr(small_blocks, "_stream_on", lambda _: None)


@pytest.mark.usefixtures("statistics")
def test_what_another_thread_prints_meanwhile_is_not_lost(capfd, monkeypatch):
    print_statistics = sys._debugmallocstats

    def with_another_thread():
        print_statistics()
        os.write(2, b"from another thread\n")

    monkeypatch.setattr(originals.sys, "_debugmallocstats", with_another_thread)
    kept_small_blocks_bytes()
    assert capfd.readouterr().err == "from another thread\n"


@pytest.mark.usefixtures("statistics")
def test_free_small_blocks_are_counted():
    held = [str(number) * 5 for number in range(200_000)]
    before = kept_small_blocks_bytes()
    survivors = held[::200]
    del held
    assert kept_small_blocks_bytes() - before > 5 * MIB
    del survivors


@pytest.mark.usefixtures("statistics")
def test_counting_leaves_standard_error_alone(capfd):
    kept_small_blocks_bytes()
    print("still here", file=sys.stderr)
    assert capfd.readouterr().err == "still here\n"


CLOSED = """
import os
from pytest_membudget.measurement.process.small_blocks import SmallBlockReader

os.close(2)
reader = SmallBlockReader()
print(reader.read().used_bytes > 0, os.dup(1))
reader.close()
"""


def test_a_standard_error_that_the_program_closed_stays_closed():
    assert subprocess.check_output([sys.executable, "-c", CLOSED]) == b"True 2\n"


def test_an_allocator_that_cannot_trim_is_a_caveat(monkeypatch):
    import psutil

    monkeypatch.delattr(psutil, "heap_trim", raising=False)
    monkeypatch.setattr(
        reclaim._lately, "trimmed_resident_bytes", -reclaim.LITTLE_BYTES
    )  # nothing was trimmed lately
    monkeypatch.setattr(reclaim._lately, "trims", True)
    assert not reclaim.reclaim().trimmed
    assert "could not be given back" in str(Kept(trimmed=False).caveats()[0])


@pytest.mark.parametrize(
    ("readings", "trims"),
    [
        # (resident, in use) in MiB at each block's start, and whether freed memory is given back there
        ([(100, 50), (100, 50)], [True, False]),
        ([(100, 50), (102, 50)], [True, True]),  # more is resident: some of it may be free
        ([(100, 50), (100, 48)], [True, True]),  # less is in use
        ([(400, 50), (150, 50), (152, 50)], [True, False, True]),  # other memory had gone meanwhile
        ([(100, 50), (100, 60), (100, 52)], [True, False, True]),  # what was added is free again
    ],
)
def test_freed_memory_is_given_back_where_there_may_be_some(monkeypatch, readings, trims):
    resident, used = ({"now": 0}, {"now": 0})
    given_back = []
    monkeypatch.setattr(reclaim.high_water, "resident_bytes", lambda: resident["now"] * MIB)
    monkeypatch.setattr(reclaim.heap, "heap_in_use_bytes", lambda: used["now"] * MIB)
    monkeypatch.setattr(reclaim.heap, "trim_heap", lambda: given_back.append(True) or True)
    for name, value in (("trimmed_resident_bytes", 0), ("trimmed_heap_bytes", 0), ("trims", True)):
        monkeypatch.setattr(reclaim._lately, name, value)
    found = []
    for resident["now"], used["now"] in readings:
        given_back.clear()
        reclaim.trim_if_worthwhile()
        found.append(bool(given_back))
    assert found == trims


@pytest.fixture
def asked(monkeypatch):
    """How often malloc was asked what is in use; 100 MiB are resident unless the test has that changed."""
    found = {"times": 0, "resident": 100 * MIB}

    def in_use():
        found["times"] += 1
        return 50 * MIB

    monkeypatch.setattr(reclaim.high_water, "resident_bytes", lambda: found["resident"])
    monkeypatch.setattr(reclaim.heap, "heap_in_use_bytes", in_use)
    monkeypatch.setattr(reclaim.heap, "trim_heap", lambda: True)
    for name in ("trimmed_resident_bytes", "trimmed_heap_bytes", "trims_unasked"):
        monkeypatch.setattr(reclaim._lately, name, 0)
    reclaim.trim_if_worthwhile()  # something was resident
    found["times"] = 0
    return found


def test_a_series_of_blocks_asks_malloc_at_every_ninth_only(asked):
    for _ in range(2 * (reclaim.MOST_UNASKED + 1)):
        reclaim.trim_if_worthwhile(in_series=True)
    assert asked["times"] == 2


def test_a_series_asks_where_more_is_resident_and_where_frees_are_expected(asked):
    asked["resident"] += MIB
    reclaim.trim_if_worthwhile(in_series=True)
    assert asked["times"] == 1
    reclaim.expect_frees()
    reclaim.trim_if_worthwhile(in_series=True)
    assert asked["times"] == 2


@pytest.mark.parametrize(
    ("grown", "trims"), [(reclaim.LITTLE_BYTES, False), (2 * reclaim.LITTLE_BYTES, True)]
)
def test_what_is_little_is_for_the_block_to_say(asked, monkeypatch, grown, trims):
    given_back = []
    monkeypatch.setattr(reclaim.heap, "trim_heap", lambda: given_back.append(True) or True)
    asked["resident"] += grown
    reclaim.trim_if_worthwhile(2 * reclaim.LITTLE_BYTES, in_series=True)
    assert bool(given_back) is trims


def test_garbage_is_collected_for_some_blocks_after_one_before_which_more_was_resident(asked, monkeypatch):
    collected = []
    monkeypatch.setattr(reclaim._lately, "growing_for", 0)
    monkeypatch.setattr(reclaim.collector, "collect_young", lambda: collected.append(True))
    reclaim.collect_if_growing()
    assert not collected
    asked["resident"] += MIB
    reclaim.trim_if_worthwhile(in_series=True)
    for _ in range(2 * reclaim.GROWING_FOR):
        reclaim.collect_if_growing()
    assert len(collected) == reclaim.GROWING_FOR


@pytest.mark.usefixtures("asked")
def test_a_series_counts_small_blocks_after_growth_and_seldom_else(monkeypatch):
    counted = []
    monkeypatch.setattr(reclaim.sys, "getallocatedblocks", lambda: counted.append(True) or 1)
    monkeypatch.setattr(reclaim, "_small_blocks", lambda: reclaim.SmallBlocks(0, 0, 0))
    monkeypatch.setattr(reclaim._lately, "counted_resident_bytes", 0)
    for _ in range(3):  # the first found more resident than there was, which may be freed before the second
        reclaim._small_blocks_lately(in_series=True)
    assert len(counted) == 2


def test_a_block_of_no_series_always_asks(asked):
    reclaim.trim_if_worthwhile()
    reclaim.trim_if_worthwhile()
    assert asked["times"] == 2


@pytest.fixture
def fresh_counts():
    """Python's counts of its collections begin at 0, and nothing but the test collects."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.parametrize("frozen_by_python", [0, 375])  # 375 as of CPython 3.12
@pytest.mark.usefixtures("fresh_counts")
def test_collections_of_young_garbage_bring_no_full_one_nearer(monkeypatch, frozen_by_python):
    monkeypatch.setattr(reclaim.gc, "get_freeze_count", lambda: frozen_by_python)
    collector = reclaim.GarbageCollector()
    for _ in range(20):
        collector.collect_young()
    assert gc.get_count()[2] == 0


@pytest.mark.usefixtures("fresh_counts")
def test_a_full_collection_is_left_to_python_where_as_much_was_allocated_as_it_waits_for(monkeypatch):
    monkeypatch.setattr(reclaim.gc, "get_threshold", lambda: (1, 1, 1))
    collector = reclaim.GarbageCollector()
    kept = [[] for _ in range(100)]
    for _ in range(5):
        collector.collect_young()
    assert gc.get_count()[2] == 5
    del kept


@pytest.mark.usefixtures("fresh_counts")
def test_what_a_program_has_frozen_stays_frozen():
    gc.freeze()
    reclaim.GarbageCollector().collect_young()
    assert gc.get_freeze_count()


def test_a_little_is_not_worth_saying():
    assert Kept(reclaim.WORTH_SAYING_BYTES).caveats() == []


HOLE = """
from pytest_membudget import measuring

def hole():
    # Blocks too small for mmap, freed under a survivor: malloc's heap has room that is not at its end.
    blocks = [bytearray(100_000) for _ in range(900)]
    survivor = bytearray(100_000)
    del blocks
    return survivor

survivor = hole()
with measuring() as probe:
    bytearray(b"x") * 60_000_000
print(probe.measurement.peak_bytes, probe.measurement.retained_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="freed memory is given back exactly with glibc")
def test_what_malloc_keeps_of_a_freed_block_is_not_retained():
    shown = subprocess.check_output([sys.executable, "-c", HOLE], text=True)
    peak_bytes, retained_bytes = map(int, shown.split())
    assert peak_bytes == pytest.approx(60_000_000, abs=2 * MIB)
    assert abs(retained_bytes) < 2 * MIB


ARROW_SCRIPT = """
import ctypes
import pyarrow
from pytest_membudget.measurement.probe import Probe

def block():
    for buffer in [pyarrow.allocate_buffer(300_000) for _ in range(200)]:
        ctypes.memset(buffer.address, 1, buffer.size)

for _ in range(2):
    probe = Probe(settle=True)
    probe.begin()
    block()
    probe.finish()
    print(probe.measurement.peak_bytes, probe.measurement.retained_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of one block is exact on Linux")
def test_what_arrow_keeps_of_freed_buffers_is_given_back():
    pytest.importorskip("pyarrow")
    shown = subprocess.check_output([sys.executable, "-c", ARROW_SCRIPT], text=True)
    (first, first_left), (again, left) = (map(int, line.split()) for line in shown.splitlines())
    assert first > 55 * MIB
    assert again > 50 * MIB
    assert first_left < 10 * MIB
    assert abs(left) < 5 * MIB
