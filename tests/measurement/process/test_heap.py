"""What threads have freed goes back, also what lies at the top of their arenas."""

import os
import subprocess
import sys

import pytest
from tree_programs import MIB

from pytest_membudget.measurement.process import heap
from pytest_membudget.measurement.process.heap import read_arenas

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.processes,
    pytest.mark.skipif(heap._library() is None, reason="only glibc has thread arenas"),
]
# In a process of its own: how large malloc's threshold for single mappings is depends on all that ran before.
POOL = """
import concurrent.futures, sys
from pytest_membudget.measurement.probe import Probe

def job(size):
    return len(bytearray(b"x") * size)

def work():
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(job, [10_000_000 + 100_000 * n for n in range(48)]))

work()  # from now on malloc takes blocks of 10 MB from the arenas
for _ in range(3):
    probe = Probe(settle=True)
    probe.begin()
    work()
    m = probe.finish()
    print(m.peak_bytes, m.retained_bytes, *(caveat.kind for caveat in m.caveat_records))
"""
LIVING = """
import threading
from pytest_membudget.measurement.process.high_water import resident_bytes
from pytest_membudget.measurement.process.heap import trim_thread_arenas

held, go = threading.Event(), threading.Event()
def keep():
    blocks = [bytes([n % 251]) * 100_000 for n in range(300)]
    held.set()
    go.wait()
    assert all(block == bytes([n % 251]) * 100_000 for n, block in enumerate(blocks))
    kept.append(len(blocks))
kept = []
thread = threading.Thread(target=keep)
thread.start()
held.wait()
for _ in range(3):
    trim_thread_arenas()
go.set()
thread.join()
print(kept)
"""


def test_a_pool_of_threads_retains_nothing_and_says_what_its_peak_may_owe_to_malloc():
    lines = subprocess.check_output([sys.executable, "-c", POOL], text=True).splitlines()
    assert len(lines) == 3
    for line in lines:
        peak, retained, *kinds = line.split()
        assert int(retained) < 4 * MIB
        assert int(peak) < 24 * MIB or "kept-by-threads" in kinds


def test_what_a_living_thread_holds_stays_as_it_is():
    assert subprocess.check_output([sys.executable, "-c", LIVING], text=True) == "[300]\n"


CHURN = """
import random, threading
from pytest_membudget.measurement.process.heap import trim_thread_arenas

def churn(seed):
    pick, blocks = random.Random(seed), {}
    while not over.is_set():
        number = pick.randrange(200)
        block, value = blocks.pop(number, (b"", 0))
        assert block.count(value) == len(block)
        value = pick.randrange(256)
        blocks[number] = bytes([value]) * pick.choice((600, 5_000, 90_000, 700_000)), value
over = threading.Event()
for round in range(4):
    over.clear()
    threads = [threading.Thread(target=churn, args=(n,)) for n in range(6)]
    for thread in threads: thread.start()
    trim_thread_arenas()
    over.set()
    for thread in threads: thread.join()
    trim_thread_arenas()
"""


def test_threads_that_take_and_free_meanwhile_lose_nothing():
    subprocess.run([sys.executable, "-c", CHURN], check=True, env={**os.environ, "MALLOC_CHECK_": "3"})


def test_the_arenas_are_counted():
    found = read_arenas()
    assert found.number >= 1
    assert found.free_bytes >= 0


def test_where_malloc_does_not_tell_there_is_the_main_arena_alone(monkeypatch):
    monkeypatch.setattr(heap, "_library", lambda: None)
    assert read_arenas() == heap.trim_thread_arenas() == (1, 0)


def test_threads_that_stay_are_waited_for_once(monkeypatch):
    waits = []
    living = iter([])
    monkeypatch.setattr(heap._Native, "threads", 0)
    monkeypatch.setattr(heap._thread, "_count", lambda: 0)  # but for the main one
    monkeypatch.setattr(heap.time, "sleep", waits.append)
    monkeypatch.setattr(heap.proc, "threads", lambda: [1] * next(living))

    def waited(*numbers):
        nonlocal living
        living = iter(numbers)
        waits.clear()
        assert heap._living_threads() == numbers[-1]
        return len(waits)

    stays = [3] * heap.ENDING_POLLS
    assert waited(*stays) == heap.ENDING_POLLS
    assert waited(3) == 0
    assert waited(5, 4, 3) == 2  # two that Python has joined
    assert waited(2) == 0
    assert waited(*stays) == heap.ENDING_POLLS  # one more than there was
