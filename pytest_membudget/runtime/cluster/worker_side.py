"""What runs inside a worker of a cluster. It knows nothing about the cluster: it is called like any other function.

A worker may serve several executors; each has its own `Session` here, found by the executor's token.
"""

from __future__ import annotations

import functools
import os
import pickle
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pytest_membudget._version import __version__
from pytest_membudget.measurement.process.high_water import resident_bytes
from pytest_membudget.runtime.workers.serialization import Packed, Report, by_value
from pytest_membudget.runtime.workers.task_memory import TaskTree
from pytest_membudget.runtime.workers.worker_main import Mark, WorkerState, run_call, watched_tree

MOST_RESULT_BYTES = 1024 * 1024
"""Results that wait in the worker for the end of their message; beyond that the rest of it is given back, not run."""


class Hello(NamedTuple):
    """Who a worker is."""

    host: str
    pid: int
    versions: tuple[tuple[str, str], ...]
    base_bytes: int


class Order(NamedTuple):
    """One call, packed. `path` is its only argument where that is a file, `body` that file's content if it came along."""

    sequence: int
    packed: Packed
    path: str | bytes | os.PathLike[str] | None = None
    size_bytes: int = 0
    body: bytes | None = None


class Progress(NamedTuple):
    """What a worker does now: the call that it runs, for how long, and what it has ready.

    Until `is_called` it unpacks that call, which imports the function; `running_s` is counted from that on.
    """

    sequence: int
    is_called: bool
    running_s: float
    resident_bytes: int
    ready: tuple[tuple[int, Report], ...]


class Session:
    """What this worker keeps for one executor."""

    def __init__(self, packed_initializer: bytes) -> None:
        self.station = WorkerState([0.0] * len(Mark), tree=_tree())
        self.ready: list[tuple[int, Report]] = []
        initializer, initargs = pickle.loads(packed_initializer)  # noqa: S301 - packed by our own coordinator
        self.station.initialize(initializer, initargs, by_value)


@functools.cache
def _tree() -> TaskTree | None:
    """What measures the trees of calls, for all sessions: what Python starts is noticed once."""
    return watched_tree(lambda _: None)


class UnknownExecutorError(LookupError):
    """This process does not know the executor: it was restarted meanwhile."""


_sessions: dict[str, Session] = {}
_opening = threading.Lock()


def versions() -> tuple[tuple[str, str], ...]:
    """What must be the same on both sides for calls to be sent."""
    import cloudpickle

    found = [("Python", ".".join(platform.python_version_tuple()[:2]))]
    found.append(("pytest-membudget", __version__))
    found.append(("cloudpickle", cloudpickle.__version__))
    if (distributed := sys.modules.get("distributed")) is not None:
        found.append(("distributed", str(distributed.__version__)))
    return tuple(found)


def say_hello(token: str, packed_initializer: bytes) -> Hello:
    """Opens a session for the executor, with its initializer run, and says who this is."""
    with _opening:
        if token not in _sessions:
            _sessions[token] = Session(packed_initializer)
    session = _sessions[token]
    base_bytes = int(session.station.marks[Mark.READY_BYTES])
    return Hello(platform.node(), os.getpid(), versions(), base_bytes)


def leave(token: str) -> None:
    """Closes the executor's session."""
    _sessions.pop(token, None)


def end_process() -> None:
    """Ends this process with whatever it runs; asked from another thread. Where there is a nanny, it starts another."""
    os._exit(1)


def progress(token: str) -> Progress | None:
    """The progress of the calls that run; called from another thread."""
    session = _sessions.get(token)
    if session is None:
        return None
    marks = session.station.marks
    is_called = marks[Mark.CALLED] == marks[Mark.STARTED]
    running_s = time.monotonic() - marks[Mark.CALLED_AT if is_called else Mark.STARTED_AT]
    return Progress(int(marks[Mark.STARTED]), is_called, running_s, resident_bytes(), tuple(session.ready))


def perform_together(token: str, orders: Sequence[Order]) -> list[tuple[int, Report]]:
    """Runs the calls one after the other; fewer reports than calls mean that the others have not begun.

    Raises:
        UnknownExecutorError: nothing was run.
    """
    session = _sessions.get(token)
    if session is None:
        raise UnknownExecutorError(token)
    session.ready = ready = []
    waiting_bytes = 0
    for order in orders:
        report = _performed(session.station, order)
        ready.append((order.sequence, report))
        waiting_bytes += len(report.body)
        if waiting_bytes > MOST_RESULT_BYTES:
            break
    session.ready = []
    return ready


def _performed(station: WorkerState, order: Order) -> Report:
    if order.path is None:
        return run_call(station, order.sequence, order.packed)
    if order.body is None:
        if os.path.exists(order.path):  # noqa: PTH110 - bytes are paths here as well
            return run_call(station, order.sequence, order.packed)
        return Report("raised", by_value(_missing(order)))
    with tempfile.TemporaryDirectory(prefix="membudget-") as folder:
        copy = Path(folder) / Path(os.fsdecode(order.path)).name
        copy.write_bytes(order.body)
        fn, _, kwargs = pickle.loads(order.packed.data)  # noqa: S301 - packed by our own coordinator
        packed = Packed(by_value((fn, (_like(order.path, copy),), kwargs)), is_by_value=True)
        return run_call(station, order.sequence, packed)


def _missing(order: Order) -> FileNotFoundError:
    shown = os.fsdecode(order.path or "")
    return FileNotFoundError(
        2,
        f"not found on host {platform.node()}, though it was found ({order.size_bytes} bytes) where the batch began; "
        "share its folder with that host under the same path, or send small files along with "
        "ExecutorPolicy(send_files_up_to=…)",
        shown,
    )


def _like(path: Any, copy: Path) -> Any:
    """The copy's path, of the type that the function would have been given."""
    if isinstance(path, bytes):
        return os.fsencode(copy)
    return str(copy) if isinstance(path, str) else copy
