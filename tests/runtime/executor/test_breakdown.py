"""Where the peak of a batch went, on real processes and on scripted readings."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import executor_jobs as jobs
import pytest

from pytest_membudget import FallbackExecutor, measuring
from pytest_membudget.measurement.process.heap import Heap
from pytest_membudget.measurement.process.proc import proportional_bytes
from pytest_membudget.measurement.process.shared_pages import SharedPages
from pytest_membudget.runtime.executor import batch as batch_module
from pytest_membudget.runtime.executor.batch import Recorder
from pytest_membudget.runtime.workers.protocol import Reading

PARTS = ("coordinator_bytes", "workers_base_bytes", "task_bytes", "waiting_results_bytes", "other_bytes")
MB = 1_000_000


def parts_of(breakdown):
    return {name: getattr(breakdown, name) for name in PARTS}


@pytest.mark.kernel
@pytest.mark.processes
@pytest.mark.parametrize("level", ["process", "thread", "sequential"])
def test_the_parts_add_up_to_the_measured_peak(level):
    with FallbackExecutor(2, budget="1 GB", levels=(level,)) as executor:
        executor.run(jobs.square, range(4))
        with measuring() as probe:
            batch = executor.run(jobs.hold_and_return, [(60 * MB, 3 * MB, 0.3)] * 6)
    breakdown = batch.breakdown
    parts = parts_of(breakdown)
    assert min(parts.values()) >= 0
    assert sum(parts.values()) == breakdown.peak_bytes == batch.peak_bytes
    assert breakdown.peak_bytes == pytest.approx(probe.measurement.total_peak_bytes, rel=0.03)
    assert breakdown.task_bytes >= 55 * MB


@pytest.mark.kernel
@pytest.mark.processes
def test_workers_base_and_waiting_results_are_told_apart():
    """In an interpreter of its own: memory that earlier tests have left free would move the peak to an early moment."""
    script = """
        import executor_jobs as jobs
        from pytest_membudget import FallbackExecutor

        with FallbackExecutor(1, budget="1 GB") as executor:
            executor.run(jobs.square, range(4))
            parts = executor.run(jobs.hold_and_return, [(1_000_000, 20_000_000, 0.1)] * 6).breakdown
        print(parts.workers_base_bytes, parts.waiting_results_bytes)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(jobs.__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", dedent(script)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    base_bytes, waiting_bytes = map(int, done.stdout.split())
    assert base_bytes > 1 * MB
    assert 60 * MB <= waiting_bytes <= 125 * MB


@pytest.mark.kernel
def test_the_shares_of_one_process_are_its_resident_memory_at_most():
    pages = SharedPages()
    held = pages.exact_holdings([os.getpid(), 2**22 + 1])
    assert list(held) == [os.getpid()]
    share_bytes = proportional_bytes(os.getpid())
    assert held[os.getpid()] == pytest.approx(share_bytes, rel=0.2)


WORKER = 2**22 + 7


@pytest.fixture
def scripted(monkeypatch):
    """A recorder of one worker, and what that worker holds and says of itself at the next reading."""
    reading = SimpleNamespace(held_bytes=0, grown_bytes=None)

    def holdings(pages, pids):
        return {pid: reading.held_bytes if pid == WORKER else 0 for pid in pids}

    monkeypatch.setattr(batch_module, "descendants", lambda *_: [])
    monkeypatch.setattr(SharedPages, "holdings", holdings)
    monkeypatch.setattr(SharedPages, "exact_holdings", holdings)
    with FallbackExecutor(1, budget="1 GB") as executor:
        engine = executor._engine
    monkeypatch.setattr(engine.driver, "readings", lambda: [worker_reading()])

    def worker_reading():
        ready_bytes = None if reading.grown_bytes is None else reading.held_bytes - reading.grown_bytes
        return Reading(pid=WORKER, ready_anonymous_bytes=ready_bytes)

    def read(held_bytes, grown_bytes):
        reading.held_bytes, reading.grown_bytes = held_bytes, grown_bytes
        recorder.sample(engine.driver.readings())
        return recorder.breakdown.workers_base_bytes, recorder.breakdown.task_bytes

    recorder = Recorder(engine)
    read.recorder, read.reading = recorder, reading
    return read


def test_what_an_initializer_loads_is_base_before_it_has_ended_too(scripted):
    assert scripted(10 * MB, None) == (10 * MB, 0)
    assert scripted(210 * MB, None) == (210 * MB, 0)
    assert scripted(211 * MB, 0) == (211 * MB, 0)


def test_what_a_worker_has_grown_by_since_it_was_ready_is_its_tasks(scripted):
    scripted(10 * MB, None)
    assert scripted(250 * MB, 40 * MB) == (210 * MB, 40 * MB)
    assert scripted(260 * MB, 51 * MB) == (209 * MB, 51 * MB)


def test_a_batch_that_ends_before_a_reading_has_met_its_worker_shows_it(scripted):
    with scripted.recorder as recorder:
        scripted.reading.held_bytes, scripted.reading.grown_bytes = 10 * MB, 0
    assert recorder.breakdown.workers_base_bytes == 10 * MB


def test_shared_pages_of_the_coordinators_peak_count_by_its_part_in_them(scripted, monkeypatch):
    monkeypatch.setattr(SharedPages, "shared_bytes", staticmethod(lambda _pid: 20 * MB))
    monkeypatch.setattr(
        SharedPages, "with_shared_part", lambda _pages, _pid, private_bytes: private_bytes + 8 * MB
    )
    scripted.recorder.record_task(SimpleNamespace(result_bytes=0, coordinator_peak_bytes=120 * MB))
    assert scripted.recorder.breakdown.peak_bytes == 108 * MB


def test_a_result_in_memory_that_was_free_at_the_start_waits_all_the_same(scripted, monkeypatch):
    held = {os.getpid(): 100 * MB, WORKER: 10 * MB}
    monkeypatch.setattr(SharedPages, "holdings", lambda *_: dict(held))
    monkeypatch.setattr(SharedPages, "exact_holdings", lambda *_: dict(held))
    monkeypatch.setattr(
        batch_module, "read_heap", lambda: Heap(used_bytes=30 * MB, mapped_bytes=0, system_bytes=90 * MB)
    )
    with scripted.recorder as recorder:
        for _ in range(4):
            recorder.record_task(SimpleNamespace(result_bytes=20 * MB, coordinator_peak_bytes=None))
        held[os.getpid()] = 125 * MB  # 60 of the 80 MB took what was free
        recorder.sample([Reading(pid=WORKER, ready_anonymous_bytes=10 * MB)])
    assert recorder.breakdown.waiting_results_bytes == 80 * MB
    assert recorder.breakdown.coordinator_bytes == 45 * MB
