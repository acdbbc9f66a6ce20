"""What does a cluster cost, and does it keep every worker's budget? Plain Dask does the same beside it."""

import asyncio
import contextlib
import random
import time
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from cluster_jobs import five_milliseconds, take_as_much_as_the_file
from tables import print_table

from pytest_membudget import FallbackExecutor, MemoryEstimator
from pytest_membudget.runtime.cluster.connection import DaskConnection
from pytest_membudget.units import format_size

distributed = pytest.importorskip("distributed")

MB = 1_000_000
LIMITS = (700 * MB, 1000 * MB, 1600 * MB)
PLAIN_S = 90  # plain Dask is given up after this
HEADER = ("worker's limit", "most in its group", "times at the limit", "kernel's kills")


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


def client_of(cluster: Cluster, workers: int):
    client = distributed.Client(scheduler_file=str(cluster.file), set_as_default=False)
    client.wait_for_workers(workers, timeout=90)
    return client


def mixed_sizes() -> list[int]:
    chance = random.Random(8)
    spans = [(400, 5, 40), (60, 60, 200), (30, 300, 440), (10, 750, 1050)]
    sizes = [chance.randint(low * MB, high * MB) for count, low, high in spans for _ in range(count)]
    chance.shuffle(sizes)
    return sizes


def files_of(folder: Path, sizes: list[int]) -> list[Path]:
    """Sparse files: long, but nothing on the disk."""
    paths = []
    for number, size in enumerate(sizes):
        paths.append(folder / f"{number:03}.bin")
        with paths[-1].open("wb") as stream:
            stream.truncate(size)
    return paths


def lower_bound_s(tasks: list[tuple[int, float]], capacities: list[int]) -> float:
    """No schedule is shorter: what only the k largest workers can hold takes its time there, for every k."""
    bounds = [max(duration for _, duration in tasks)]
    for threshold in [0, *capacities]:
        able = sum(capacity > threshold for capacity in capacities)
        if able:
            bounds.append(sum(duration for size, duration in tasks if size > threshold) / able)
    return max(bounds)


@pytest.mark.timeout(400)
def test_mixed_sizes_on_three_unequal_workers(cluster, tmp_path, figure):
    for limit_bytes in LIMITS:
        cluster.add_ours(limit_bytes)
    client_of(cluster, 3).close()
    paths = files_of(tmp_path, mixed_sizes())
    estimator = MemoryEstimator(gamma=1.0, overhead="4 MB")
    with FallbackExecutor(levels=("dask",), dask=str(cluster.file), estimator=estimator) as executor:
        executor.submit(int).result(60)
        batch = executor.run(take_as_much_as_the_file, paths)
        connections = executor._engine.driver._effects.connections.values()  # noqa: SLF001 - each worker's own figures
        remote_workers: list[Any] = [connection.worker for connection in connections]
    assert [outcome.error for outcome in batch.outcomes] == [None] * len(paths)
    tasks = [(outcome.estimate_bytes or 0, outcome.duration_s) for outcome in batch.outcomes]
    bound_s = lower_bound_s(tasks, sorted(worker.capacity_bytes for worker in remote_workers))
    peaks = [
        (format_size(worker.peak_bytes), format_size(worker.offered_bytes))
        for worker in sorted(remote_workers, key=lambda each: each.offered_bytes)
    ]
    rows = [(*HEADER, "worker's own peak", "its budget")]
    rows += [(*pressed, *own) for pressed, own in zip(cluster.pressed(), peaks, strict=True)]
    print_table(
        f"500 mixed tasks: {batch.duration_s:.1f} s, bound {bound_s:.1f} s, {len(batch.events)} events", rows
    )
    share = batch.duration_s / bound_s
    figure("500 mixed tasks, makespan over its lower bound", f"{share:.2f}", "at most 1.25")
    figure("500 mixed tasks, events", str(len(batch.events)), "0")
    assert all(worker.peak_bytes <= worker.offered_bytes for worker in remote_workers)
    assert share <= 1.25


@pytest.mark.timeout(400)
def test_plain_dask_with_the_same_load(cluster, tmp_path, figure):
    for limit_bytes in LIMITS:
        cluster.add_plain(limit_bytes)
    client = client_of(cluster, 3)
    paths = files_of(tmp_path, mixed_sizes())
    with client.as_current():
        began_s = time.monotonic()
        futures = client.map(take_as_much_as_the_file, [str(path) for path in paths], pure=False)
        with contextlib.suppress(TimeoutError, distributed.TimeoutError):
            distributed.wait(futures, timeout=PLAIN_S)
        took_s = time.monotonic() - began_s
        failed = [future for future in futures if future.status == "error"]
        unfinished = sum(future.status not in {"error", "finished"} for future in futures)
        causes = {type(future.exception()).__name__ for future in failed}
        died = [text for _, text in client.get_events("all") if text.get("action") == "remove-worker"]
    client.close()
    said = (cluster.folder / "log.txt").read_text()
    by_nanny = said.count("memory usage exceeded") + said.count("exceeded 95% memory budget")
    print_table(f"plain Dask, the same 500 tasks: {took_s:.1f} s", [HEADER, *cluster.pressed()])
    figure("plain Dask, 500 mixed tasks", f"{took_s:.1f} s, {unfinished} not done")
    figure("plain Dask, tasks that failed", f"{len(failed)} {', '.join(sorted(causes))}".strip())
    figure("plain Dask, workers killed", f"{len(died)}, {by_nanny} of them by their nanny")


@pytest.mark.timeout(400)
def test_short_tasks_beside_plain_dask(cluster, figure):
    for _ in range(3):
        cluster.add_ours(LIMITS[0])
    client = client_of(cluster, 3)
    estimator = MemoryEstimator(gamma=1.0, overhead="4 MB")
    ours, plain = [], []

    def timed(work) -> tuple[float, float, float]:
        """Calls a second, and the processor time for one, in microseconds: the scheduler's and this process's."""
        began_s, there_s, here_s = time.perf_counter(), cluster.scheduler_cpu_s(), time.process_time()
        assert work() == list(range(2000))
        rate = 2000 / (time.perf_counter() - began_s)
        here_us = (time.process_time() - here_s) / 2000 * 1e6
        return rate, (cluster.scheduler_cpu_s() - there_s) / 2000 * 1e6, here_us

    with FallbackExecutor(levels=("dask",), dask=str(cluster.file), estimator=estimator) as executor:
        list(executor.map(five_milliseconds, range(100)))
        client.gather(client.map(five_milliseconds, range(100), pure=False))
        for _ in range(3):
            ours.append(timed(lambda: list(executor.map(five_milliseconds, range(2000)))))
            plain.append(timed(lambda: client.gather(client.map(five_milliseconds, range(2000), pure=False))))
    client.close()
    medians = {"ours": sorted(ours)[1], "plain Dask": sorted(plain)[1]}
    print_table(
        "2,000 tasks of 5 ms on three workers, medians of 3",
        [
            ("", "tasks a second", "scheduler's processor time a task", "the client's"),
            *(
                (name, f"{rate:.0f}", f"{there_us:.0f} µs", f"{here_us:.0f} µs")
                for name, (rate, there_us, here_us) in medians.items()
            ),
        ],
    )
    share = medians["ours"][0] / medians["plain Dask"][0]
    figure("2,000 tasks of 5 ms, share of plain Dask", f"{share:.2f}", "at least 0.85")
    assert share >= 0.85


@pytest.mark.timeout(400)
def test_what_one_message_costs_the_scheduler(cluster, figure):
    for _ in range(3):
        cluster.add_ours(LIMITS[0])
    client_of(cluster, 3).close()
    alone_us, took_us = asyncio.run(_cost_of_messages(str(cluster.file), cluster, 1000))
    figure("one message, the scheduler's processor time", f"{alone_us:.0f} µs")
    figure("one message, in all (three workers, 30 on their way)", f"{took_us:.0f} µs")


async def _cost_of_messages(address: str, cluster: Cluster, count: int) -> tuple[float, float]:
    """Per message, in microseconds: the scheduler's processor time, and time in all."""
    link = DaskConnection(address)
    await link.connect(lambda *_: None)
    workers = list(await link.workers() or ())
    on_their_way = asyncio.Semaphore(10 * len(workers))

    async def hand(number: int) -> None:
        async with on_their_way:
            assert await link.run_on(workers[number % len(workers)], 1, int) == 0

    await asyncio.gather(*(hand(number) for number in range(100)))
    began_s, cpu_s = time.perf_counter(), cluster.scheduler_cpu_s()
    await asyncio.gather(*(hand(number) for number in range(count)))
    found = (cluster.scheduler_cpu_s() - cpu_s) / count * 1e6, (time.perf_counter() - began_s) / count * 1e6
    await link.disconnect()
    return found
