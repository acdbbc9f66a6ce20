"""What does it cost to ask whether a task may start?"""

import os
import signal
import subprocess
import sys
import time

import pytest

from pytest_membudget import MemorySemaphore
from pytest_membudget.runtime.admission.ledger import Ledger

WAITING = 10_000
HOLDER = """
from pytest_membudget import MemorySemaphore
lease = MemorySemaphore(1000, scope="host", name="bench").reserve(1000)
print("held", flush=True)
input()
"""


@pytest.fixture
def crowded():
    """Two leases out, 10,000 waiting of which one in a hundred is small enough to overtake."""
    ledger = Ledger(1_000_000, max_overtakes=WAITING)
    running = [ledger.submit(400_000), ledger.submit(590_000)]
    for number in range(WAITING):
        ledger.submit(5_000 + number % 100 if number % 100 == 99 else 500_000 + number)
    ledger.grant()
    return ledger, running


def shown(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs"


def test_a_decision_with_ten_thousand_waiting(benchmark, figure, crowded):
    ledger, (_, finishing) = crowded
    turn = [finishing]

    def release_and_decide():
        ledger.release(turn[0])
        ledger.submit(550_000)
        (turn[0],) = ledger.grant(at_most=1)

    benchmark.pedantic(release_and_decide, rounds=WAITING // 2, warmup_rounds=20)
    figure(
        "release, submit, decide; 10,000 waiting, median",
        shown(benchmark.stats.stats.median),
        "at most 50 µs",
    )
    figure("the same, mean", shown(benchmark.stats.stats.mean), "")
    assert benchmark.stats.stats.median <= 50e-6


def test_a_decision_that_finds_nobody_with_ten_thousand_waiting(benchmark, figure, crowded):
    ledger, _ = crowded
    ledger.set_budget(990_000)
    benchmark(ledger.grant)
    figure("decide that none may start; 10,000 waiting", shown(benchmark.stats.stats.median), "at most 50 µs")
    assert benchmark.stats.stats.median <= 50e-6


def take_and_give_back(semaphore: MemorySemaphore) -> None:
    with semaphore.reserve(1000):
        pass


def test_a_lease_of_a_given_budget(benchmark, figure):
    benchmark(take_and_give_back, MemorySemaphore("1 GB"))
    figure("reserve and release, given budget", shown(benchmark.stats.stats.median))


def test_a_lease_of_the_measured_budget(benchmark, figure):
    benchmark(take_and_give_back, MemorySemaphore())
    figure("reserve and release, measured budget", shown(benchmark.stats.stats.median))


def test_a_lease_of_the_host(benchmark, figure, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMBUDGET_HOST_DIRECTORY", str(tmp_path / "host"))
    benchmark(take_and_give_back, MemorySemaphore("1 GB", scope="host", name="bench"))
    figure("reserve and release, shared by the host", shown(benchmark.stats.stats.median))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_how_soon_a_killed_program_gives_its_bytes_back(figure, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMBUDGET_HOST_DIRECTORY", str(tmp_path / "host"))
    semaphore = MemorySemaphore(1000, scope="host", name="bench")
    waits_s = []
    for _ in range(10):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert semaphore.acquire_nowait(1) is None
        begun_s = time.perf_counter()
        os.kill(holder.pid, signal.SIGKILL)
        semaphore.reserve(1000, timeout_s=30).release()
        waits_s.append(time.perf_counter() - begun_s)
        holder.communicate()
    figure("bytes back after SIGKILL, slowest of 10", f"{max(waits_s) * 1e3:.0f} ms", "at most 1 s")
    assert max(waits_s) <= 1
