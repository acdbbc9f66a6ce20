"""What does a cluster cost, and does it keep every worker's budget? Plain Dask does the same beside it.

A scheduler and workers in processes of their own; each worker in a memory control group of its own where one can be
made (version 1, as root), else with `--memory`.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cluster_jobs import five_milliseconds, take_as_much_as_the_file

from pytest_membudget import FallbackExecutor, MemoryEstimator
from pytest_membudget.units import format_size

distributed = pytest.importorskip("distributed")

MB = 1_000_000
LIMITS = (700 * MB, 1000 * MB, 1600 * MB)
GROUPS = Path("/sys/fs/cgroup/memory")
HERE = str(Path(__file__).parent)


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.groups: list[Path] = []
        self.file = folder / "scheduler.json"
        self.start(["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                    "--scheduler-file", str(self.file)])  # fmt: skip
        end_s = time.monotonic() + 60
        while not self.file.exists() and time.monotonic() < end_s:
            time.sleep(0.05)

    def start(self, arguments: list[str], group: Path | None = None) -> None:
        enter = None if group is None else partial((group / "cgroup.procs").write_text, "0")
        with (self.folder / "log.txt").open("ab") as log:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, *arguments],
                    stdout=log,
                    stderr=log,
                    preexec_fn=enter,  # noqa: PLW1509 - before the program starts, it belongs to its group
                    start_new_session=True,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join([HERE, *sys.path])},
                )
            )

    def group(self, limit_bytes: int) -> Path | None:
        group = GROUPS / f"membudget-bench-{os.getpid()}-{len(self.groups)}"
        try:
            group.mkdir()
            (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
        except OSError:
            return None
        self.groups.append(group)
        return group

    def add_ours(self, limit_bytes: int) -> None:
        group = self.group(limit_bytes)
        memory = [] if group else ["--memory", f"{limit_bytes * 8 // 10} B"]
        self.start(["-m", "pytest_membudget", "dask-worker", str(self.file), "--nworkers", "1", *memory,
                    f"--dask-options=--host 127.0.0.1 --no-dashboard --local-directory '{self.folder}'"], group)  # fmt: skip

    def add_plain(self, limit_bytes: int) -> None:
        group = self.group(limit_bytes)
        self.start(["-m", "distributed.cli.dask_worker", "--scheduler-file", str(self.file), "--nthreads", "1",
                    "--host", "127.0.0.1", "--no-dashboard", "--local-directory", str(self.folder),
                    "--memory-limit", "auto" if group else str(limit_bytes)], group)  # fmt: skip

    def pressed(self) -> list[str]:
        """Per group: the most that was in use, of how much, and how often the limit was run into."""
        return [
            f"{format_size(int((group / 'memory.max_usage_in_bytes').read_text()))} of "
            f"{format_size(int((group / 'memory.limit_in_bytes').read_text()))}, "
            f"{int((group / 'memory.failcnt').read_text())} times at the limit"
            for group in self.groups
        ]

    def close(self) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        for group in self.groups:
            end_s = time.monotonic() + 10
            while group.exists() and time.monotonic() < end_s:
                with contextlib.suppress(OSError):
                    group.rmdir()
                time.sleep(0.1)


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
        lent: list[Any] = [post.lent for post in executor._engine.crew.posts]  # noqa: SLF001 - each worker's own figures
    assert [outcome.error for outcome in batch.outcomes] == [None] * len(paths)
    capacities = sorted(worker.capacity_bytes for worker in lent)
    bound_s = lower_bound_s(
        [(outcome.estimate_bytes or 0, outcome.duration_s) for outcome in batch.outcomes], capacities
    )
    for worker in sorted(lent, key=lambda each: each.offered_bytes):
        figure("500 mixed tasks, peak of a worker",
               f"{format_size(worker.peak_bytes)} of {format_size(worker.offered_bytes)}", "within")  # fmt: skip
        assert worker.peak_bytes <= worker.offered_bytes
    for text in cluster.pressed():
        figure("500 mixed tasks, its control group", text)
    figure("500 mixed tasks, makespan over its lower bound",
           f"{batch.duration_s / bound_s:.2f} ({batch.duration_s:.1f} s)", "at most 1.25")  # fmt: skip
    figure("500 mixed tasks, events", str(len(batch.events)), "0")
    assert batch.duration_s <= 1.25 * bound_s


@pytest.mark.timeout(400)
def test_plain_dask_with_the_same_load(cluster, tmp_path, figure):
    for limit_bytes in LIMITS:
        cluster.add_plain(limit_bytes)
    client = client_of(cluster, 3)
    before = {worker["id"] for worker in client.scheduler_info()["workers"].values()}
    paths = files_of(tmp_path, mixed_sizes())
    began_s = time.monotonic()
    futures = client.map(take_as_much_as_the_file, [str(path) for path in paths], pure=False)
    with contextlib.suppress(TimeoutError, distributed.TimeoutError):
        distributed.wait(futures, timeout=45)
    took_s = time.monotonic() - began_s
    failed = sum(future.status == "error" for future in futures)
    unfinished = sum(future.status not in {"error", "finished"} for future in futures)
    died = [message for _, message in client.get_events("all") if message.get("action") == "remove-worker"]
    figure("plain Dask, 500 mixed tasks",
           f"{failed} failed, {unfinished} not done after {took_s:.0f} s, {len(died)} workers killed")  # fmt: skip
    for text in cluster.pressed():
        figure("plain Dask, its control group", text)
    client.close()
    assert before


@pytest.mark.timeout(400)
def test_short_tasks_beside_plain_dask(cluster, figure):
    for _ in range(3):
        cluster.add_ours(LIMITS[0])
    client = client_of(cluster, 3)
    estimator = MemoryEstimator(gamma=1.0, overhead="4 MB")
    ours, plain = [], []
    with FallbackExecutor(levels=("dask",), dask=str(cluster.file), estimator=estimator) as executor:
        list(executor.map(five_milliseconds, range(100)))
        client.gather(client.map(five_milliseconds, range(100), pure=False))
        for _ in range(3):
            began_s = time.perf_counter()
            assert list(executor.map(five_milliseconds, range(2000))) == list(range(2000))
            ours.append(2000 / (time.perf_counter() - began_s))
            began_s = time.perf_counter()
            assert client.gather(client.map(five_milliseconds, range(2000), pure=False)) == list(range(2000))
            plain.append(2000 / (time.perf_counter() - began_s))
    client.close()
    share = sorted(ours)[1] / sorted(plain)[1]
    figure("2,000 tasks of 5 ms, ours", f"{sorted(ours)[1]:.0f} a second")
    figure("2,000 tasks of 5 ms, plain Dask", f"{sorted(plain)[1]:.0f} a second")
    figure("2,000 tasks of 5 ms, share of plain Dask", f"{share:.2f}", "at least 0.85")
    assert share >= 0.85
