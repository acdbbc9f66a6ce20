"""A scheduler and workers in processes of their own, each worker in a memory control group where one can be made."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil

from pytest_membudget.units import format_size

GROUPS = Path("/sys/fs/cgroup/memory")  # version 1; as root
HERE = str(Path(__file__).parent)


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.limits: dict[int, int] = {}
        self.groups: dict[int, Path] = {}
        self.file = folder / "scheduler.json"
        self.scheduler = self.start(["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
                                     "--no-dashboard", "--scheduler-file", str(self.file)])  # fmt: skip
        end_s = time.monotonic() + 60
        while not self.file.exists() and time.monotonic() < end_s:
            time.sleep(0.05)

    def start(self, arguments: list[str], group: Path | None = None) -> subprocess.Popen[bytes]:
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
        return self.processes[-1]

    def add_ours(self, limit_bytes: int) -> None:
        group = self._group(limit_bytes)
        memory = [] if group else ["--memory", f"{limit_bytes * 8 // 10} B"]
        worker = self.start(["-m", "pytest_membudget", "dask-worker", str(self.file), "--nworkers", "1", *memory,
                             f"--dask-options=--host 127.0.0.1 --no-dashboard --local-directory '{self.folder}'"], group)  # fmt: skip
        self._note(worker, limit_bytes, group)

    def add_plain(self, limit_bytes: int) -> None:
        group = self._group(limit_bytes)
        worker = self.start(["-m", "distributed.cli.dask_worker", "--scheduler-file", str(self.file), "--nthreads", "1",
                             "--host", "127.0.0.1", "--no-dashboard", "--local-directory", str(self.folder),
                             "--memory-limit", str(limit_bytes)], group)  # fmt: skip
        self._note(worker, limit_bytes, group)

    def scheduler_cpu_s(self) -> float:
        """Processor time that the scheduler has used."""
        times = psutil.Process(self.scheduler.pid).cpu_times()
        return float(times.user + times.system)

    def pressed(self) -> list[tuple[str, str, str, str]]:
        """Per worker: its limit; what its group held at most; how often that was at the limit; kills by the kernel."""
        rows = []
        for pid, limit_bytes in sorted(self.limits.items(), key=lambda pair: pair[1]):
            group = self.groups.get(pid)
            if group is None:
                rows.append((format_size(limit_bytes), "no control group", "", ""))
                continue
            kills = dict(line.split() for line in (group / "memory.oom_control").read_text().splitlines())
            most = int((group / "memory.max_usage_in_bytes").read_text())
            at_limit = (group / "memory.failcnt").read_text().strip()
            rows.append((format_size(limit_bytes), format_size(most), at_limit, kills.get("oom_kill", "?")))
        return rows

    def close(self) -> None:
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for group in self.groups.values():
            end_s = time.monotonic() + 10
            while group.exists() and time.monotonic() < end_s:
                with contextlib.suppress(OSError):
                    group.rmdir()
                time.sleep(0.1)

    def _group(self, limit_bytes: int) -> Path | None:
        group = GROUPS / f"membudget-bench-{os.getpid()}-{len(self.groups)}"
        try:
            group.mkdir()
            (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
        except OSError:
            return None
        return group

    def _note(self, worker: subprocess.Popen[bytes], limit_bytes: int, group: Path | None) -> None:
        self.limits[worker.pid] = limit_bytes
        if group is not None:
            self.groups[worker.pid] = group
