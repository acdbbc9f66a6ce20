"""The three levels side by side on a batch of six samples (the reference: 0.24 s, 0.35 s and 0.40 s)."""

import csv
import statistics
import time
from pathlib import Path

import pytest

from pytest_membudget import ExecutorPolicy, FallbackExecutor, synthesize

LEVELS = ("process", "thread", "sequential")
ROUNDS = 5


def column_sums(path):
    """Parses a file for real: pure Python, so threads take turns."""
    sums: dict[int, int] = {}
    with Path(path).open(newline="") as stream:
        for row in csv.reader(stream):
            for column, value in enumerate(row):
                sums[column] = sums.get(column, 0) + len(value)
    return sums


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    return [synthesize(folder / f"{number}.csv", "600 kB", "csv", number).path for number in range(6)]


@pytest.mark.parametrize("level", LEVELS)
def test_six_samples(figure, samples, level):
    cold, warm = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        with FallbackExecutor(
            3, budget="1 GB", levels=(level,), policy=ExecutorPolicy(small_batch=0)
        ) as executor:
            first = executor.run(column_sums, samples)
            cold.append(time.perf_counter() - began)
            warm.append(executor.run(column_sums, samples).duration_s)
        assert len(first.values) == 6
    figure(f"{level}, workers up", f"{statistics.median(warm):.2f} s")
    figure(f"{level}, with starting them", f"{statistics.median(cold):.2f} s")
