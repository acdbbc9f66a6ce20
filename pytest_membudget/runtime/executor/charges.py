"""What calls and inputs are charged: by what the caller says, by their files, else by what was seen of their function."""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

from pytest_membudget.errors import UsageError, size_of, text_of
from pytest_membudget.records.run import Feature
from pytest_membudget.runtime.prediction.estimator import MemoryEstimator, is_known
from pytest_membudget.runtime.prediction.predictors import FOLDER, InputSize, input_size, named_features
from pytest_membudget.runtime.workers.task_memory import RESOLUTION_BYTES
from pytest_membudget.units import LARGEST_BYTES, Size

Memory = Size | MemoryEstimator | Callable[[Any], Size | float]
SizeOf = Size | Callable[[Any], Size | float]

_MOST_FUNCTIONS = 1024
_MOST_KINDS = 64
_NO_UPPER_BOUND = 2**62
_NUMBER = "(number)"

_NUMBERS_SEEN = 8
"""Calls before a number counts for more than the largest peak of all."""

_SMALL_BYTES = 8 * 1024 * 1024
"""Calls that take less are charged the largest peak: to learn of each would cost short calls more than it saves memory."""


class Charge:
    """What one task is charged, and what is learned from it. Made by the executor, asked by the scheduler."""

    __slots__ = ()

    #: whether the caller stated it: it is not lowered to a limit then
    is_stated: ClassVar[bool] = False

    @property
    def base_bytes(self) -> int:
        """What its worker holds whatever the input, where its estimator comes of a calibration."""
        return 0

    def first_bytes(self) -> int:
        """For the first attempt, by what is known when it is about to start."""
        raise NotImplementedError

    def expected_bytes(self) -> int | None:
        """As `first_bytes`; None where the caller's own estimator fails: the task's outcome will say so."""
        try:
            return self.first_bytes()
        except Exception:
            return None

    def retry_bytes(self, failed_bytes: int) -> int:
        """After an attempt with `failed_bytes` ran out: more than that."""
        raise NotImplementedError

    def observe(self, peak_bytes: int, duration_s: float, peak_upper_bytes: int | None = None) -> None:
        """Learns from a finished attempt, of which `peak_bytes` are proven and no more than `peak_upper_bytes` possible."""
        raise NotImplementedError

    def observe_running(self, held_bytes: int) -> None:
        """Learns from a task that still runs."""

    @property
    def calls_seen(self) -> int | None:
        """How many calls have ended that it goes by; None where the caller has said what a call takes."""
        return None


class _Seen(NamedTuple):
    peak_bytes: int = 0
    calls: int = 0


class FunctionPeaks:
    """The largest peak of each function that ran lately."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._lock = threading.Lock()

    def peak_bytes(self, name: str) -> int | None:
        """The largest peak seen, also of a call that still runs; `None` for a function of which none was."""
        seen = self._seen.get(name)
        return None if seen is None else seen.peak_bytes

    def calls(self, name: str) -> int:
        """How many calls were seen to their end: what one holds that still runs says little of what it will take."""
        return self._seen.get(name, _Seen()).calls

    def observe(self, name: str, peak_bytes: int, *, has_ended: bool = True) -> None:
        """One call has ended, or is seen to hold so much."""
        with self._lock:
            before = self._seen.pop(name, _Seen())
            self._seen[name] = _Seen(max(before.peak_bytes, peak_bytes), before.calls + has_ended)
            if len(self._seen) > _MOST_FUNCTIONS:
                self._seen.popitem(last=False)


@dataclass(slots=True, eq=False)
class KindEstimator:
    """An estimator, and how many tasks of its kind it has seen; one that the caller chose knows without."""

    estimator: MemoryEstimator
    name: str
    is_given: bool = False
    tasks: int = 0


class FileEstimators:
    """The estimator of each file: the caller's own, or where they chose none, one for each function and kind of file.

    Each comes with what is known of it: of the caller's own everything, of a preset nothing until a task was seen.

    What a kilobyte of an image takes says nothing of a kilobyte of text.
    """

    def __init__(self, estimator: MemoryEstimator, *, by_kind: bool) -> None:
        self._estimator = estimator
        self._is_by_kind = by_kind
        self._estimators: dict[str, KindEstimator] = {}
        self._common = KindEstimator(estimator, "", is_given=True)

    def of(self, fn: Callable[..., Any], kind: str) -> KindEstimator:
        """The estimator for files of this kind; a common one for those beyond 64 kinds, which are none then."""
        if not self._is_by_kind:
            return self._common
        return self._of(fn, kind, self._estimator.gamma) or self._common

    def of_numbers(self, fn: Callable[..., Any]) -> KindEstimator | None:
        """What was learned of this function's calls with a number; `None` beyond 64 kinds."""
        return self._of(fn, _NUMBER, 0.0)

    def _of(self, fn: Callable[..., Any], kind: str, gamma: float) -> KindEstimator | None:
        name = f"{function_key(fn)} {kind}"
        if name not in self._estimators and len(self._estimators) < _MOST_KINDS:
            begun = MemoryEstimator(gamma, self._estimator.overhead_bytes)
            self._estimators.setdefault(name, KindEstimator(begun, name))  # another thread may come first
        return self._estimators.get(name)


class CallCharge(Charge):
    """Nothing is known of the input: the largest peak seen for its function, else the estimator's overhead."""

    __slots__ = ("_estimator", "_name", "_peaks")

    def __init__(self, fn: Callable[..., Any], peaks: FunctionPeaks, estimator: MemoryEstimator) -> None:
        self._name = function_key(fn)
        self._peaks = peaks
        self._estimator = estimator

    @property
    def calls_seen(self) -> int:
        """Those of its function."""
        return self._peaks.calls(self._name)

    def first_bytes(self) -> int:
        """The largest peak seen, else the overhead."""
        seen = self._peaks.peak_bytes(self._name)
        return self._estimator.overhead_bytes if seen is None else max(seen, RESOLUTION_BYTES)

    def retry_bytes(self, failed_bytes: int) -> int:
        """By the estimator, as for an empty file."""
        return self._estimator.retry_bytes(0, failed_bytes)

    def observe(self, peak_bytes: int, duration_s: float, peak_upper_bytes: int | None = None) -> None:
        """Remembers the function's peak; of one that is not known no less than the overhead, if it may be so much."""
        if peak_upper_bytes is not None and not is_known(peak_bytes, peak_upper_bytes):
            peak_bytes = min(peak_upper_bytes, max(peak_bytes, self._estimator.overhead_bytes))
        self._peaks.observe(self._name, peak_bytes)

    def observe_running(self, held_bytes: int) -> None:
        """A call that still runs holds so much: the next ones will take that at least."""
        self._peaks.observe(self._name, held_bytes, has_ended=False)


class NumberCharge(CallCharge):
    """By the number that is the whole input, where that says more than the largest peak seen.

    A number of rows says nearly all, an identifier nothing. The estimator of aim *safe* learns which it is: with
    unrelated numbers it stays near the largest peak. As long as all calls are small there is nothing to gain.
    """

    __slots__ = ("_kind", "_number")

    def __init__(
        self,
        fn: Callable[..., Any],
        number: int,
        peaks: FunctionPeaks,
        estimator: MemoryEstimator,
        kind: KindEstimator,
    ) -> None:
        super().__init__(fn, peaks, estimator)
        self._number = number
        self._kind = kind

    def first_bytes(self) -> int:
        """The largest peak seen of any number; once eight calls were seen the estimate for this one."""
        largest_bytes = super().first_bytes()
        if self._kind.tasks < _NUMBERS_SEEN or largest_bytes < _SMALL_BYTES:
            return largest_bytes
        return self._kind.estimator.estimate_file_memory(self._number)

    def retry_bytes(self, failed_bytes: int) -> int:
        """By the estimator."""
        return self._kind.estimator.retry_bytes(self._number, failed_bytes)

    def observe(self, peak_bytes: int, duration_s: float, peak_upper_bytes: int | None = None) -> None:
        """Remembers the function's peak, and lets the estimator learn."""
        super().observe(peak_bytes, duration_s, peak_upper_bytes)
        if super().first_bytes() >= _SMALL_BYTES:
            self._kind.tasks += 1
            self._kind.estimator.observe(
                self._number, peak_bytes, duration_s, peak_upper_bytes=peak_upper_bytes
            )

    def observe_running(self, held_bytes: int) -> None:
        """A call that still runs holds so much, and may take more."""
        super().observe_running(held_bytes)
        self._kind.estimator.observe(self._number, held_bytes, peak_upper_bytes=_NO_UPPER_BOUND)


@dataclass(slots=True, eq=False)
class FileCharge(Charge):
    """By an estimator, which learns from it; `size` is what that goes by: bytes, or features of the item."""

    size: Any
    estimator: MemoryEstimator
    kind: KindEstimator | None = None

    @property
    def calls_seen(self) -> int | None:
        """Those of its function with this kind of file."""
        return None if self.kind is None or self.kind.is_given else self.kind.tasks

    @property
    def base_bytes(self) -> int:
        """The estimator's."""
        return self.estimator.base_bytes

    def first_bytes(self) -> int:
        """The estimate as it is now."""
        return self.estimator.estimate_file_memory(self.size)

    def retry_bytes(self, failed_bytes: int) -> int:
        """By the estimator."""
        return self.estimator.retry_bytes(self.size, failed_bytes)

    def observe(self, peak_bytes: int, duration_s: float, peak_upper_bytes: int | None = None) -> None:
        """Lets the estimator learn, which knows what it can trust."""
        self.estimator.observe(self.size, peak_bytes, duration_s, peak_upper_bytes=peak_upper_bytes)
        if self.kind is not None:
            self.kind.tasks += 1

    def observe_running(self, held_bytes: int) -> None:
        """A task that still runs holds so much, and may take more."""
        self.estimator.observe(self.size, held_bytes, peak_upper_bytes=_NO_UPPER_BOUND)


@dataclass(slots=True, eq=False)
class StatedCharge(Charge):
    """What the caller stated with `memory=`; nothing is learned."""

    size_bytes: int
    is_stated: ClassVar[bool] = True

    def first_bytes(self) -> int:
        """Just that."""
        return self.size_bytes

    def retry_bytes(self, failed_bytes: int) -> int:
        """Twice as much."""
        return 2 * failed_bytes

    def observe(self, peak_bytes: int, duration_s: float, peak_upper_bytes: int | None = None) -> None:
        """The caller knows better."""


@dataclass(slots=True, eq=False)
class FailedCharge(StatedCharge):
    """The caller's own `memory` or `size_bytes` gave nothing for this item: the task fails with the reason."""

    size_bytes: int = 0
    error: Exception = field(kw_only=True)

    def first_bytes(self) -> int:
        """Raises the reason."""
        raise self.error


class Charged(NamedTuple):
    """What an input is charged, and the size that was found of it."""

    charge: Charge
    size_bytes: int | None
    #: the input is the path of one file
    is_file: bool = False
    #: what the estimate goes by where that is not the size
    features: tuple[Feature, ...] = ()


class ChargeRule(NamedTuple):
    """How the inputs of one call of `submit`, `map`, `run` or `stream` are charged.

    Args:
        peaks: what was seen of functions.
        estimators: what was learned of files.
        estimator: the executor's.
        memory: what an item takes: a size, a function of the item, or an estimator; `None` goes by the input's files.
        size_bytes: the size that the estimator goes by: a size or a function of the item; `None` counts its files.
    """

    peaks: FunctionPeaks
    estimators: FileEstimators
    estimator: MemoryEstimator
    memory: Memory | None = None
    size_bytes: SizeOf | None = None

    def charge(self, fn: Callable[..., Any], item: Any) -> Charged:
        """Never raises: where the caller's own function fails, the charge will say so for this item."""
        try:
            return self._charge(fn, item)
        except Exception as error:  # the caller's own functions, or their answer
            return Charged(FailedCharge(error=error), None)

    def _charge(self, fn: Callable[..., Any], item: Any) -> Charged:
        size = self._size(item)
        size_bytes = None if size is None else size.bytes
        memory = self.memory
        if memory is not None and not isinstance(memory, MemoryEstimator):
            return Charged(StatedCharge(_stated("memory", memory, item)), size_bytes)
        estimator = self.estimator if memory is None else memory
        if estimator.goes_by_predictors:
            found = estimator.features(item)
            return Charged(FileCharge(found, estimator), size_bytes, features=named_features(found))
        if memory is not None:
            return Charged(FileCharge(size_bytes or 0, estimator), size_bytes)
        if size is None:
            return Charged(self._charge_by_history(fn, item), None)
        is_file = size.kind != FOLDER and isinstance(item, str | bytes | os.PathLike)
        kind = self.estimators.of(fn, size.kind)
        return Charged(FileCharge(size.bytes, kind.estimator, kind), size.bytes, is_file)

    def _charge_by_history(self, fn: Callable[..., Any], item: Any) -> Charge:
        # A larger one, such as a UUID's, is a size of nothing.
        is_number = type(item) is int and 0 <= item <= LARGEST_BYTES
        kind = self.estimators.of_numbers(fn) if is_number else None
        if kind is None:
            return CallCharge(fn, self.peaks, self.estimator)
        return NumberCharge(fn, item, self.peaks, self.estimator, kind)

    def _size(self, item: Any) -> InputSize | None:
        if self.size_bytes is None:
            return input_size(item)
        return InputSize(_stated("size_bytes", self.size_bytes, item), "")


def item_of_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a call of `submit` or `map` counts as: its only argument, or all of them."""
    if len(args) == 1 and not kwargs:
        return args[0]
    return (*args, *kwargs.values())


def largest_of(charged: list[Charged]) -> Charged:
    """The charge of calls that run one after the other: that of the largest; the first that has failed, if any."""
    failed = [each for each in charged if isinstance(each.charge, FailedCharge)]
    return failed[0] if failed else max(charged, key=lambda each: each.charge.first_bytes())


def _stated(name: str, stated: Any, item: Any) -> int:
    """The size that the caller gave, or that their function gives for `item`, in bytes, rounded up."""
    if not callable(stated):
        return size_of(name, stated)
    asked = f"{name}: {getattr(stated, '__qualname__', None) or type(stated).__name__}({_shown(item)})"
    try:
        answer = stated(item)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{asked} raised {type(error).__name__}: {text_of(error)}") from error
    try:
        # What was computed has a fraction: the estimate is 3.5 times the file, say.
        is_fractional = (
            isinstance(answer, Real) and not isinstance(answer, Integral) and math.isfinite(answer)
        )
        return size_of(name, math.ceil(answer) if is_fractional else answer)
    except Exception as error:
        problem = text_of(error).removeprefix(f"{name}: ")
        raise UsageError(f"{asked} gave {_shown(answer)}: {problem}") from None


def _shown(value: Any) -> str:
    text = " ".join(text_of(value, repr).split())  # a table's has many lines
    return text if len(text) <= 80 else text[:77] + "…"


def function_key(fn: Callable[..., Any]) -> str:
    """The same text for the same function: by name, for an instance's method without the instance."""
    while isinstance(fn, partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return f"{getattr(fn, '__module__', '')}:{name}"
