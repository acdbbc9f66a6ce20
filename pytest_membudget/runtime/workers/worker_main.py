"""What runs inside a worker process. Imports little: every worker pays for it."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures.process import _ExceptionWithTraceback
from enum import IntEnum
from multiprocessing import connection, parent_process
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

from pytest_membudget.errors import text_of
from pytest_membudget.runtime.workers.task_memory import Gauge, HeapReader

_logger = logging.getLogger("concurrent.futures")


OFFERED = 500
"""What is added to a worker's share of memory, in thousandths, when the kernel looks for a process to end."""


class Slot(IntEnum):
    """Places in the memory that a worker shares with the coordinator, each a float.

    They survive the worker: after a kill they tell which call it had begun.
    """

    PID = 0
    OWN_GROUP = 1  # 1 when the worker leads a process group of its own
    READY = 2
    READY_BYTES = 3  # resident when it was ready
    STARTED = 4  # sequence of the last call it began
    STARTED_AT = 5  # on time.monotonic's clock, which processes of one machine share
    CALLED = 6  # sequence of the last call whose function it has called: it had been imported then
    CALLED_AT = 7


class Report(NamedTuple):
    """What travels back: how the call ended, its outcome as pickled bytes, and what it took."""

    ending: str
    body: bytes
    duration_s: float = 0.0
    peak_bytes: int | None = None
    kept_bytes: int = 0
    resident_peak_bytes: int = 0  # the most that was resident, what was there before the call included
    heap: tuple[int, int] | None = None  # tasks done before this one, and bytes of heap held then


Pack = Callable[[Any], bytes]


class Packed(NamedTuple):
    """A call as it travels: function, arguments and keywords. What was packed by value comes back by value."""

    data: bytes
    is_by_value: bool = False


def by_name(value: Any) -> bytes:
    """Packed by the standard library: functions and classes as the names by which they are imported."""
    return bytes(ForkingPickler.dumps(value))


def by_value(value: Any) -> bytes:
    """Packed by cloudpickle: functions and classes that have no such name travel as what they are made of.

    Raises:
        ImportError: cloudpickle is not installed.
    """
    import cloudpickle

    packed: bytes = cloudpickle.dumps(value)
    return packed


class Station:
    """What a worker knows of itself: where its marks are, what it takes, and whether its initializer failed.

    `heap` reads what it holds from task to task, where all that happens in the process is ours.
    """

    __slots__ = ("gauge", "heap", "initializer_error", "marks")

    def __init__(self, marks: Any, heap: HeapReader | None = None) -> None:
        self.marks = marks
        self.heap = heap
        self.initializer_error: bytes | None = None

    def open(
        self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...], pack: Pack = by_name
    ) -> None:
        """Runs the caller's initializer, whose exception is kept as `pack` packs it, and notes what is resident then."""
        if initializer is not None:
            try:
                initializer(*initargs)
            except BaseException as error:  # the caller's: it travels back with the first call
                _logger.critical("Exception in initializer:", exc_info=True)
                self.initializer_error = _pickled_error(error, pack)
        self.gauge = Gauge()
        self.marks[Slot.READY_BYTES] = self.gauge.ready_bytes
        self.marks[Slot.READY] = 1


class _Worker:
    station: Station


def prepare(
    marks: Any,
    origins: object,  # installed as they were unpickled, before the initializer that may need them
    surroundings: Surroundings,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> None:
    """Makes this process a worker: its own process group, its parent watched, the caller's initializer run."""
    _Worker.station = Station(marks, heap=HeapReader())
    marks[Slot.PID] = os.getpid()
    if hasattr(os, "setpgid"):
        # Killing the group ends what a task has started too; and Ctrl-C is the coordinator's to handle.
        os.setpgid(0, 0)
        marks[Slot.OWN_GROUP] = 1
    _end_with_parent()
    offer_itself()
    surroundings.take_over()
    _Worker.station.open(initializer, initargs)


def perform(sequence: int, exact: bool, *packed: Any) -> Report:
    """Runs one call, `Packed` but sent in parts, and measures it; only the worker's death keeps it from returning."""
    return perform_at(_Worker.station, sequence, Packed(*packed), exact=exact)


def perform_at(station: Station, sequence: int, call: Packed, *, exact: bool = True) -> Report:
    """The same for a worker that keeps its station itself."""
    if station.initializer_error is not None:
        return Report("initializer", station.initializer_error)
    heap = None if station.heap is None else station.heap.before_task(len(call.data))
    station.gauge.begin(exact=exact)
    began = time.monotonic()
    station.marks[Slot.STARTED_AT] = began
    station.marks[Slot.STARTED] = sequence
    ending, body = _outcome(station.marks, sequence, call)
    duration_s = time.monotonic() - began
    return Report(ending, body, duration_s, *station.gauge.end(), heap)


def _outcome(marks: Any, sequence: int, call: Packed) -> tuple[str, bytes]:
    """How the call ended and what came of it; nothing of it is left alive here."""
    try:
        fn, args, kwargs = pickle.loads(call.data)  # noqa: S301 - packed by our own coordinator
    except MemoryError:
        return "memory", b""
    except BaseException as error:
        return "arguments", _pickled_text(error)
    marks[Slot.CALLED_AT] = time.monotonic()
    marks[Slot.CALLED] = sequence
    return _called(fn, args, kwargs, by_value if call.is_by_value else by_name)


def _called(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], pack: Pack
) -> tuple[str, bytes]:
    try:
        value = fn(*args, **kwargs)
    except MemoryError as error:
        traceback.clear_frames(error.__traceback__)
        return "memory", b""
    except BaseException as error:  # the caller's own, whatever it is
        return _travelling_error(error, pack)
    try:
        return "returned", pack(value)
    except MemoryError:
        return "memory", b""
    except BaseException as error:
        return "result", _pickled_text(error, f"a {type(value).__qualname__}")


def _travelling_error(error: BaseException, pack: Pack) -> tuple[str, bytes]:
    try:
        return "raised", _pickled_error(error, pack)
    except MemoryError:
        return "memory", b""
    except BaseException as why:
        return "exception", _pickled_text(why, f"{type(error).__qualname__}: {text_of(error)}")


def _pickled_error(error: BaseException, pack: Pack) -> bytes:
    return pack(_ExceptionWithTraceback(error, cast("TracebackType", error.__traceback__)))


def _pickled_text(error: BaseException, subject: str = "") -> bytes:
    return pickle.dumps((subject, f"{type(error).__name__}: {text_of(error)}"))


def offer_itself() -> None:
    """Has a kernel that is out of memory end this process before the coordinator, whose loss nobody could make good."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            if int(os.read(descriptor, 16)) < OFFERED:
                os.write(descriptor, b"%d" % OFFERED)
        finally:
            os.close(descriptor)


def _end_with_parent() -> None:
    """Ends this worker, and what its tasks have started, when the coordinator is gone, however that came about."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        if sys.platform != "win32" and _Worker.station.marks[Slot.OWN_GROUP]:
            os.killpg(os.getpgid(0), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="membudget-parent", daemon=True).start()


_LIMITS = ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE")


class Surroundings(NamedTuple):
    """The environment, and resource limits by their number in `resource`: soft and hard, each in its own unit."""

    environment: Mapping[str, str]
    limits: Mapping[int, tuple[int, int]]

    @classmethod
    def of_now(cls) -> Self:
        """This process's."""
        return cls(dict(os.environ), _limits())

    def take_over(self) -> None:
        """Makes them this process's own."""
        if dict(os.environ) != dict(self.environment):
            os.environ.clear()
            os.environ.update(self.environment)
        if not self.limits:
            return
        import resource

        for which, limits in self.limits.items():
            if resource.getrlimit(which) != limits:
                with contextlib.suppress(ValueError, OSError):  # raising one may need a privilege
                    resource.setrlimit(which, limits)


def _limits() -> dict[int, tuple[int, int]]:
    if sys.platform == "win32":
        return {}
    import resource

    which = [getattr(resource, name) for name in _LIMITS if hasattr(resource, name)]
    return {each: resource.getrlimit(each) for each in which}
