"""Does the same work take as long whatever its inputs look like?

60 tasks of 20 to 60 MB in an executor with four workers and a budget of 160 MB that knows nothing of them. A number says what its call
takes and a row says nothing, so what a row takes is given with `size_bytes`, as one would for rows.
"""

import os
import random
import statistics
from pathlib import Path

import pytest
from shape_jobs import BYTES_PER_BYTE, by_folder, by_number, by_path, by_row, by_tuple
from tables import print_table

from pytest_membudget import FallbackExecutor

REPEATS = int(os.environ.get("REPEATS", "3"))
MB = 1_000_000
BUDGET_BYTES = 160 * MB


@pytest.fixture
def shapes(tmp_path):
    """Of each shape its function, its inputs and the options of its run."""
    source = random.Random(0)
    megabytes = [source.randrange(20, 60) for _ in range(60)]
    paths = []
    for number, each in enumerate(megabytes):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "input.bin"
        path.write_bytes(bytes(each * MB // BYTES_PER_BYTE))
        paths.append(str(path))
    size = {"size_bytes": row_bytes}
    return {
        "paths": (by_path, paths, {}),
        "tuples": (by_tuple, [(path, {"sep": ";"}) for path in paths], {}),
        "folders": (by_folder, [str(Path(path).parent) for path in paths], {}),
        "rows": (by_row, [{"megabytes": each} for each in megabytes], size),
        "numbers": (by_number, megabytes, {}),
    }


def row_bytes(row):
    return row["megabytes"] * MB // BYTES_PER_BYTE


def test_the_same_work_takes_as_long_in_every_shape(shapes, figure):
    seconds: dict[str, list[float]] = {name: [] for name in shapes}
    tasks: dict[str, list[int]] = {name: [] for name in shapes}
    for _ in range(REPEATS):
        for name, (fn, items, options) in shapes.items():
            with FallbackExecutor(4, budget=BUDGET_BYTES) as executor:
                batch = executor.run(fn, items, **options)
            assert all(outcome.ok for outcome in batch.outcomes)
            seconds[name].append(batch.duration_s)
            tasks[name].append(batch.breakdown.task_bytes if batch.breakdown else 0)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    rows = [("inputs", "median s", "beside paths", "tasks held at most")]
    for name, median in medians.items():
        largest = f"{max(tasks[name]) / MB:.0f} MB"
        rows.append((name, f"{median:.2f}", f"{median / medians['paths']:.2f}", largest))
    print_table(f"{REPEATS} runs, interleaved; budget {BUDGET_BYTES // MB} MB", rows)
    apart = max(medians.values()) / min(medians.values())
    figure("slowest shape beside the fastest", f"{apart:.2f}", "1.15")
    assert apart <= 1.15
