"""`membudget workers CALIBRATION FILE…`: how many workers fit beside each other."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from pytest_membudget.calibration.fresh_run import bare_interpreter_bytes
from pytest_membudget.cli import EXIT_FAILED, EXIT_OK
from pytest_membudget.cli.calibrate import add_predictor_option, find_calibration
from pytest_membudget.errors import UsageError
from pytest_membudget.measurement.system.machine import memory_limit, usable_cores
from pytest_membudget.runtime.prediction.estimator import fit_workers
from pytest_membudget.units import (
    format_as_written,
    format_count,
    format_share,
    format_size,
    parse_share,
    parse_size,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("calibration", metavar="CALIBRATION", help="the name it was saved by, or its file")
    parser.add_argument(
        "files", nargs="*", default=[], type=Path, metavar="FILE", help="what is to be processed"
    )
    parser.add_argument("--size", metavar="SIZE", help="instead of files: one of this size for each worker")
    add_predictor_option(parser)
    parser.add_argument("--limit", metavar="SIZE", help="memory of the machine (that of this one)")
    parser.add_argument(
        "--share", default="75%", metavar="SHARE", help="of it that may be used (%(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Tells the number; 1 where not even one worker fits."""
    found = find_calibration(arguments.calibration, arguments.predictor)
    items = _items(arguments)
    limit_bytes = parse_size(arguments.limit) if arguments.limit else memory_limit().bytes
    share = parse_share(arguments.share)
    bare_bytes = bare_interpreter_bytes()
    largest = max(items, key=found.bound)
    tasks = sorted(map(found.bound, items), reverse=True)
    worker_bytes = bare_bytes + found.base_bytes
    # Without files there are as many of that size as one likes.
    fit = fit_workers(
        tasks if arguments.files else itertools.repeat(tasks[0]),
        limit_bytes * share,
        worker_bytes=worker_bytes,
    )
    limit = format_as_written(limit_bytes)
    print(
        f"a worker: {format_size(worker_bytes)} from its start ({format_size(bare_bytes)} Python, "
        f"{format_size(found.base_bytes)} what it loads)"
    )
    print(f"its task: at most {format_size(tasks[0])}, for {found.describe(largest)}")
    if any(map(found.is_extrapolated, items)):
        print(
            f"note: calibrated up to {format_as_written(found.max_size_bytes)}; beyond, this is extrapolated"
        )
    if not fit.workers:
        print(
            f"workers: none: one takes {format_size(fit.next_bytes or 0)}, and {format_share(share)} of {limit} is "
            f"{format_size(limit_bytes * share)}; take smaller inputs or a larger machine"
        )
        return EXIT_FAILED
    print(
        f"workers: {fit.workers}, together at most {format_size(fit.taken_bytes)}, {_of(fit.taken_bytes, limit_bytes)} of {limit}"
    )
    if fit.next_bytes is None:
        print("         there are no more files; memory is not what limits them")
    else:
        print(
            f"         {fit.workers + 1} would take {format_size(fit.next_bytes)}, more than {format_share(share)} of it"
        )
    if not arguments.limit and (cores := usable_cores()) < fit.workers:
        print(
            f"         this machine has {format_count(cores, 'core')}: more workers than that gain nothing where they compute"
        )
    return EXIT_OK


def _items(arguments: argparse.Namespace) -> list[int] | list[Path]:
    if bool(arguments.files) == bool(arguments.size):
        raise UsageError("name the files, or --size and no files")
    if arguments.size:
        return [parse_size(arguments.size)]
    for path in arguments.files:
        path.stat()  # a missing file is named, and not called a bad size
    return list(arguments.files)


def _of(size_bytes: int, limit_bytes: int) -> str:
    return format_share(size_bytes / limit_bytes) if limit_bytes else "all"
