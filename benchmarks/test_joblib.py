"""joblib within a budget: how fast beside loky, and does the budget hold?"""

import os
import time

import joblib
import pytest
from joblib import Parallel, delayed
from tables import print_table

import pytest_membudget.joblib  # noqa: F401 - registers the backend

MB = 1_000_000
REPEATS = int(os.environ.get("REPEATS", "5"))
TASKS = 60
GOAL_SHARE = 0.9


def work(size_bytes):
    block = bytearray(b"1") * size_bytes
    until_s = time.process_time() + 0.05
    while time.process_time() < until_s:
        sum(range(1000))
    return len(block)


def hold(size_bytes):
    """When it began to take memory and when it gave it back."""
    began_s = time.monotonic()
    block = bytearray(b"1") * size_bytes
    time.sleep(0.3)
    del block
    return began_s, time.monotonic()


def seconds(backend, options):
    with joblib.parallel_config(backend, n_jobs=2, **options):
        began_s = time.perf_counter()
        Parallel()(delayed(work)(1000) for _ in range(TASKS))
        return time.perf_counter() - began_s


def test_tasks_of_50_ms_beside_loky(figure):
    ways = {"membudget": {"budget": "1 GB"}, "loky": {}}
    for backend, options in ways.items():
        seconds(backend, options)  # workers stay
    found: dict[str, list[float]] = {backend: [] for backend in ways}
    for _ in range(REPEATS):
        for backend, options in ways.items():
            found[backend].append(seconds(backend, options))
    medians = {backend: sorted(runs)[len(runs) // 2] for backend, runs in found.items()}
    rows = [(backend, f"{median:.2f} s") for backend, median in medians.items()]
    print_table(f"{TASKS} tasks of 50 ms, 2 workers, median of {REPEATS}", [("backend", "time"), *rows])
    share = medians["loky"] / medians["membudget"]
    figure("speed beside loky, tasks of 50 ms", f"{share:.2f}", f"at least {GOAL_SHARE}")
    assert share >= GOAL_SHARE


@pytest.mark.parametrize("backend", ["membudget", "loky"])
def test_the_memory_of_tasks_that_do_not_fit_together(figure, backend):
    options = {"budget": "500 MB"} if backend == "membudget" else {}
    with joblib.parallel_config(backend, n_jobs=4, **options):
        spans = Parallel(batch_size=1)(delayed(hold)(200 * MB) for _ in range(20))
    together = max(sum(began_s <= at_s < ended_s for began_s, ended_s in spans) for at_s, _ in spans)
    figure(f"4 workers, tasks of 200 MB, {backend}: held at once", f"{together * 200} MB", "budget 500 MB")
    if backend == "membudget":
        assert together * 200 <= 500
