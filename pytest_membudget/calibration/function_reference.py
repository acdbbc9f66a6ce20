"""How a fresh interpreter finds a function: by its module and name, or in the script that is being run."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import os
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pytest_membudget.errors import UsageError, text_of
from pytest_membudget.origins import Origin, install, off_path

_SCRIPT_MODULE = (
    "__mp_main__"  # the name under which multiprocessing runs a script again, so that guards hold
)


class ScriptReached(BaseException):
    """Ends a script that a fresh interpreter runs for its functions, at the call that started it all."""


class FunctionReference(msgspec.Struct, frozen=True, kw_only=True):
    """A module (or the path of a script), a name in it, and what the interpreter needs to find them."""

    module: str
    name: str
    script: str = ""
    search_path: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    #: A partial, a bound method or a callable object, pickled by this program for its own fresh interpreters.
    pickled: bytes = b""
    origins: dict[str, Origin] = {}

    def __str__(self) -> str:
        return f"{Path(self.script).name if self.script else self.module}:{self.name}"


class _Loading:
    """Whether this interpreter is just running a script for its functions."""

    active = False


def refer_to(fn: Callable[..., Any]) -> FunctionReference:
    """The reference of `fn`.

    A `functools.partial`, a method of an object and an object that can be called are sent with what they hold.

    Raises:
        UsageError: a lambda, a nested function, one that holds what cannot be pickled, or a function of an interactive
            session.
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
    script = ""
    if module == "__main__":
        module, script = _main_module()
    reference = FunctionReference(
        module=module,
        name=name,
        script=script,
        search_path=tuple(os.path.abspath(entry) for entry in sys.path),  # noqa: PTH100 - "" means here
        arguments=tuple(sys.argv),
        pickled=b"" if named is fn else _pickled(fn),
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
    module = _run_script(reference) if reference.script else importlib.import_module(reference.module)
    found = pickle.loads(reference.pickled) if reference.pickled else _attribute(module, reference.name)  # noqa: S301 - from this program itself
    if not callable(found):
        where = reference.script or getattr(module, "__file__", None) or reference.module
        raise UsageError(f"{where} has no function {reference.name!r}")
    return found  # type: ignore[no-any-return]  # whatever the user's module holds under that name


def parse_reference(text: str) -> FunctionReference:
    """The reference written as MODULE:FUNCTION; the present folder is searched as well.

    Raises:
        UsageError: not of that form.
    """
    module, colon, name = text.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise UsageError(
            f'{text!r} is not a function; write MODULE:FUNCTION, such as "package.parsers:read_csv"'
        )
    here = os.path.abspath(".")  # noqa: PTH100 - the same call as for sys.path
    path = tuple(dict.fromkeys((here, *(os.path.abspath(entry) for entry in sys.path))))  # noqa: PTH100 - likewise
    return FunctionReference(module=module, name=name, search_path=path, arguments=(module,))


def digest_source(fn: Callable[..., Any]) -> str:
    """The SHA-256 of the file that defines `fn`; empty where there is none, as for functions written in C."""
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
    if _Loading.active:
        raise ScriptReached


def _named_part(fn: Callable[..., Any]) -> Any:
    """The function or class behind a partial, a method or an object that can be called."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if inspect.ismethod(fn):
        return fn.__func__
    return fn if hasattr(fn, "__qualname__") or not callable(fn) else type(fn)


def _pickled(fn: Callable[..., Any]) -> bytes:
    try:
        return pickle.dumps(fn)
    except Exception as error:  # whatever the objects that it holds raise
        raise UsageError(
            f"{fn!r} holds what a fresh process cannot be given ({type(error).__name__}: {text_of(error)}); hold plain data, "
            "or make it inside the function"
        ) from error


def _main_module() -> tuple[str, str]:
    """The name of the module that runs as `__main__`, or the path of the script."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return spec.name, ""
    path = getattr(main, "__file__", None)
    if not path or not Path(path).is_file():
        raise UsageError(
            "a function typed into an interactive session cannot be found by a fresh process; put it in a file"
        )
    return "__main__", str(Path(path).resolve())


def _run_script(reference: FunctionReference) -> types.ModuleType:
    module = types.ModuleType(_SCRIPT_MODULE)
    module.__file__ = reference.script
    sys.modules[_SCRIPT_MODULE] = sys.modules["__main__"] = module
    sys.argv = list(reference.arguments)
    code = compile(Path(reference.script).read_bytes(), reference.script, "exec")
    _Loading.active = True
    try:
        exec(code, vars(module))  # noqa: S102 - the user's own script, as multiprocessing does it
    except ScriptReached:
        pass  # what stands below the call is not needed: the function was there when the call was made
    finally:
        _Loading.active = False
    return module


def _attribute(module: types.ModuleType | None, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
