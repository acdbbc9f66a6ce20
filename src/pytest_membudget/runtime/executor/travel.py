"""What travels between the coordinator and a worker: reports unpacked, and what to say where something cannot travel."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from pytest_membudget.errors import UnpicklableError
from pytest_membudget.runtime.executor import worker
from pytest_membudget.runtime.executor.heap_readings import HeapReading
from pytest_membudget.runtime.executor.launcher import (
    Figures,
    InitializerFailed,
    Raised,
    RanOut,
    Reply,
    Returned,
    Stuck,
)

IN_WORKER_PROCESS = "in the worker process"


def unpacked(report: worker.Report, name: str, where: str) -> Reply:
    """The reply that a worker's report amounts to; `where` says in words where the call ran."""
    heap = None if report.heap is None else HeapReading(*report.heap)
    figures = Figures(report.duration_s, report.peak_bytes, report.kept_bytes, len(report.body), heap=heap)
    match report.ending:
        case "returned":
            return Returned(pickle.loads(report.body), figures)  # noqa: S301 - from our own worker
        case "raised":
            return Raised(pickle.loads(report.body), figures)  # noqa: S301 - from our own worker
        case "memory":
            return RanOut(MemoryError(f"{name} ran out of memory {where}"), figures)
        case "initializer":
            return InitializerFailed(pickle.loads(report.body))  # noqa: S301 - from our own worker
    subject, why = pickle.loads(report.body)  # noqa: S301 - from our own worker
    what = {
        "arguments": f"{name} or its arguments could not be unpacked {where}: {why}",
        "result": f"{name} returned {subject}, which cannot be sent back; it ran {where}: {why}",
        "exception": f"{name} raised {subject}, which cannot be sent back; it ran {where}: {why}",
    }[report.ending]
    return Stuck(
        UnpicklableError(f"{what}; use plain data and importable functions, or levels=('thread',)"), figures
    )


def unpicklable(what: str, error: BaseException) -> UnpicklableError:
    """What to say of something that cannot be packed, or not be unpacked here."""
    wrapped = UnpicklableError(
        f"{what} cannot travel between processes: {type(error).__name__}: {error}; "
        "use plain data and importable functions, or levels=('thread',)"
    )
    wrapped.__cause__ = error
    return wrapped


def name_of(fn: Callable[..., Any]) -> str:
    """The function as messages name it."""
    return getattr(fn, "__qualname__", None) or repr(fn)
