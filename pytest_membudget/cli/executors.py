"""Commands beside an executor.

- `membudget retry DEAD_LETTERS MODULE:FUNCTION` runs inputs that failed once more.
- `membudget dask-worker SCHEDULER` starts Dask workers that offer the memory of their host to tasks.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pytest_membudget.calibration.worker import load_here, parse_reference
from pytest_membudget.cli import EXIT_FAILED, EXIT_OK, Command
from pytest_membudget.errors import MissingExtraError, UsageError, text_of
from pytest_membudget.measurement.system.machine import memory_limit, usable_cores
from pytest_membudget.records.run import Outcome
from pytest_membudget.report.text import clean_text
from pytest_membudget.runtime.admission.budgets import RESERVE_SHARE
from pytest_membudget.runtime.executor import dead_letters
from pytest_membudget.runtime.executor.dead_letters import DeadLetter
from pytest_membudget.runtime.executor.executor import FallbackExecutor
from pytest_membudget.runtime.executor.policy import ExecutorPolicy
from pytest_membudget.units import format_size, parse_size

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

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


def _add_retry_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "dead_letters",
        type=Path,
        metavar="DEAD_LETTERS",
        help="file that ExecutorPolicy(dead_letters=…) named",
    )
    parser.add_argument(
        "function",
        metavar="MODULE:FUNCTION",
        help="function to run on them; it is imported from the current directory",
    )
    parser.add_argument(
        "--initializer", metavar="MODULE:FUNCTION", help="function that each worker calls first"
    )
    parser.add_argument(
        "--workers", type=int, default=None, metavar="N", help="number of workers (default: as many as fit)"
    )
    parser.add_argument(
        "--budget",
        default=None,
        metavar="SIZE",
        help='memory that all tasks may use together, such as "4 GB"',
    )
    parser.add_argument(
        "--timeout", type=float, default=None, metavar="SECONDS", help="time limit of each input"
    )


def run_retry(arguments: argparse.Namespace) -> int:
    """Runs each input again; those that succeed leave the file. 0 when all did, 1 when some are left."""
    function = load_here(parse_reference(arguments.function))
    initializer = load_here(parse_reference(arguments.initializer)) if arguments.initializer else None
    path = arguments.dead_letters
    found = dead_letters.read_all(path)
    foreign = sorted({letter.function for letter in found.letters} - {arguments.function})
    if foreign:
        raise UsageError(
            f"{path} holds inputs of {', '.join(foreign)}, not of {arguments.function}; name that function, "
            "or keep one file for each"
        )
    refusals = {id(letter): dead_letters.refusal(letter) for letter in found.letters}
    runnable = [letter for letter in found.letters if refusals[id(letter)] is None]
    # Worker processes however few there are: what killed its worker once would end this program in a thread.
    policy = ExecutorPolicy(timeout_s=arguments.timeout, small_batch=0)
    outcomes: list[Outcome] = []
    failed: list[DeadLetter] = []
    with FallbackExecutor(
        arguments.workers, budget=arguments.budget, policy=policy, initializer=initializer
    ) as executor:
        for bound, letters in _by_arguments(runnable):
            called = functools.partial(function, *bound[0], **bound[1]) if any(bound) else function
            batch = executor.run(called, [dead_letters.item_of(letter) for letter in letters])
            outcomes += batch.outcomes
            failed += [
                dead_letters.letter_of(called, outcome, name=arguments.function)
                for outcome in batch.outcomes
                if not outcome.ok
            ]
    dead_letters.replace(path, runnable, failed)
    print(f"{sum(outcome.ok for outcome in outcomes)} of {len(outcomes)} inputs succeeded")
    for outcome in outcomes:
        if not outcome.ok:
            print(clean_text(f"  {text_of(outcome.item, repr)}: {outcome.cause}: {text_of(outcome.error)}"))
    for refusal in filter(None, refusals.values()):
        print(clean_text(f"  not run: {refusal}"))
    if found.torn:
        print(
            f"  not run: line {', '.join(map(str, found.torn))} is torn: a program was killed while it wrote"
        )
    is_left = len(outcomes) < len(found.letters) or failed or found.torn
    if is_left:
        print(f"the others stay in {path}")
    return EXIT_FAILED if is_left else EXIT_OK


def _by_arguments(letters: Sequence[DeadLetter]) -> Iterator[tuple[Arguments, list[DeadLetter]]]:
    """Letters whose function had the same arguments beside the item, which run as one batch."""
    groups: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        groups.setdefault(repr(letter.bound), []).append(letter)
    for group in groups.values():
        yield dead_letters.arguments_of(group[0]), group


def _add_dask_worker_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "scheduler", metavar="SCHEDULER", help="address of the scheduler, or its scheduler file"
    )
    parser.add_argument(
        "--nworkers",
        type=int,
        default=None,
        metavar="N",
        help="number of worker processes (default: one for each core)",
    )
    parser.add_argument(
        "--memory",
        default=None,
        metavar="SIZE",
        help="memory that tasks on this host may use together (default: 80%% of the limit that applies here)",
    )
    parser.add_argument(
        "--dask-options",
        default="",
        metavar="TEXT",
        help="more options for `dask worker`, as in --dask-options='--local-directory /scratch'",
    )


def run_dask_worker(arguments: argparse.Namespace) -> int:  # noqa: RET503 - execve does not return
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


COMMANDS = {
    "retry": Command(_add_retry_arguments, run_retry),
    "dask-worker": Command(_add_dask_worker_arguments, run_dask_worker),
}
