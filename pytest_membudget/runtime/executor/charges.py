"""What calls and files are charged, by what was seen of them."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pytest_membudget.runtime.executor.state import Charge
from pytest_membudget.runtime.prediction.estimator import MemoryEstimator
from pytest_membudget.runtime.workers.task_memory import RESOLUTION_BYTES

_MOST_FUNCTIONS = 1024
_MOST_KINDS = 64
_COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst", ".lz4", ".br", ".z"})


class FunctionPeaks:
    """The largest peak and the usual duration of each function that ran lately."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def peak_bytes(self, name: str) -> int | None:
        """The largest peak seen; `None` for a function that has not finished yet."""
        seen = self._seen.get(name)
        return None if seen is None else seen[0]

    def duration_s(self, name: str) -> float | None:
        """A running mean that forgets; `None` for a function that has not finished yet."""
        seen = self._seen.get(name)
        return None if seen is None else seen[1]

    def observe(self, name: str, peak_bytes: int, duration_s: float) -> None:
        """Takes in one finished call."""
        with self._lock:
            peak, mean = self._seen.pop(name, (0, duration_s))
            self._seen[name] = (max(peak, peak_bytes), mean + (duration_s - mean) / 8)
            if len(self._seen) > _MOST_FUNCTIONS:
                self._seen.popitem(last=False)


class CallCharge(Charge):
    """A call of `submit` or `map`: the largest peak seen for its function, else the estimator's overhead."""

    __slots__ = ("_estimator", "_name", "_peaks")

    def __init__(self, fn: Callable[..., Any], peaks: FunctionPeaks, estimator: MemoryEstimator) -> None:
        self._name = function_key(fn)
        self._peaks = peaks
        self._estimator = estimator

    def first_bytes(self) -> int:
        """The largest peak seen, else the overhead."""
        seen = self._peaks.peak_bytes(self._name)
        return self._estimator.overhead_bytes if seen is None else max(seen, RESOLUTION_BYTES)

    def retry_bytes(self, failed_bytes: int) -> int:
        """By the estimator, as for an empty file."""
        return self._estimator.retry_bytes(0, failed_bytes)

    def observe(self, peak_bytes: int, duration_s: float) -> None:
        """Remembers the function's peak."""
        self._peaks.observe(self._name, peak_bytes, duration_s)


class FileEstimators:
    """Who estimates a file: the caller's own, or where they chose none, one for each function and kind of file.

    What a kilobyte of an image takes tells nothing of a kilobyte of text. The kind is the end of the name, such as
    `.csv` or `.csv.gz`.
    """

    def __init__(self, estimator: MemoryEstimator, *, by_kind: bool) -> None:
        self._estimator = estimator
        self._is_by_kind = by_kind
        self._estimators: dict[tuple[str, str], MemoryEstimator] = {}

    def of(self, fn: Callable[..., Any], path: str | bytes | os.PathLike[Any]) -> MemoryEstimator:
        """The estimator for this file; a common one for those beyond 64 kinds, which are none then."""
        if not self._is_by_kind:
            return self._estimator
        key = function_key(fn), _kind(Path(os.fsdecode(path)))
        if key not in self._estimators and len(self._estimators) >= _MOST_KINDS:
            return self._estimator
        begun = MemoryEstimator(self._estimator.gamma, self._estimator.overhead_bytes)
        return self._estimators.setdefault(key, begun)


class FileCharge(Charge):
    """A file of `run`: by the estimator, which learns from it. It goes by the size, or by predictors."""

    __slots__ = ("_estimator", "_features")

    def __init__(self, features: int | dict[str, float], estimator: MemoryEstimator) -> None:
        self._features = features
        self._estimator = estimator

    def first_bytes(self) -> int:
        """The estimate as it is now."""
        return self._estimator.estimate_file_memory(self._features)

    def retry_bytes(self, failed_bytes: int) -> int:
        """By the estimator."""
        return self._estimator.retry_bytes(self._features, failed_bytes)

    def observe(self, peak_bytes: int, duration_s: float) -> None:
        """Lets the estimator learn."""
        self._estimator.observe(self._features, peak_bytes, duration_s)


def _kind(path: Path) -> str:
    """Such as `.csv` or `.csv.gz`; empty for a name without an end, or with a number there."""
    *_, last = ("", *(suffix.lower() for suffix in path.suffixes))
    if last in _COMPRESSED:
        return _kind(path.with_suffix("")) + last
    return "" if last[1:].isdigit() else last


def function_key(fn: Callable[..., Any]) -> str:
    """The same text for the same function: by name, for an instance's method without the instance."""
    while isinstance(fn, partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return f"{getattr(fn, '__module__', '')}:{name}"
