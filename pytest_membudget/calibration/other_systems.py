"""Other systems that run jobs: what to ask them for, and what they recorded of finished jobs.

1. `request_for` turns a calibration into the memory of a job and of its repeats; `membudget size` words it for Slurm,
   Kubernetes, Nextflow, Snakemake and Dask.
2. `read_recording` reads Nextflow's trace, Snakemake's benchmarks and sacct of Slurm; `calibrate_recorded` makes a
   calibration of the jobs of one kind. Only text is read, nothing in it is executed. Jobs that failed or have no figure are
   counted and left out: what a killed job had reached says little of what it needs.
"""

from __future__ import annotations

import codecs
import csv
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pytest_membudget.calibration.model import Calibration
from pytest_membudget.calibration.store import complete
from pytest_membudget.errors import UnreadableFileError, UsageError
from pytest_membudget.records.calibration import (
    CalibrationFile,
    CalibrationPoint,
    JobRequest,
    RecordedJob,
    Recording,
)
from pytest_membudget.records.storage import read_bounded
from pytest_membudget.stats.learning import Aim
from pytest_membudget.units import format_as_written, format_count

ATTEMPTS = 3
SAFE_CONTENT = 0.99
"""Of jobs that the first attempt is to cover under the aim "safe", with the calibration's confidence."""


def request_for(
    found: Calibration,
    items: Sequence[Any],
    aim: Aim = "safe",
    *,
    interpreter_bytes: int,
    attempts: int = ATTEMPTS,
) -> JobRequest:
    """What a job asks for that may get any of these inputs: enough for the one that takes most.

    Args:
        found: of the function that the job calls.
        items: its inputs; none where the calibration does not depend on them.
        aim: "safe" or "cheap", see `Calibration.estimator`.
        interpreter_bytes: a bare interpreter, which is not in the calibration of a task.
        attempts: the first, and those after one that ran out of memory, each with more.

    Raises:
        UsageError: no inputs.
    """
    if not items and found.predictors:
        raise UsageError(f"the memory follows {' and '.join(found.predictors)}; name the inputs")
    if attempts < 1:
        raise UsageError(f"attempts is {attempts}; give 1 or more")
    estimator, safe = found.estimator(aim), found.estimator("safe")
    given = list(items) or [0]

    def first_bytes(item: Any) -> int:
        # What leaves room above peaks that agree is not to ask for more than what hardly ever fails.
        safe_bytes = max(safe.estimate_file_memory(item), found.bound(item, content=SAFE_CONTENT))
        return safe_bytes if aim == "safe" else min(safe_bytes, estimator.estimate_file_memory(item))

    largest = max(given, key=first_bytes)
    ladder = [first_bytes(largest)]
    while len(ladder) < attempts:
        ladder.append(estimator.retry_bytes(largest, ladder[-1]))
    idle_bytes = 0 if found.file.peak_of == "job" else interpreter_bytes + found.base_bytes
    return JobRequest(
        largest=found.describe(largest),
        inputs=len(items),
        aim=aim,
        content=SAFE_CONTENT if aim == "safe" else None,
        confidence=found.confidence,
        attempts_bytes=tuple(idle_bytes + task_bytes for task_bytes in ladder),
        idle_bytes=idle_bytes,
        caveats=tuple(_caveats(found, given)),
    )


def _caveats(found: Calibration, items: Sequence[Any]) -> list[str]:
    beyond = sum(map(found.is_extrapolated, items))
    caveats = []
    if beyond:
        caveats.append(
            f"{format_count(beyond, 'input')} beyond what was calibrated (up to {format_as_written(found.max_size_bytes)}): "
            "extrapolated"
        )
    return [*caveats, *found.file.caveats, *found.doubts_of_law]


_MIB = 1024 * 1024
_FACTORS = {"": 1, "K": 1024, "M": _MIB, "G": 1024**3, "T": 1024**4, "P": 1024**5}
# A comma with one or two digits is a decimal one; three may be thousands, so such a figure is left out.
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+|,[0-9]{1,2})?)\s*([KMGTP]?)i?B?\s*", re.ASCII | re.IGNORECASE)
_MOST_BYTES = 2**62
_MOST_JOBS = 1_000  # fitted within seconds
_PARTS = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|[dhms])", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_CLOCK = re.compile(r"(?:([0-9]+)-)?(?:([0-9]+):)?([0-9]+):([0-9]+(?:\.[0-9]+)?)", re.ASCII)
_NUMBER_AFTER_COLON = re.compile(r":\s*([0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)", re.ASCII)
_SAMPLED = "peaks were sampled by {}: what lasted less than an interval is not in them"
_ENDED_WELL = ("COMPLETED", "CACHED")  # Nextflow repeats the figures of a job that it did not run again
_GIVE = (
    "give a Nextflow trace with peak_rss, a Snakemake benchmark, or the output of: "
    "sacct --parsable2 --format=JobID,JobName,State,MaxRSS,NTasks,Elapsed"
)
_CUT_NAMES = "job names were cut, so jobs of several kinds may count as one; print them with --parsable2"
_LARGEST_TASK = (
    "MaxRSS is of the largest task of a step: a job whose steps run several tasks at a time takes more"
)
_NO_SIZES = "no sizes of inputs were recorded: one figure stands for every input"

Row = Mapping[str, str]


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """The finished jobs in a file of any of the three, recognized by its first lines.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: it is none of the three.
    """
    data = read_bounded(path, what="a record of jobs")
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    lines = data.decode(encoding, errors="replace").splitlines()
    if not lines:
        raise UnreadableFileError(f"{path} is empty, so it is no record of jobs; {_GIVE}")
    if "max_rss" in _from_json(lines[0]):
        return _recording(
            (_from_snakemake(row, Path(path).stem) for row in map(_from_json, lines)), "Snakemake"
        )
    lines = _without_padding(lines)
    separator = next((each for each in "|\t;," if each in lines[0]), "\t")
    columns = set(lines[0].split(separator))
    is_snakemake = "max_rss" in columns
    # Rows of the other two name their job, so one that repeats another, or the header, is the same job read again.
    different = lines if is_snakemake else list(dict.fromkeys(lines))
    rows = list(csv.DictReader(different, delimiter=separator, quoting=csv.QUOTE_NONE))
    repeated = len(lines) - len(different)
    if "peak_rss" in columns:
        return _recording(map(_from_nextflow, rows), "Nextflow", repeated)
    if is_snakemake:
        return _recording((_from_snakemake(row, Path(path).stem) for row in rows), "Snakemake")
    if {"JobID", "JobName", "State", "MaxRSS"} <= columns:
        cut = [row["JobID"] for row in rows if (row["JobID"] or "").endswith("+")]
        if cut:
            raise UnreadableFileError(
                f"{path} has job ids that were cut, such as {cut[0]!r}; print it with --parsable2"
            )
        found = _recording(map(_from_slurm, _by_job(rows)), "Slurm", repeated)
        is_single = "NTasks" in columns and all(_number(row["NTasks"]) in (None, 0, 1) for row in rows)
        doubts = [] if is_single else [_LARGEST_TASK]
        if any(job.kind.endswith("+") for job in found.jobs):
            doubts.append(_CUT_NAMES)
        return msgspec.structs.replace(found, caveats=(*found.caveats, *doubts))
    raise UnreadableFileError(f"{path} is no record of jobs; {_GIVE}")


def _without_padding(lines: list[str]) -> list[str]:
    """What sacct prints without --parsable2, each column as wide as its rule of dashes, as --parsable2 prints it."""
    if len(lines) < 2 or not lines[1].startswith("-") or not set(lines[1]) <= {"-", " "}:
        return lines
    columns = [slice(*rule.span()) for rule in re.finditer("-+", lines[1])]
    return ["|".join(line[column].strip() for column in columns) for line in (lines[0], *lines[2:])]


def _from_json(line: str) -> Row:
    """A line of a Snakemake benchmark whose name ends in .jsonl, its values as text; nothing where it is torn."""
    try:
        return {key: str(value) for key, value in msgspec.json.decode(line, type=dict[str, Any]).items()}
    except (msgspec.DecodeError, RecursionError):
        return {}


def calibrate_recorded(kind: str, jobs: Sequence[RecordedJob], caveats: tuple[str, ...] = ()) -> Calibration:
    """The calibration of jobs of one kind: by the size of what they read, or the same for all where that is not known.

    Of more than 1,000 jobs the latest count, and the one that took most.

    Raises:
        UsageError: fewer than three jobs.
    """
    if len(jobs) > _MOST_JOBS:
        caveats = (*caveats, f"of {len(jobs):,} jobs the latest {_MOST_JOBS:,} and the largest were fitted")
        before, latest = jobs[:-_MOST_JOBS], jobs[-_MOST_JOBS:]
        jobs = [max(before, key=lambda job: job.peak_bytes), *latest]
    by_size = all(job.size_bytes is not None for job in jobs)
    durations_s = tuple(job.duration_s for job in jobs if job.duration_s is not None)
    return complete(
        CalibrationFile(
            version=1 if by_size else 2,
            points=tuple(CalibrationPoint(job.size_bytes or 0, job.peak_bytes) for job in jobs),
            predictors=() if by_size else ("bytes",),
            values=() if by_size else ((0.0,),) * len(jobs),
            terms=() if by_size else ((0,),),
            durations_s=durations_s if len(durations_s) == len(jobs) else (),
            content=0.95,
            confidence=0.95,
            peak_of="job",
            function=kind,
            kind="recorded jobs",
            caveats=caveats if by_size else (*caveats, _NO_SIZES),
        )
    )


def _recording(found: Iterable[RecordedJob | None], system: str, repeated: int = 0) -> Recording:
    every = list(found)
    jobs = tuple(job for job in every if job is not None)
    return Recording(
        jobs=jobs, skipped=len(every) - len(jobs), repeated=repeated, caveats=(_SAMPLED.format(system),)
    )


def _from_nextflow(row: Row) -> RecordedJob | None:
    """Sizes and times are text ("1.2 GB", "1m 3s"), or with trace.raw bytes and milliseconds."""
    peak_bytes = _bytes(row.get("peak_rss"))
    if not peak_bytes or (row.get("status") or _ENDED_WELL[0]) not in _ENDED_WELL:
        return None
    kind = (row.get("process") or row.get("name") or "").partition(" (")[0]
    realtime = row.get("realtime") or ""
    return RecordedJob(
        kind=kind or "job",
        peak_bytes=peak_bytes,
        size_bytes=_bytes(row.get("rchar")),
        duration_s=int(realtime) / 1000 if realtime.isdecimal() else _seconds(realtime),
    )


def _from_snakemake(row: Row, stem: str) -> RecordedJob | None:
    """Sizes are MiB. An extended benchmark has the rule and the size of each input as well."""
    peak_mib = _number(row.get("max_rss"))
    if not peak_mib:
        return None
    inputs_mib = [float(size) for size in _NUMBER_AFTER_COLON.findall(row.get("input_size_mb") or "")]
    return RecordedJob(
        kind=row.get("rule_name") or stem,
        peak_bytes=round(peak_mib * _MIB),
        size_bytes=round(sum(inputs_mib) * _MIB) if inputs_mib else None,
        duration_s=_number(row.get("s")),
    )


def _by_job(rows: Iterable[Row]) -> Iterator[Row]:
    """One row for each job, with the highest MaxRSS of its steps ("123.batch", "123.0").

    A job that was queued again has a row of its own for each attempt, its steps below it (`sacct --duplicates`).
    """
    jobs: dict[str, dict[str, str]] = {}
    for row in rows:
        job, _, step = (row.get("JobID") or "").partition(".")
        if not step and job in jobs and "." not in jobs[job]["JobID"]:
            yield jobs.pop(job)
        kept = jobs.setdefault(job, dict(row))
        highest = max(kept.get("MaxRSS") or "", row.get("MaxRSS") or "", key=lambda text: _bytes(text) or 0)
        if not step:
            kept.update(row)
        kept["MaxRSS"] = highest
    yield from jobs.values()


def _from_slurm(row: Row) -> RecordedJob | None:
    peak_bytes = _bytes(row.get("MaxRSS"))
    if not peak_bytes or row.get("State") not in _ENDED_WELL:
        return None
    return RecordedJob(
        kind=row.get("JobName") or "job", peak_bytes=peak_bytes, duration_s=_seconds(row.get("Elapsed") or "")
    )


def _bytes(text: str | None) -> int | None:
    """Bytes of "1.2 GB", "1234K" or "1048576"; units are powers of 1024, as all three have them."""
    match = _SIZE.fullmatch(text or "")
    found = float(match[1].replace(",", ".")) * _FACTORS[match[2].upper()] if match else math.inf
    return round(found) if found <= _MOST_BYTES else None


def _number(text: str | None) -> float | None:
    try:
        number = float((text or "").replace(",", "."))
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


def _seconds(text: str) -> float | None:
    """Seconds of "1m 3s", "00:12:34", "1-02:03:04" or "12:34.567"."""
    clock = _CLOCK.fullmatch(text.strip())
    if clock:
        days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    parts = _PARTS.findall(text)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else None
