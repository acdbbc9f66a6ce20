"""What travels between the coordinator and a worker: calls packed, reports unpacked, and what to say where one cannot.

A function travels by name where a worker finds it by that name, and else by value, which takes cloudpickle: a lambda,
a closure, a function typed into a notebook.
"""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pytest_membudget.errors import UnpicklableError, text_of
from pytest_membudget.origins import main_is_importable, off_path
from pytest_membudget.runtime.workers import worker_main as worker
from pytest_membudget.runtime.workers.protocol import (
    Figures,
    HeapReading,
    InitializerFailed,
    Raised,
    RanOut,
    Reply,
    Returned,
    Unpicklable,
)

IN_WORKER_PROCESS = "in the worker process"

_WHAT_TRAVELS = "use plain data and importable functions, or levels=('thread',)"


def packed_for_here(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> worker.Packed:
    """A call for a process of this machine, which imports what this one has imported.

    Raises:
        Exception: whatever the caller's own objects raise while they are packed.
    """
    call = fn, args, kwargs
    try:
        packed = worker.by_name(call)
        if b"__main__" not in packed or main_is_importable():
            return worker.Packed(packed)
        with contextlib.suppress(ImportError):
            return worker.Packed(worker.by_value(call), is_by_value=True)
        return worker.Packed(packed)  # the worker will say what it lacks
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        try:
            return worker.Packed(worker.by_value(call), is_by_value=True)
        except ImportError:
            raise error from None
        # cloudpickle's own error is raised: a function without a name is no obstacle to it, so it names what really is.


def packed_for_elsewhere(value: Any) -> bytes:
    """Something for another machine, which has the installed modules and no others.

    Raises:
        Exception: whatever the caller's own objects raise while they are packed.
    """
    with _off_path_by_value():
        return worker.by_value(value)


@contextlib.contextmanager
def _off_path_by_value() -> Iterator[None]:
    """While this lasts, cloudpickle packs by value what comes from modules that no path leads to."""
    import cloudpickle

    known = cloudpickle.list_registry_pickle_by_value()
    modules = [sys.modules[name] for name in off_path() if name in sys.modules and name not in known]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def unpacked(report: worker.Report, name: str, where: str) -> Reply:
    """The reply that a worker's report amounts to; `where` says in words where the call ran."""
    heap = None if report.heap is None else HeapReading(*report.heap)
    figures = Figures(
        report.duration_s,
        report.peak_bytes,
        report.kept_bytes,
        len(report.body),
        heap=heap,
        peak_upper_bytes=report.peak_upper_bytes,
    )
    match report.ending:
        case "returned":
            return Returned(pickle.loads(report.body), figures)  # noqa: S301 - from our own worker
        case "raised":
            return Raised(pickle.loads(report.body), figures)  # noqa: S301 - from our own worker
        case "memory":
            return RanOut(MemoryError(f"{name} ran out of memory {where}"), figures)
        case "initializer":
            return InitializerFailed(pickle.loads(report.body))  # noqa: S301 - from our own worker
    subject, why, trace = pickle.loads(report.body)  # noqa: S301 - from our own worker
    what = {
        "arguments": f"{name} or its arguments could not be unpacked {where}: {why}",
        "result": f"{name} returned {subject}, which cannot be sent back; it ran {where}: {why}",
        "exception": f"{name} raised {subject}, which cannot be sent back; it ran {where}: {why}",
    }[report.ending]
    error = UnpicklableError(f"{what}; {_WHAT_TRAVELS}")
    if trace:
        error.__cause__ = worker.RemoteTraceback(trace)
    return Unpicklable(error, figures)


def unpicklable(what: str, error: BaseException) -> UnpicklableError:
    """What to say of something that cannot be packed, or not be unpacked here."""
    wrapped = UnpicklableError(
        f"{what} cannot travel between processes: {type(error).__name__}: {text_of(error)}; {_advice()}"
    )
    wrapped.__cause__ = error
    return wrapped


def _advice() -> str:
    if importlib.util.find_spec("cloudpickle") is not None:
        return _WHAT_TRAVELS
    return (
        f"{_WHAT_TRAVELS}, or have lambdas and functions inside functions travel as well: "
        "pip install 'pytest-membudget[cloudpickle]'"
    )


def name_of(fn: Callable[..., Any]) -> str:
    """The function as messages name it."""
    return getattr(fn, "__qualname__", None) or repr(fn)
