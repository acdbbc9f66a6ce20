"""Every exception of this package, and the checks of arguments that raise them.

Each message says what was found, both numbers, and what to do.
"""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path

from pytest_membudget.units import Size, format_size, parse_share, parse_size


class MembudgetError(Exception):
    """What all exceptions of this package share (`WatchdogStop` apart)."""


class UsageError(MembudgetError, ValueError):
    """An argument, option or configuration that cannot be understood."""


class UnreadableFileError(MembudgetError, ValueError):
    """A file of ours that is truncated, foreign, too new, too large or not of the expected shape."""


class MissingExtraError(MembudgetError, ImportError):
    """An optional library is needed; the message carries the `pip install` line that brings it."""

    def __init__(self, purpose: str, library: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs {library}, which is not installed; run: pip install 'pytest-membudget[{extra}]'",
            name=library,
        )


class OverBudgetError(MembudgetError, AssertionError):
    """A measured peak, total, retained size or growth is above what was allowed."""


class OversizeError(MembudgetError, ValueError):
    """One request is larger than the whole budget and would wait for ever."""


class MeasurementError(MembudgetError, RuntimeError):
    """Nothing on this machine can give the figure that was asked for."""


class IsolatedCrashError(MembudgetError, RuntimeError):
    """A fresh interpreter died by itself: by a signal, an exit or a timeout."""


class WorkerKilledError(MembudgetError, RuntimeError):
    """The worker process that ran a task was killed, as often as the task was tried."""


class TaskTimeoutError(MembudgetError, TimeoutError):
    """A task ran longer than its time limit and was ended."""


class StartTimeoutError(TaskTimeoutError):
    """No worker came to a task's function in time: it did not start, or what it had to import never ended."""


class TaskMemoryError(MembudgetError, MemoryError):
    """A task ran out of memory in every attempt, the last one alone."""


class TaskOverLimitError(MembudgetError, MemoryError):
    """A task was ended, with what it had started, since it took more than its limit.

    Args:
        limit: the limit, in bytes.
        reached: what the task was proven to take when it was ended, in bytes.
        name: the task, as messages name it.
    """

    def __init__(self, limit: int, reached: int, name: str = "a task") -> None:
        super().__init__(limit, reached, name)
        self.limit = limit
        self.reached = reached
        self.name = name

    def __str__(self) -> str:
        reached, limit = format_size(self.reached), format_size(self.limit)
        # Where both are the same, the kernel held it there.
        took = f"took {reached}, more than its" if reached != limit else "exceeded its"
        return (
            f"{self.name} {took} limit of {limit}, and was ended; give it a larger limit, or a smaller input"
        )


class UnpicklableError(MembudgetError, pickle.PicklingError):
    """Arguments, a result or an exception cannot travel between the coordinator and a worker process."""


class WatchdogStop(BaseException):
    """Raised inside a test that outgrew its hard limit.

    Not an `Exception`, so that `except Exception` in the code under test cannot swallow it.
    """


class UnguardedMainError(MembudgetError, RuntimeError):
    """A script does its work while a fresh process imports it for the functions in it."""


class CalibrationError(MembudgetError, RuntimeError):
    """A function could not be calibrated, or only in part.

    `partial` is what was learned before, or `None`; `not_importable`: the function itself was not found.
    """

    def __init__(self, message: str, partial: object = None, *, not_importable: bool = False) -> None:
        super().__init__(message)
        self.partial = partial
        self.not_importable = not_importable


def text_of(theirs: object, text: Callable[[object], str] = str) -> str:
    """The text of an object that is not ours, `repr` where that is asked for; where theirs raises, a stand-in that says so."""
    try:
        return text(theirs)
    except (Exception, SystemExit) as error:  # SystemExit too: a text must not end the program
        return f"<{type(theirs).__qualname__}, whose text raises {type(error).__qualname__}>"


# Arguments checked where they are given, so that a nonsense value is named where it was given -----------------------------------------


def size_of(name: str, size: Size) -> int:
    """Bytes of `size`; a `UsageError` (a `ValueError`) that begins with `name` where it is none."""
    try:
        return parse_size(size)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


def share_of(name: str, share: float | str) -> float:
    """A fraction above 0 and at most 1; a `UsageError` that begins with `name` where it is none."""
    try:
        return parse_share(share)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


def factor_of(name: str, factor: float) -> float:
    """A finite number of 0 or more."""
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor < math.inf:
        raise UsageError(f"{name} is {factor!r}; give a finite number, 0 or more, such as 3.0")
    return float(factor)


def count_of(name: str, count: int, *, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        raise UsageError(f"{name} is {count!r}; give a whole number, {least} or more")
    return count


def timeout_of(name: str, timeout_s: float | None) -> float | None:
    """Seconds of 0 or more, or `None` to wait for ever."""
    if timeout_s is None or timeout_s == math.inf:
        return None
    return factor_of(name, timeout_s)


def path_of(name: str, path: str | os.PathLike[str]) -> Path:
    """The path of a file, whether or not there is one."""
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"{name} is {path!r}; give the path of a file")
    return Path(path)
