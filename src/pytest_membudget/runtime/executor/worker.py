"""What runs inside a worker process. Imports little: every worker pays for it."""

from __future__ import annotations

import contextlib
import gc
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
from typing import Any, NamedTuple, cast

from pytest_membudget.measurement import high_water
from pytest_membudget.measurement.heap import trim_heap

_WORTH_TIDYING_BYTES = 1024 * 1024

_logger = logging.getLogger("concurrent.futures")


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


class Surroundings(NamedTuple):
    """What a worker takes over from the coordinator as it is now: a fork server may be older than that."""

    environment: Mapping[str, str]
    limits: Mapping[int, tuple[int, int]]


class Report(NamedTuple):
    """What travels back: how the call ended, its outcome as pickled bytes, and what it took."""

    ending: str
    body: bytes
    duration_s: float = 0.0
    peak_bytes: int | None = None
    kept_bytes: int = 0


class _Worker:
    marks: Any = None
    kept_bytes = 0  # after the last tidying
    initializer_error: bytes | None = None


def prepare(
    marks: Any,
    surroundings: Surroundings,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> None:
    """Makes this process a worker: its own process group, its parent watched, the caller's initializer run."""
    _Worker.marks = marks
    marks[Slot.PID] = os.getpid()
    if hasattr(os, "setpgid"):
        # Killing the group ends what a task has started too; and Ctrl-C is the coordinator's to handle.
        os.setpgid(0, 0)
        marks[Slot.OWN_GROUP] = 1
    _end_with_parent()
    _take_over(surroundings)
    if initializer is not None:
        try:
            initializer(*initargs)
        except BaseException as error:  # the caller's: it travels back with the first call
            _logger.critical("Exception in initializer:", exc_info=True)
            _Worker.initializer_error = _pickled_error(error)
    marks[Slot.READY_BYTES] = high_water.resident_bytes()
    marks[Slot.READY] = 1


def perform(sequence: int, packed: bytes) -> Report:
    """Runs one packed call and measures it; only the worker's death keeps it from returning."""
    if _Worker.initializer_error is not None:
        return Report("initializer", _Worker.initializer_error)
    mark = high_water.open_mark()
    began = time.monotonic()
    _Worker.marks[Slot.STARTED_AT] = began
    _Worker.marks[Slot.STARTED] = sequence
    ending, body = _outcome(packed)
    duration_s = time.monotonic() - began
    peak_bytes = None if mark is None else high_water.close_mark(mark) - mark.start_bytes
    return Report(ending, body, duration_s, peak_bytes, _kept_bytes())


def _outcome(packed: bytes) -> tuple[str, bytes]:
    """How the call ended and what came of it; nothing of it is left alive here."""
    try:
        fn, args, kwargs = pickle.loads(packed)  # noqa: S301 - packed by our own coordinator
    except MemoryError:
        return "memory", b""
    except BaseException as error:
        return "arguments", _pickled_text(error)
    del packed
    return _called(fn, args, kwargs)


def _called(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, bytes]:
    try:
        value = fn(*args, **kwargs)
    except MemoryError as error:
        traceback.clear_frames(error.__traceback__)
        return "memory", b""
    except BaseException as error:  # the caller's own, whatever it is
        return _travelling_error(error)
    try:
        return "returned", bytes(ForkingPickler.dumps(value))
    except MemoryError:
        return "memory", b""
    except BaseException as error:
        return "result", _pickled_text(error, f"a {type(value).__qualname__}")


def _travelling_error(error: BaseException) -> tuple[str, bytes]:
    try:
        return "raised", _pickled_error(error)
    except MemoryError:
        return "memory", b""
    except BaseException as why:
        return "exception", _pickled_text(why, f"{type(error).__qualname__}: {error}")


def _pickled_error(error: BaseException) -> bytes:
    return bytes(
        ForkingPickler.dumps(_ExceptionWithTraceback(error, cast("TracebackType", error.__traceback__)))
    )


def _pickled_text(error: BaseException, subject: str = "") -> bytes:
    return pickle.dumps((subject, f"{type(error).__name__}: {error}"))


def _kept_bytes() -> int:
    """What stays with this worker after a task, once what is only left lying about has been given back."""
    kept_bytes = high_water.resident_bytes() - int(_Worker.marks[Slot.READY_BYTES])
    if kept_bytes > _Worker.kept_bytes + _WORTH_TIDYING_BYTES:
        gc.collect()
        trim_heap()
        kept_bytes = high_water.resident_bytes() - int(_Worker.marks[Slot.READY_BYTES])
        _Worker.kept_bytes = kept_bytes
    return max(0, kept_bytes)


def _take_over(surroundings: Surroundings) -> None:
    if dict(os.environ) != dict(surroundings.environment):
        os.environ.clear()
        os.environ.update(surroundings.environment)
    if surroundings.limits:
        import resource

        for which, limits in surroundings.limits.items():
            if resource.getrlimit(which) != limits:
                with contextlib.suppress(ValueError, OSError):  # raising one may need a privilege
                    resource.setrlimit(which, limits)


def _end_with_parent() -> None:
    """Ends this worker, and what its tasks have started, when the coordinator is gone, however that came about."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        if sys.platform != "win32" and _Worker.marks[Slot.OWN_GROUP]:
            os.killpg(os.getpgid(0), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="membudget-parent", daemon=True).start()
