"""Finished jobs as another system recorded them."""

from __future__ import annotations

import msgspec

from pytest_membudget.records.quantities import Bytes, Seconds


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
