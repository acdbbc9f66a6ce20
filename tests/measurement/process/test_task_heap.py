"""What a worker holds after each task."""

import gc

import pytest

from pytest_membudget.measurement.process.heap import TaskHeap
from pytest_membudget.stats.task_growth import judge_task_series

pytestmark = pytest.mark.kernel


def test_kept_and_freed_memory_show():
    gc.collect()
    heap = TaskHeap()
    before = heap.read()
    kept = bytearray(1_000_000)
    assert 1_000_000 <= heap.read() - before <= 1_050_000
    del kept
    assert heap.read() - before < 50_000


def test_a_task_that_keeps_a_little_is_found_over_a_hundred_tasks():
    heap, kept, points = TaskHeap(), [], []
    for task in range(100):
        kept.append(bytes(20_000))
        points.append((task, heap.read()))
    growth = judge_task_series(points)
    assert growth.verdict == "leak"
    assert growth.bytes_per_call == pytest.approx(20_000, rel=0.1)
