"""What does the executor cost a task that takes no time, and what do a million of them leave in memory?"""

import concurrent.futures
import os
import statistics
import subprocess
import time
from pathlib import Path

import pytest

from pytest_membudget import ExecutorPolicy, FallbackExecutor

TASKS = 10_000
PAIRS = 5
MILLION = 1_000_000


def nap(number):
    time.sleep(0.001)
    return number


def wait_for_a_program(number):
    subprocess.run(["sleep", "0.2"], check=True)
    return number


def give_back(number):
    return number


def rate(executor, tasks, job=nap, first=100):
    """Tasks a second, workers already up."""
    list(executor.map(job, range(first)))
    began = time.perf_counter()
    assert list(executor.map(job, range(tasks))) == list(range(tasks))
    return tasks / (time.perf_counter() - began)


@pytest.mark.parametrize("max_tasks_per_child", [50, None])
def test_throughput_beside_the_plain_pool(figure, max_tasks_per_child):
    ratios, ours, plain = [], [], []
    policy = ExecutorPolicy(max_tasks_per_child=max_tasks_per_child)
    for pair in range(PAIRS):
        makers = [
            lambda: concurrent.futures.ProcessPoolExecutor(2),
            lambda: FallbackExecutor(2, budget="1 GB", policy=policy),
        ]
        rates = {}
        for which in (0, 1) if pair % 2 else (1, 0):
            with makers[which]() as executor:
                rates[which] = rate(executor, TASKS)
        plain.append(rates[0])
        ours.append(rates[1])
        ratios.append(rates[1] / rates[0])
    worker = f"{max_tasks_per_child} tasks a worker" if max_tasks_per_child else "workers kept"
    figure(f"plain ProcessPoolExecutor, {TASKS} naps of 1 ms", f"{statistics.median(plain):.0f}/s")
    figure(f"FallbackExecutor, {worker}", f"{statistics.median(ours):.0f}/s")
    figure(
        f"ours to plain, {worker}, median of {PAIRS} pairs",
        f"{statistics.median(ratios):.2f}",
        "at least 0.90",
    )


def test_tasks_that_wait_for_a_program_beside_the_plain_pool(figure):
    ratios = []
    for _ in range(3):
        with concurrent.futures.ProcessPoolExecutor(2) as executor:
            plain = rate(executor, 60, wait_for_a_program, first=4)
        with FallbackExecutor(2, budget="1 GB") as executor:
            ratios.append(rate(executor, 60, wait_for_a_program, first=4) / plain)
    median = statistics.median(ratios)
    figure(
        "60 tasks that wait 200 ms for a program, ours to plain, 3 pairs", f"{median:.2f}", "at least 0.97"
    )


@pytest.mark.parametrize(("levels", "chunksize"), [(("thread",), 1), (("process",), 100)])
def test_a_million_lazily_drawn_inputs(figure, levels, chunksize):
    with FallbackExecutor(2, budget="1 GB", levels=levels) as executor:
        list(executor.map(give_back, range(10_000), chunksize=chunksize))
        start_bytes = peak_bytes = resident_bytes()
        began = time.perf_counter()
        for count, result in enumerate(executor.map(give_back, iter(range(MILLION)), chunksize=chunksize)):
            assert result == count
            if count % 1000 == 0:
                peak_bytes = max(peak_bytes, resident_bytes())
        took_s = time.perf_counter() - began
    figure(
        f"coordinator's growth over a million inputs, {levels[0]}, chunks of {chunksize}",
        f"{(peak_bytes - start_bytes) / 2**20:.1f} MiB",
        "at most 20 MiB",
    )
    figure(f"inputs a second, {levels[0]}, chunks of {chunksize}", f"{MILLION / took_s:.0f}/s")


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
