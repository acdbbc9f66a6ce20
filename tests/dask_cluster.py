"""A scheduler and workers in processes of their own, on this machine."""

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from pytest_membudget import FallbackExecutor, MemoryEstimator
from waiting import is_alive, wait_until

HOST = platform.node()
SMALL = MemoryEstimator(gamma=1.0, overhead="8 MB")
LADDER = ("dask", "process", "thread", "sequential")


class DaskCluster:
    def __init__(self, folder):
        self.folder = folder
        self.scheduler_file = str(folder / "scheduler.json")
        self.processes = []
        self.workers = []
        self.scheduler = self.run(
            "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--scheduler-file", self.scheduler_file,
        )  # fmt: skip
        wait_until(lambda: Path(self.scheduler_file).exists() and self.address)

    @property
    def address(self):
        with contextlib.suppress(ValueError, KeyError):
            return json.loads(Path(self.scheduler_file).read_text())["address"]
        return None

    def run(self, *arguments, **environment):
        with (self.folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
            )  # fmt: skip
        self.processes.append(process)
        return process

    def add_worker(self, memory="400 MB", address=None, **environment):
        """One with a nanny, started as our users start theirs; at another address for one behind a link."""
        process = self.run(
            "-m", "pytest_membudget", "dask-worker", address or self.address, "--memory", memory,
            f"--dask-options=--host 127.0.0.1 --no-dashboard --local-directory '{self.folder}'", "--nworkers", "1",
            **environment,
        )  # fmt: skip
        self.workers.append(process)
        return process

    def add_plain_worker(self, *more, **environment):
        process = self.run(
            "-m", "distributed.cli.dask_worker", self.address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1",
            "--no-dashboard", "--local-directory", str(self.folder), *more, **environment,
        )  # fmt: skip
        self.workers.append(process)
        return process

    def close(self):
        """Ends all processes at once; returns those that are still there, which should be none."""
        below = [child for process in self.processes for child in children(process.pid)]
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not any(is_alive(each) for each in below), 10)
        return [each for each in below if is_alive(each)]


def on(cluster, levels=("dask",), **options):
    options.setdefault("estimator", SMALL)
    return FallbackExecutor(levels=levels, dask=cluster.scheduler_file, **options)


def all_workers(executor, count=2):
    """Has that many workers taken; each one's capacity and itself."""
    wait_until(lambda: executor.submit(int).result(60) == 0 and executor.max_workers == count)
    connections = executor._engine.driver._effects.connections.values()
    return {connection.worker.capacity_bytes: connection.worker for connection in connections}


def children(pid):
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []
