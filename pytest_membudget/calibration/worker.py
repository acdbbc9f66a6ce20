"""What a fresh interpreter does for one run: find the function, warm up, measure. Started by `run_executors`.

A function is found by its module and name, or in the script that is being run.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import importlib
import os
import pickle
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from pytest_membudget.errors import MissingExtraError, UsageError, text_of
from pytest_membudget.measurement.probe import measuring
from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.process.high_water import (
    high_water_bytes,
    reset_high_water_mark,
    resident_bytes,
)
from pytest_membudget.module_origins import Origin, install, off_path
from pytest_membudget.records.calibration import CalibrationRun
from pytest_membudget.records.measurement import Caveat, CaveatKind
from pytest_membudget.stats.fitting import MATERIAL_SHARE

_SCRIPT_MODULE = (
    "__mp_main__"  # the name under which multiprocessing runs a script again, so that guards hold
)
_LONGEST_TEXT = 500
_MATERIAL_BYTES = 1024 * 1024  # a result that is smaller is no matter, nor one below a tenth of the peak

_SAME_IN_A_WORKER: frozenset[CaveatKind] = frozenset({"kept-small-blocks", "library-pool", "arrow-pool"})
"""The call before has left free memory that this one reused. So has a task in a worker, and what it adds is asked for."""


class ScriptReached(BaseException):
    """Ends a script that a fresh interpreter runs for its functions, at the call that started it all."""


class FunctionReference(msgspec.Struct, frozen=True, kw_only=True):
    """A module (or the path of a script), a name in it, and what the interpreter needs to find them."""

    module: str
    name: str
    script: str = ""
    search_path: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    #: A partial, a bound method or a callable object, pickled by this program for its own fresh interpreters; or a
    #: function of a notebook, pickled by value.
    pickled: bytes = b""
    is_by_value: bool = False
    origins: dict[str, Origin] = {}

    def __str__(self) -> str:
        return f"{Path(self.script).name if self.script else self.module}:{self.name}"


_is_loading = threading.Event()
"""Set while this interpreter runs a script for its functions, in threads that the script starts as well."""


def refer_to(fn: Callable[..., Any]) -> FunctionReference:
    """The reference of `fn`.

    A `functools.partial`, a method of an object and an object that can be called are sent with what they hold.

    A function of a notebook or of an interactive session is in no file: it is sent as what it is made of.

    Raises:
        UsageError: a lambda, a nested function, or one that holds what cannot be pickled.
        MissingExtraError: cloudpickle is not installed, and the function is in no file.
    """
    named = _named_part(fn)
    module, name = getattr(named, "__module__", None), getattr(named, "__qualname__", None)
    if not module or not name:
        raise UsageError(
            f"{fn!r} has no name that a fresh process could import; give a function of a module or of the script"
        )
    if "<" in name:
        raise UsageError(
            f"{name} of {module} lives inside another function, where a fresh process cannot find it; "
            "move it to the top level of its module"
        )
    script, is_by_value = "", False
    if module == "__main__":
        module, script = _main_module()
        is_by_value = module == "__main__" and not script
    pickled = b"" if named is fn and not is_by_value else _pickled(fn, by_value=is_by_value)
    reference = FunctionReference(
        module=module,
        name=name,
        script=script,
        search_path=tuple(os.path.abspath(entry) for entry in sys.path),  # noqa: PTH100 - "" means here
        arguments=tuple(sys.argv),
        pickled=pickled,
        is_by_value=is_by_value,
        origins=dict(off_path()),
    )
    if _attribute(sys.modules.get(named.__module__), name) is not named:
        raise UsageError(f"{reference} is another object than the given function; give the one of that name")
    return reference


def find_function(reference: FunctionReference) -> Callable[..., Any]:
    """The function, in this interpreter.

    Raises:
        Exception: whatever importing its module raised.
        UsageError: the module has no such name, or it is not callable.
    """
    missing = [entry for entry in reference.search_path if entry not in sys.path]
    sys.path[:] = [*missing, *sys.path]
    install(reference.origins)
    module = None
    if not reference.is_by_value:
        module = _run_script(reference) if reference.script else importlib.import_module(reference.module)
    found = pickle.loads(reference.pickled) if reference.pickled else _attribute(module, reference.name)  # noqa: S301 - from this program itself
    if found is None:
        where = reference.script or getattr(module, "__file__", None) or reference.module
        raise UsageError(f"{reference} cannot be imported: {where} has no function {reference.name!r}")
    if not callable(found):
        raise UsageError(f"{reference} is a {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]  # whatever the user's module holds under that name


def load_here(reference: FunctionReference) -> Callable[[Any], Any]:
    """The function of a reference, imported by this process; its workers import it again.

    Raises:
        UsageError: it cannot be imported, or is no function.
    """
    try:
        return find_function(reference)
    except UsageError:
        raise
    except Exception as error:  # whatever importing the user's module raises
        raise UsageError(f"{reference} cannot be imported: {type(error).__name__}: {error}") from error


def parse_reference(text: str) -> FunctionReference:
    """The reference written as MODULE:FUNCTION; the present folder is searched as well.

    Raises:
        UsageError: not of that form.
    """
    module, colon, name = text.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise UsageError(f'{text!r} is not MODULE:FUNCTION; write it as in "package.parsers:read_csv"')
    here = os.path.abspath(".")  # noqa: PTH100 - the same call as for sys.path
    path = tuple(dict.fromkeys((here, *(os.path.abspath(entry) for entry in sys.path))))  # noqa: PTH100 - likewise
    return FunctionReference(module=module, name=name, search_path=path, arguments=(module,))


def digest_source(fn: Callable[..., Any]) -> str:
    """The SHA-256 of the file that defines `fn`; empty where there is none, as for functions written in C."""
    import inspect  # not for the interpreters that run `fn`: half as long as all they import else

    try:
        source = inspect.getsourcefile(inspect.unwrap(_named_part(fn)))
    except TypeError:
        return ""
    if source is None or not Path(source).is_file():
        return ""
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()


def stop_if_loading() -> None:
    """Ends the script here when it is only run for its functions.

    Raises:
        ScriptReached: it is.
    """
    if _is_loading.is_set():
        raise ScriptReached


def _named_part(fn: Callable[..., Any]) -> Any:
    """The function or class behind a partial, a method or an object that can be called."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if isinstance(fn, types.MethodType):
        return fn.__func__
    return fn if hasattr(fn, "__qualname__") or not callable(fn) else type(fn)


def _pickled(fn: Callable[..., Any], *, by_value: bool) -> bytes:
    dumps: Callable[[object], bytes] = pickle.dumps
    if by_value:
        try:
            dumps = importlib.import_module("cloudpickle").dumps
        except ImportError as missing:
            raise MissingExtraError(
                "calibrating a function that is in no file (put it in one, or)", "cloudpickle", "cloudpickle"
            ) from missing
    try:
        return dumps(fn)
    except Exception as error:  # whatever the objects that it holds raise
        raise UsageError(
            f"{fn!r} holds what a fresh process cannot be given ({type(error).__name__}: {text_of(error)}); hold plain data, "
            "or make it inside the function"
        ) from error


def _main_module() -> tuple[str, str]:
    """The name of the module that runs as `__main__`, and the path of the script; none where it is in no file."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return spec.name, ""
    path = getattr(main, "__file__", None)
    return "__main__", str(Path(path).resolve()) if path and Path(path).is_file() else ""


def _run_script(reference: FunctionReference) -> types.ModuleType:
    module = types.ModuleType(_SCRIPT_MODULE)
    module.__file__ = reference.script
    sys.modules[_SCRIPT_MODULE] = sys.modules["__main__"] = module
    sys.argv = list(reference.arguments)
    code = compile(Path(reference.script).read_bytes(), reference.script, "exec")
    _is_loading.set()
    try:
        exec(code, vars(module))  # noqa: S102 - the user's own script, as multiprocessing does it
    except ScriptReached:
        pass  # what stands below the call is not needed: the function was there when the call was made
    finally:
        _is_loading.clear()
    return module


def _attribute(module: types.ModuleType | None, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


class RunInput(msgspec.Struct, frozen=True, kw_only=True):
    """What the function is called with: a path, as text or as a `Path`, or an item that this program pickled."""

    path: str = ""
    as_path: bool = False
    pickled: bytes = b""

    def value(self) -> Any:
        """The argument itself."""
        if self.pickled:
            return pickle.loads(self.pickled)  # noqa: S301 - from the program that started this interpreter
        return Path(self.path) if self.as_path else self.path


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One run: the function, a tiny file to warm up on, the file to measure, and where to put what was found."""

    run: CalibrationRun
    function: FunctionReference
    warm_up: RunInput
    input: RunInput
    answer: str


def main(order_path: str) -> int:
    """Carries out the order and writes the answer."""
    order = msgspec.json.decode(Path(order_path).read_bytes(), type=Order)
    partial = Path(f"{order.answer}.part")
    partial.write_bytes(msgspec.json.encode(_carry_out(order)))
    partial.rename(order.answer)  # the starter reads it as soon as it exists
    return 0


def _carry_out(order: Order) -> CalibrationRun:
    stage: Literal["import", "warm-up", "run"] = "import"
    try:
        fn = find_function(order.function)
        stage = "warm-up"
        tiny = order.warm_up.value()
        # By the high-water mark alone: a probe would load code here, whose freed memory the measured call would reuse.
        start_bytes = resident_bytes()
        is_reset = reset_high_water_mark()
        fn(tiny)
        first_peak_bytes = (high_water_bytes() if is_reset else resident_bytes()) - start_bytes
        gc.collect()
        warm_bytes = resident_bytes()
        stage = "run"
        item = order.input.value()
        with measuring(settle=True) as probe:
            before = _read_bytes()
            value = fn(item)
            after = _read_bytes()
        result_bytes = _pickled_bytes(value)
        del value
    except (Exception, SystemExit) as error:  # whatever the user's function raises is named to its owner
        return replace(order.run, failed_at=stage, error=_described(error))
    found = probe.measurement
    doubts = [doubt for doubt in found.caveat_records if doubt.kind not in _SAME_IN_A_WORKER]
    if result_bytes > max(_MATERIAL_BYTES, MATERIAL_SHARE * found.peak_bytes):
        doubts.append(Caveat("result-pickled", result_bytes))
    return replace(
        order.run,
        first_peak_bytes=max(0, first_peak_bytes),
        warm_bytes=warm_bytes,
        peak_bytes=found.peak_bytes,
        duration_s=found.duration_s,
        read_bytes=None if before is None or after is None else after - before,
        source_digest=digest_source(fn),
        doubts=tuple(doubts),
    )


class _PickleCounter:
    """A file that counts what is written to it and keeps nothing."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def write(self, data: Any) -> None:
        self.size_bytes += memoryview(data).nbytes


def _pickled_bytes(value: Any) -> int:
    """What a worker would send as the result; 0 where it cannot be pickled, which an executor says."""
    counter = _PickleCounter()
    try:
        pickle.Pickler(counter, pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception:  # whatever the user's objects raise
        return 0
    return counter.size_bytes


def _read_bytes() -> int | None:
    """Bytes that this process has read by system calls; `None` where the system does not count them."""
    words = proc.read("self", "io").partition(b"rchar:")[2].split(None, 1)
    return int(words[0]) if words else None


def _described(error: BaseException) -> str:
    text = f"{type(error).__name__}: {text_of(error)}"
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 3] + "..."
