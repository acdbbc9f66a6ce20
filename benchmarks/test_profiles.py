"""Does admission by what tasks hold over their time gain anything over admission by their peaks, and is the budget kept?

Eight workers, and a budget of four and a half usual peaks. What a batch really held is added up from the tasks' own
records: each says when it held how much. The first three batches of each shape are run by peaks as well. `MEMBUDGET_BATCHES`
says how many there are (3), or which ("20..40"); `MEMBUDGET_TASK_SECONDS` how long a usual task takes (1).
"""

import os
import random
import statistics
import time

import pytest
from profile_jobs import CHUNK_BYTES, SHAPES, hold

from pytest_membudget import ExecutorPolicy, FallbackExecutor

FIRST, _, LAST = os.environ.get("MEMBUDGET_BATCHES", "0..3").rpartition("..")
SEEDS = range(int(FIRST or 0), int(LAST))
PAIRS = 3
TASK_SECONDS = float(os.environ.get("MEMBUDGET_TASK_SECONDS", "1"))
TASKS = 60
WORKERS = 8
BUDGET_BYTES = 180_000_000


def a_batch(shape, seed):
    """`[(shape, bytes, seconds), …]`: larger tasks take longer, and a tenth more or less by chance."""
    chance = random.Random(f"{shape} {seed}")
    tasks = []
    for _ in range(TASKS):
        size = chance.uniform(0.5, 1.5)
        tasks.append(
            (
                shape,
                round(size * 40) * CHUNK_BYTES,
                TASK_SECONDS * (0.5 + size / 2) * chance.uniform(0.9, 1.1),
            )
        )
    return tasks


def most_held(timelines):
    """The most that all tasks held at one time."""
    changes = []
    for spans in timelines:
        before = 0
        for at_s, held in spans:
            changes.append((at_s, held - before))
            before = held
    total = most = 0
    for _, change in sorted(changes):
        total += change
        most = max(most, total)
    return most


def run(tasks, *, profiles):
    """`(seconds, most bytes held)` of a batch whose peaks are known."""
    policy = ExecutorPolicy(profiles=profiles, max_tasks_per_child=None)
    with FallbackExecutor(WORKERS, budget=BUDGET_BYTES, policy=policy, levels=("process",)) as executor:
        list(executor.map(abs, range(4 * WORKERS)))
        began_s = time.monotonic()
        calls = executor.options(memory=lambda item: item[1], size_bytes=lambda item: item[1])
        timelines = list(calls.map(hold, tasks))
        return time.monotonic() - began_s, most_held(timelines)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("shape", SHAPES)
def test_profiles_against_peaks(figure, shape):
    ratios: list[float] = []
    held: list[float] = []
    for seed in SEEDS:
        tasks = a_batch(shape, seed)
        by_peaks_s = run(tasks, profiles=False)[0] if len(ratios) < PAIRS else None
        by_profiles_s, most = run(tasks, profiles=True)
        if by_peaks_s is not None:
            ratios.append(by_profiles_s / by_peaks_s)
        held.append(most / BUDGET_BYTES)
    broken = sum(share > 1 for share in held)
    target = "about 1.0" if shape == "flat" else "at most 0.9"
    figure(
        f"{shape}: makespan by profiles / by peaks, median of {len(ratios)}",
        f"{statistics.median(ratios):.2f}",
        target,
    )
    figure(f"{shape}: most held at one time, of the budget", f"{max(held):.1%}", "at most 100%")
    figure(f"{shape}: batches that broke the budget", f"{broken} of {len(held)}", "0")
    assert not broken
