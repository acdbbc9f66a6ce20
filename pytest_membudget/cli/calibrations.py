"""What calibrations are good for beside an executor, and where else they come from.

- `membudget learn FILE…` makes them from what Nextflow, Snakemake or Slurm recorded of finished jobs.
- `membudget size CALIBRATION FILE… --for SYSTEM` prints what a job asks for; every text is what that system's own parser
  accepts. Units differ: Slurm's M, Kubernetes' Mi, Nextflow's MB and Dask's MiB are 1024² bytes, Snakemake's mem_mb is
  10⁶. Sizes are rounded up.
- `membudget workers CALIBRATION FILE…` prints how many workers fit beside each other.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_membudget.calibration.law import LEAST_POINTS
from pytest_membudget.calibration.other_systems import (
    ATTEMPTS,
    calibrate_recorded,
    read_recording,
    request_for,
)
from pytest_membudget.calibration.run_executors import bare_interpreter_bytes
from pytest_membudget.calibration.store import calibration_path, save_named
from pytest_membudget.cli import EXIT_FAILED, EXIT_OK, Command
from pytest_membudget.cli.calibrate import add_predictor_option, find_calibration
from pytest_membudget.errors import UsageError
from pytest_membudget.measurement.system.machine import memory_limit, usable_cores
from pytest_membudget.records.calibration import SYSTEMS, JobRequest, RecordedJob, System
from pytest_membudget.report.text import clean_text
from pytest_membudget.runtime.prediction.estimator import fit_workers
from pytest_membudget.units import (
    format_as_written,
    format_count,
    format_share,
    format_size,
    parse_share,
    parse_size,
)

_MOST_NAMED = 5
_FILES_OR_SIZE = "name the files, or --size and no files"
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)


def _add_learn_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="a Nextflow trace, a Snakemake benchmark file (TSV or JSONL), or the output of sacct --parsable2",
    )
    parser.add_argument(
        "--kind",
        metavar="KIND",
        help="all jobs are of this kind: for a rule of Snakemake with a benchmark file for each sample",
    )
    parser.add_argument(
        "--save",
        metavar="NAME",
        help="save each kind of job as .membudget/calibrations/NAME-KIND.json; NAME.json if there is one kind",
    )


def run_learn(arguments: argparse.Namespace) -> int:
    """Prints what each kind of job took, and keeps the calibrations; 1 where no kind has enough jobs."""
    if arguments.save:
        calibration_path(arguments.save)  # a bad name is said before anything is read
    kinds: dict[str, list[RecordedJob]] = defaultdict(list)
    caveats: dict[str, dict[str, None]] = defaultdict(dict)
    skipped = repeated = 0
    for path in dict.fromkeys(arguments.files):
        recording = read_recording(path)
        skipped, repeated = skipped + recording.skipped, repeated + recording.repeated
        for job in recording.jobs:
            kind = arguments.kind or job.kind
            kinds[kind].append(job)
            caveats[kind] |= dict.fromkeys(recording.caveats)
    learned = {kind: jobs for kind, jobs in sorted(kinds.items()) if len(jobs) >= LEAST_POINTS}
    names = _names(arguments.save, learned) if arguments.save else {}
    for kind, jobs in learned.items():
        found = calibrate_recorded(kind, jobs, tuple(caveats[kind]))
        highest = max(job.peak_bytes for job in jobs)
        follows = (
            f"{found.gamma:.2f} B/B of what it reads + {format_size(found.overhead_bytes)}"
            if found.predictors
            else f"about {format_size(found.overhead_bytes)} for any input"
        )
        print(
            f"{clean_text(kind)}: {format_count(len(jobs), 'job')}, at most {format_size(highest)}; {follows}"
        )
        for caveat in found.file.caveats[len(caveats[kind]) :]:
            print(f"  {caveat}")
        if arguments.save:
            print(f"  saved to {save_named(found, names[kind])}")
    few = {kind: len(jobs) for kind, jobs in sorted(kinds.items()) if kind not in learned}
    of_files = dict.fromkeys(caveat for kind in learned for caveat in caveats[kind])
    for note in (*_notes(few, skipped, repeated), *of_files):
        print(f"note: {note}")
    if not kinds:
        print(
            f"note: no finished job with a peak in {', '.join(clean_text(str(path)) for path in arguments.files)}"
        )
    return EXIT_OK if learned else EXIT_FAILED


def _names(name: str, kinds: Collection[str]) -> dict[str, str]:
    """A file's name for each kind of job; kinds that differ in signs no name may have, or in case alone, are numbered."""
    if len(kinds) == 1:
        return dict.fromkeys(kinds, name)
    names: dict[str, str] = {}
    for kind in kinds:
        fit = f"{name}-{_UNFIT.sub('-', kind).strip('-.')}"
        others = [f"{fit}-{number}" for number in range(2, len(kinds) + 1)]
        taken = {name.casefold() for name in names.values()}  # macOS and Windows know no case
        names[kind] = next(each for each in (fit, *others) if each.casefold() not in taken)
    return names


def _notes(few: Mapping[str, int], skipped: int, repeated: int) -> Iterator[str]:
    """What was read and did not become a calibration; `few` are the jobs of kinds that have too few."""
    for kind, count in list(few.items())[:_MOST_NAMED]:
        yield (
            f"{clean_text(kind)} has {format_count(count, 'job')}, and a calibration needs {LEAST_POINTS}; give "
            "the records of more runs as well"
        )
    if len(few) > _MOST_NAMED:
        yield f"and {format_count(len(few) - _MOST_NAMED, 'more kind')} of job with fewer than {LEAST_POINTS}"
    if skipped:
        yield f"{format_count(skipped, 'row')} without a finished job and its peak"
    if repeated:
        yield f"{format_count(repeated, 'row')} that {'repeats' if repeated == 1 else 'repeat'} another: each job counts once"


def _add_size_arguments(parser: argparse.ArgumentParser) -> None:
    _add_inputs(
        parser, files="inputs of the job; the largest counts", size="the job gets an input of this size"
    )
    parser.add_argument(
        "--for", dest="system", required=True, choices=SYSTEMS, help="system that runs the job"
    )
    parser.add_argument(
        "--aim",
        default="safe",
        choices=("safe", "cheap"),
        help="safe: few failures; cheap: least memory wasted (default: %(default)s)",
    )
    parser.add_argument(
        "--attempts",
        type=int,
        default=ATTEMPTS,
        metavar="N",
        help="number of attempts, each with more memory (default: %(default)s)",
    )


def _add_inputs(parser: argparse.ArgumentParser, *, files: str, size: str) -> None:
    parser.add_argument("calibration", metavar="CALIBRATION", help="name or file of the calibration")
    parser.add_argument("files", nargs="*", default=[], type=Path, metavar="FILE", help=files)
    parser.add_argument("--size", metavar="SIZE", help=f"instead of files: {size}")
    add_predictor_option(parser)


def _inputs(arguments: argparse.Namespace) -> list[Any]:
    if arguments.files and arguments.size:
        raise UsageError(_FILES_OR_SIZE)
    for path in arguments.files:
        path.stat()  # a missing file is named, and not called a bad size
    return [parse_size(arguments.size)] if arguments.size else list(arguments.files)


def run_size(arguments: argparse.Namespace) -> int:
    """Prints the lines for the job."""
    found = find_calibration(arguments.calibration, arguments.predictor)
    request = request_for(
        found,
        _inputs(arguments),
        arguments.aim,
        interpreter_bytes=bare_interpreter_bytes(),
        attempts=arguments.attempts,
    )
    print(render_request(request, arguments.system))
    return EXIT_OK


def _add_workers_arguments(parser: argparse.ArgumentParser) -> None:
    _add_inputs(parser, files="files to process", size="each worker gets an input of this size")
    parser.add_argument("--limit", metavar="SIZE", help="memory of the machine (default: that of this one)")
    parser.add_argument(
        "--share",
        default="75%",
        metavar="PERCENT",
        help="percentage of it that may be used (default: %(default)s)",
    )


def run_workers(arguments: argparse.Namespace) -> int:
    """Prints the number; 1 where not even one worker fits."""
    found = find_calibration(arguments.calibration, arguments.predictor)
    items = _inputs(arguments)
    if not items:
        raise UsageError(_FILES_OR_SIZE)
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
    used = format_share(fit.taken_bytes / limit_bytes) if limit_bytes else "all"
    print(f"workers: {fit.workers}, together at most {format_size(fit.taken_bytes)}, {used} of {limit}")
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


_MIB = 1024 * 1024
_MB = 1_000_000
_DASK_PAUSES_AT = 0.8
"""Share of its memory limit at which a Dask worker takes no more tasks (distributed.worker.memory.pause)."""

_OUT_OF_MEMORY = (104, 134, 137, 139, 140, 143, 247)
"""Exit codes after which Nextflow pipelines repeat a task with more memory; those of nf-core's template."""


def render_request(request: JobRequest, system: System) -> str:
    """The lines to put into the job, with a comment above them that says what they promise."""
    sign = "//" if system == "nextflow" else "#"
    # What a file of others says must not end the comment: a line break would be a line of the job.
    comment = [
        f"{sign} {clean_text(line)}"
        for line in (f"membudget: {_promise(request)}", *(f"note: {caveat}" for caveat in request.caveats))
    ]
    return "\n".join([*comment, *_LINES[system](request)])


def _promise(request: JobRequest) -> str:
    kept = (
        "least memory wasted, for jobs that are repeated"
        if request.content is None
        else f"covers {request.content:.0%} of jobs like those measured with {request.confidence:.0%} confidence"
    )
    among = f", the largest of {format_count(request.inputs, 'input')}" if request.inputs > 1 else ""
    return f"aim {request.aim} ({kept}); for {request.largest}{among}" + (
        f"; {format_size(request.idle_bytes)} of it before any input" if request.idle_bytes else ""
    )


def _slurm(request: JobRequest) -> list[str]:
    first, *later = [f"--mem={_whole(each, _MIB)}M" for each in request.attempts_bytes]
    lines = [f"#SBATCH {first}"]
    if later:
        lines.append(f"# where it ends as OUT_OF_MEMORY, submit again with {', then '.join(later)}")
    return lines


def _kubernetes(request: JobRequest) -> list[str]:
    first, *later = [f"{_whole(each, _MIB)}Mi" for each in request.attempts_bytes]
    lines = ["resources:", "  requests:", f"    memory: {first}", "  limits:", f"    memory: {first}"]
    if later:
        lines.append(f"# where a container is OOMKilled, apply again with {', then '.join(later)}")
    return lines


def _nextflow(request: JobRequest) -> list[str]:
    ladder = ", ".join(f"{_whole(each, _MIB)}.MB" for each in request.attempts_bytes)
    last = len(request.attempts_bytes)
    return [
        "process {",
        f"    memory = {{ [{ladder}][Math.min(task.attempt, {last}) - 1] }}",
        f"    errorStrategy = {{ task.exitStatus in {list(_OUT_OF_MEMORY)} ? 'retry' : 'finish' }}",
        f"    maxRetries = {last - 1}",
        "}",
    ]


def _snakemake(request: JobRequest) -> list[str]:
    ladder = [_whole(each, _MB) for each in request.attempts_bytes]
    return [
        f"retries: {len(ladder) - 1}",
        "resources:",
        f"    mem_mb=lambda wildcards, attempt: {ladder}[min(attempt, {len(ladder)}) - 1]",
    ]


def _dask(request: JobRequest) -> list[str]:
    first, *later = request.attempts_bytes
    limit = f"{_whole(first / _DASK_PAUSES_AT, _MIB)}MiB"
    lines = [
        f"dask worker SCHEDULER --nworkers 1 --nthreads 1 --memory-limit {limit} --resources MEMORY={first}",
        f'# client.submit(function, path, resources={{"MEMORY": {first}}})',
    ]
    if later:
        lines.append(f"# after a KilledWorker: {', then '.join(str(each) for each in later)}")
    lines.append(
        f"# a worker pauses at {_DASK_PAUSES_AT:.0%} of its limit, so the limit is above what the task takes"
    )
    return lines


_LINES: dict[System, Callable[[JobRequest], list[str]]] = {
    "slurm": _slurm,
    "kubernetes": _kubernetes,
    "nextflow": _nextflow,
    "snakemake": _snakemake,
    "dask": _dask,
}


def _whole(size_bytes: float, unit_bytes: int) -> int:
    return -int(-size_bytes // unit_bytes)


COMMANDS = {
    "learn": Command(_add_learn_arguments, run_learn),
    "size": Command(_add_size_arguments, run_size),
    "workers": Command(_add_workers_arguments, run_workers),
}
