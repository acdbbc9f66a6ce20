"""What to ask a scheduler of jobs for: the memory of each attempt, and what is known of it."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from pytest_membudget.records.quantities import Bytes, Count

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
