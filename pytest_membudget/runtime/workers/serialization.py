"""What travels between the coordinator and a worker: calls, results and exceptions packed, and what to say where one cannot.

A function travels by name where a worker finds it by that name, and else by value, which takes cloudpickle: a lambda,
a closure, a function typed into a notebook.
"""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.reduction import ForkingPickler
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, NamedTuple

from pytest_membudget.errors import UnpicklableError, text_of
from pytest_membudget.module_origins import main_is_importable, off_path
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


class Packed(NamedTuple):
    """A call as it travels: function, arguments and keywords. What was packed by value comes back by value."""

    data: bytes
    is_by_value: bool = False


class Report(NamedTuple):
    """What travels back: how the call ended, its outcome as pickled bytes, and what it took."""

    ending: str
    body: bytes
    duration_s: float = 0.0
    peak_bytes: int | None = None
    kept_bytes: int = 0
    resident_peak_bytes: int = 0  # the most that was resident, what was there before the call included
    peak_upper_bytes: int | None = None  # `None` where `peak_bytes` is exact
    heap: tuple[int, int] | None = None  # tasks done before this one, and bytes of heap held then


Pack = Callable[[Any], bytes]


class PacksAnswer:
    """A function whose results and exceptions travel as its own `pack_answer` packs them."""

    def pack_answer(self, answer: Any) -> bytes:
        """`pickle.loads` in the coordinator gives `answer` back."""
        raise NotImplementedError


_FIELD_TYPES = (MemberDescriptorType, GetSetDescriptorType)


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


def packed_for_here(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Packed:
    """A call for a process of this machine, which imports what this one has imported.

    Raises:
        Exception: whatever the caller's own objects raise while they are packed.
    """
    call = fn, args, kwargs
    try:
        packed = by_name(call)
        if b"__main__" not in packed or main_is_importable():
            return Packed(packed)
        with contextlib.suppress(ImportError):
            return Packed(by_value(call), is_by_value=True)
        return Packed(packed)  # the worker will say what it lacks
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        try:
            return Packed(by_value(call), is_by_value=True)
        except ImportError:
            raise error from None
        # cloudpickle's own error is raised: a function without a name is no obstacle to it, so it names what really is.


def packed_for_elsewhere(value: Any) -> bytes:
    """Something for another machine, which has the installed modules and no others.

    Raises:
        Exception: whatever the caller's own objects raise while they are packed.
    """
    with _off_path_by_value():
        return by_value(value)


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


def unpacked(report: Report, name: str, where: str) -> Reply:
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
        error.__cause__ = RemoteTraceback(trace)
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


class RemoteTraceback(Exception):  # noqa: N818 - no error: the text of one
    """The cause of an exception that came from a worker: its traceback there, as text."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def packed_error(error: BaseException, pack: Pack) -> bytes:
    """The exception and its traceback, packed so that it is known to arrive.

    An exception whose `__init__` takes other arguments than it hands on is the usual case in libraries; pickle would
    call it with those that were handed on, and fail where nothing can be done any more.

    Raises:
        Exception: whatever keeps it from being packed.
    """
    trace = trace_of(error)
    with contextlib.suppress(Exception):
        packed = pack(_Raised(error, trace))
        arrives = pickle.loads(packed)  # noqa: S301 - packed by us just now
        if _says_the_same(arrives, error):
            return packed
    packed = pack(_Raised(_by_parts(error, pack), trace))
    pickle.loads(packed)  # noqa: S301 - likewise
    return packed


class _Raised:
    """An exception on its way: what arrives is the exception, with its traceback as the cause."""

    def __init__(self, error: Any, trace: str) -> None:
        self.error = error
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[Any, str]]:
        return _with_trace, (self.error, self.trace)


def _with_trace(error: BaseException, trace: str) -> BaseException:
    error.__cause__ = RemoteTraceback(trace)
    return error


def _says_the_same(arrives: object, error: BaseException) -> bool:
    """Whether what arrives is the exception: tblib, which Dask installs, brings Python's own back without text or code."""
    is_same = type(arrives) is type(error) and text_of(arrives) == text_of(error)
    return is_same and (not isinstance(error, SystemExit) or getattr(arrives, "code", None) == error.code)


class _Bare:
    """An exception on its way by its parts: what arrives has its type, `args` and attributes, without calling `__init__`."""

    def __init__(self, kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> None:
        self.parts = kind, args, attributes

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[Any, ...]]:
        return _from_parts, self.parts


def _by_parts(error: BaseException, pack: Pack) -> _Bare:
    attributes = _packable({**_builtin_fields(error), **vars(error)}, pack)
    if isinstance(error, BaseExceptionGroup):
        return _Bare(
            type(error), (error.message, [_by_parts(each, pack) for each in error.exceptions]), attributes
        )
    args = error.args if "args" in _packable({"args": error.args}, pack) else (text_of(error),)
    return _Bare(type(error), args, attributes)


def _from_parts(
    kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]
) -> BaseException:
    # Those of Python itself keep what they say in fields that only `__init__` fills, from these very arguments.
    error = kind(*args) if kind.__module__ == "builtins" else _bare(kind, args)
    error.args = args
    for name, value in attributes.items():
        try:
            object.__setattr__(error, name, value)
        except (AttributeError, TypeError):  # a property of the same name
            error.__dict__[name] = value
    return error


def _bare(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """An instance without `__init__`. Of several bases in C only one may make it: for lxml's syntax errors Python's own."""
    for base in kind.__mro__:
        with contextlib.suppress(TypeError):
            return base.__new__(kind, *args)
    return kind(*args)


def _builtin_fields(error: BaseException) -> dict[str, Any]:
    """What an exception has in fields of Python's own types instead of `__dict__`: `SyntaxError.lineno`, `OSError.filename`."""
    fields: dict[str, Any] = {}
    for base in type(error).__mro__:
        if base.__module__ == "builtins" and base not in {BaseException, BaseExceptionGroup}:
            names = (name for name, found in vars(base).items() if isinstance(found, _FIELD_TYPES))
            for name in names:
                with contextlib.suppress(AttributeError):  # `OSError.characters_written` is not always there
                    fields[name] = getattr(error, name)
    return {name: value for name, value in fields.items() if value is not None}  # `None`: it was never set


def _packable(attributes: Mapping[str, Any], pack: Pack) -> dict[str, Any]:
    """Those of an exception's attributes that can travel."""
    found = {}
    for name, value in attributes.items():
        with contextlib.suppress(Exception):
            pickle.loads(pack(value))  # noqa: S301 - packed by us just now
            found[name] = value
    return found


def trace_of(error: BaseException) -> str:
    """The exception's traceback as text."""
    try:
        return "".join(traceback.format_exception(error))
    except (Exception, SystemExit) as why:  # one of its own methods raised
        return f"{type(error).__qualname__}, whose traceback cannot be shown: {type(why).__name__}\n"


def packed_text(error: BaseException, subject: str = "") -> bytes:
    """What can be said of `subject`, which cannot travel, and of the error that shows it."""
    return pickle.dumps((subject, f"{type(error).__name__}: {text_of(error)}", ""))
