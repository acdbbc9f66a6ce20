"""Do tasks that let programs, pools and orphans work keep the budget, and what do estimates and outcomes say of them?

A batch is ten files of 200 to 600 kB, whose tasks take 20 to 60 MB in what they start. BATCHES of them are run (20 by default), each
in an executor that knows nothing; the peers run a tenth, with as many workers.
"""

import importlib.util
import os
import random
import statistics
from concurrent.futures import ProcessPoolExecutor

import pytest
from tables import print_table
from tree_jobs import BYTES_PER_BYTE, KINDS, job, kind_of, measured

from pytest_membudget import FallbackExecutor, measuring

BATCHES = int(os.environ.get("BATCHES", "20"))
REPEATS = 3
WORKERS = 4
MB = 1_000_000
BUDGET_BYTES = 120 * MB
BASES_BYTES = WORKERS * (10 * MB + 10 * MB)
"""What docs/admission.md states beside the budget: a bare worker, and the helper that measures its tree. These tasks leave nothing."""


@pytest.fixture
def files(tmp_path):
    """Makes files of one batch; sizes and kinds in random order."""

    def make(seed, count=10):
        source = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        paths = []
        for number in source.sample(range(count), count):
            path = folder / f"{number}.bin"
            path.write_bytes(bytes(source.randrange(200_000, 600_000)))
            paths.append(str(path))
        return paths

    return make


def ours(paths):
    with FallbackExecutor(WORKERS, budget=BUDGET_BYTES) as executor:
        assert all(outcome.ok for outcome in executor.run(job, paths).outcomes)


def plain_pool(paths):
    with ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(job, paths))


def joblib(paths):
    from joblib import Parallel, delayed

    Parallel(WORKERS)(delayed(job)(path) for path in paths)


def dask(paths):
    import dask
    from distributed import Client, LocalCluster

    dask.config.set({"distributed.worker.daemon": False})  # its workers may not start processes otherwise
    options = {"threads_per_worker": 1, "memory_limit": None, "dashboard_address": None}
    with LocalCluster(WORKERS, **options) as cluster, Client(cluster) as client:
        client.gather(client.map(job, paths))


def test_the_tree_of_a_batch_stays_within_its_budget_and_bases(files, figure):
    within, peaks = 0, []
    for seed in range(BATCHES):
        paths = files(seed)
        with measuring() as probe:
            ours(paths)
        peaks.append(probe.measurement.peak_bytes)
        within += peaks[-1] <= BUDGET_BYTES + BASES_BYTES
    rows = [("", "batches", "median peak", "largest peak", "within")]
    rows.append(_row("pytest-membudget", peaks))
    for peer, needed in ((plain_pool, None), (joblib, "joblib"), (dask, "distributed")):
        if needed and importlib.util.find_spec(needed) is None:
            continue
        found = []
        for seed in range(max(1, BATCHES // 10)):
            with measuring() as probe:
                peer(files(f"{peer.__name__}-{seed}"))
            found.append(probe.measurement.peak_bytes)
        rows.append(_row(peer.__name__, found))
    print_table(f"tree of a batch; budget {BUDGET_BYTES // MB} MB and bases {BASES_BYTES // MB} MB", rows)
    figure("batches within budget and bases", f"{within} of {BATCHES}", "all")
    assert within == BATCHES


def _medians(pairs):
    return tuple(map(statistics.median, zip(*pairs, strict=True)))


def _row(name, peaks):
    within = sum(peak <= BUDGET_BYTES + BASES_BYTES for peak in peaks)
    return (
        name,
        str(len(peaks)),
        f"{statistics.median(peaks) / MB:.0f} MB",
        f"{max(peaks) / MB:.0f} MB",
        f"{within} of {len(peaks)}",
    )


def test_outcomes_say_what_measure_says(files, figure):
    paths = files("outcomes", count=len(KINDS))
    with FallbackExecutor(1, budget=4 * BUDGET_BYTES) as executor:
        executor.run(job, paths)  # the helper is there, and modules are imported
        told = [executor.run(job, paths).outcomes for _ in range(REPEATS)]
        by_measure = [executor.run(measured, paths).values for _ in range(REPEATS)]
    rows = [("what starts", "outcome", "at most", "measure", "at most")]
    worst = 0.0
    for number, path in enumerate(paths):
        peak, upper = _medians((each[number].peak_bytes, each[number].peak_upper_bytes) for each in told)
        other_peak, other_upper = _medians(each[number] for each in by_measure)
        worst = max(worst, abs(peak - other_peak) / other_peak)
        sizes = (peak, upper, other_peak, other_upper)
        rows.append((kind_of(path).__name__, *(f"{size / MB:.1f} MB" for size in sizes)))
    print_table(f"one call in a worker, and by measure there; medians of {REPEATS}", rows)
    figure("an outcome's peak beside measure", f"at most {worst:.1%} apart", "5%")
    assert worst <= 0.05


def test_estimates_cover_trees_after_two_hundred_tasks(files, figure):
    paths = files("estimates", count=200)
    with FallbackExecutor(WORKERS, budget=4 * BUDGET_BYTES) as executor:
        executor.run(job, paths)
        outcomes = executor.run(job, files("more", count=20)).outcomes
    shares = [(outcome.estimate_bytes or 0) / (outcome.peak_bytes or 1) for outcome in outcomes]
    figure("least estimate over peak after 200 tasks", f"{min(shares):.2f}", "at least 0.95")
    assert min(shares) >= 0.95
    assert min(outcome.peak_bytes or 0 for outcome in outcomes) >= 200_000 * BYTES_PER_BYTE
