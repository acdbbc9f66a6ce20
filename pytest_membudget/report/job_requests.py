"""A job's memory in the words of the system that runs it; every text is what that system's own parser accepts.

Units differ: Slurm's M, Kubernetes' Mi, Nextflow's MB and Dask's MiB are 1024² bytes, Snakemake's mem_mb is 10⁶. Sizes are
rounded up.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_membudget.records.calibration import JobRequest, System
from pytest_membudget.report.text import clean_text
from pytest_membudget.units import format_count, format_size

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
