"""Jobs of other systems: the memory to ask for, and what they recorded of finished ones."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from pytest_membudget.records.quantities import Bytes, Count, Seconds

System = Literal["slurm", "kubernetes", "nextflow", "snakemake", "dask"]
SYSTEMS: tuple[str, ...] = get_args(System)


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Memory for one job: a whole process with one input at a time."""

    #: What it is for: the largest of the inputs, in words.
    largest: str
    inputs: Count
    aim: Literal["safe", "cheap"]
    #: The share of jobs that the first attempt covers, and how sure that is; `None` where nothing is promised.
    content: float | None
    confidence: float
    #: Of the first attempt, and of each that follows one that ran out; rising.
    attempts_bytes: tuple[Bytes, ...]
    #: What is in each of them beside the task: the interpreter and what it has loaded.
    idle_bytes: Bytes
    caveats: tuple[str, ...] = ()


class RecordedJob(msgspec.Struct, frozen=True, kw_only=True):
    """One finished job: what kind of job it was, and what it took."""

    #: The process, rule or job name: jobs of one kind are predicted together.
    kind: str
    #: The highest resident memory that the system saw.
    peak_bytes: Bytes
    #: Of its input, or what it read; `None` where the record does not say.
    size_bytes: Bytes | None = None
    duration_s: Seconds | None = None


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one file, and what to know of its figures."""

    jobs: tuple[RecordedJob, ...]
    #: Rows that are no finished job with a peak: failed, cached, without a figure.
    skipped: int = 0
    caveats: tuple[str, ...] = ()
