"""`membudget dask-worker SCHEDULER`: starts Dask workers that say how much memory tasks may take on this host."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path

from pytest_membudget.errors import MissingExtraError, UsageError
from pytest_membudget.measurement.system.machine import memory_limit, usable_cores
from pytest_membudget.runtime.admission.budgets import RESERVE_SHARE
from pytest_membudget.units import format_size, parse_size

LAST_RESORT = 0.95
"""Share of a worker's whole memory at which its nanny ends it, before the kernel has to choose a process."""

# One thread runs a call and nothing else: the executor decides what fits, and a peak is the call's own. Dask would
# otherwise spill what it holds, or pause a worker that does what it was asked to do.
_SETTINGS = {
    "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": str(LAST_RESORT),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("scheduler", help="the scheduler's address, or its scheduler file")
    parser.add_argument(
        "--nworkers", type=int, default=None, help="worker processes; one for each core when not given"
    )
    parser.add_argument(
        "--memory",
        default=None,
        metavar="SIZE",
        help="what tasks on this host may take together; the limit that binds here less 20%% when not given",
    )
    parser.add_argument(
        "--dask-options",
        default="",
        metavar="TEXT",
        help="more options for `dask worker`, as in --dask-options='--local-directory /scratch'",
    )


def run(arguments: argparse.Namespace) -> int:  # noqa: RET503 - execve does not return
    """Becomes `dask worker`, which ends its workers on Ctrl-C and SIGTERM."""
    if importlib.util.find_spec("distributed") is None:
        raise MissingExtraError("membudget dask-worker", "distributed", "dask")
    command = worker_command(
        arguments.scheduler, arguments.nworkers, arguments.memory, shlex.split(arguments.dask_options)
    )
    environment = {**_SETTINGS, **os.environ}
    if sys.platform == "win32":
        return subprocess.call(command, env=environment)
    sys.stdout.flush()
    os.execve(command[0], command, environment)  # noqa: S606 - no shell, and this process has nothing else to do


def worker_command(scheduler: str, nworkers: int | None, memory: str | None, options: list[str]) -> list[str]:
    """The command that starts the workers, each with an equal share of this host's memory."""
    workers = usable_cores() if nworkers is None else nworkers
    if workers < 1:
        raise UsageError(f"--nworkers is {workers}; give 1 or more")
    limit_bytes = memory_limit().bytes
    offered_bytes = int(limit_bytes * (1 - RESERVE_SHARE)) if memory is None else parse_size(memory)
    if offered_bytes > limit_bytes:
        raise UsageError(
            f"--memory is {format_size(offered_bytes)}, but all of this host allows {format_size(limit_bytes)}"
        )
    whole_bytes = limit_bytes if memory is None else int(offered_bytes / (1 - RESERVE_SHARE))
    where = ["--scheduler-file", scheduler] if Path(scheduler).is_file() else [scheduler]
    return [
        *(sys.executable, "-m", "distributed.cli.dask_worker", *where),
        *("--nworkers", str(workers), "--nthreads", "1"),
        *("--resources", f"MEMORY={offered_bytes // workers}"),
        *("--memory-limit", str(min(whole_bytes, limit_bytes) // workers)),
        *options,
    ]
