"""The standard library as it was before any test ran, for code that runs inside other people's tests.

A test may replace anything: `sys.platform`, `os.read`, `time.perf_counter`, the whole file system. Such doubles stand until the
test's teardown, and what was measured has to be read before that. So whatever may run between a test's setup and its teardown
takes the standard library from here:

```python
from pytest_membudget.originals import os, time
```

- Each name holds a copy of a module's names. It is not a module, and no function stands here by itself: pyfakefs and
  freezegun search all loaded modules for the modules and functions that they know, and replace them.
- What is written in Python looks up names in its own module when it is called: `subprocess.Popen` calls whatever `os.read` is by
  then. Such steps, which are rare and slow, run inside `restored()`.
- A copy does not follow later changes. Take what changes by design (`sys.stdout`, `sys.path`) from the module itself.
"""

# ruff: noqa: PLC0414 - for type checkers, `import x as x` makes the name public
from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from operator import itemgetter
from sys import modules as sys_modules
from types import FunctionType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import _thread as _thread
    import builtins as builtins
    import contextlib as contextlib
    import ctypes as ctypes
    import fcntl as fcntl
    import gc as gc
    import inspect as inspect
    import io as io
    import itertools as itertools
    import json as json
    import logging as logging
    import mmap as mmap
    import os as os
    import random as random
    import re as re
    import resource as resource
    import select as select
    import shutil as shutil
    import signal as signal
    import struct as struct
    import subprocess as subprocess
    import sys as sys
    import tempfile as tempfile
    import threading as threading
    import time as time
    import traceback as traceback
    import tracemalloc as tracemalloc
    import warnings as warnings

_MODULES = """
    _thread builtins contextlib ctypes fcntl gc inspect io itertools json logging mmap os random re resource
    select shutil signal struct subprocess sys tempfile threading time traceback tracemalloc warnings
""".split()
_ALSO_RESTORED = ("pathlib", "posixpath", "selectors")
_CLASSES = {
    "json": ("JSONDecoder", "JSONEncoder"),
    "pathlib": ("PurePath", "Path"),
    "subprocess": ("Popen",),
    "threading": ("Thread",),
}
_TEXT = frozenset({"executable", "name", "platform", "sep"})
_CHANGING = frozenset({"_loggerClass", "_shutdown"})
"""Callables that programs replace by design, beside those whose names end in `hook`."""
_MISSING = object()

_BUILTINS = itemgetter(
    *"""abs all any bytes enumerate filter float frozenset map max min range round set sorted sum vars zip""".split()
)
"""Built-in names that our code looks up like any other, and without which pytest still runs a test."""
_vars = vars  # itself one of those names
_builtins = vars(sys_modules["builtins"])
_builtins_before = _BUILTINS(_builtins)


_copies: dict[str, SimpleNamespace] = {}
_restorable: list[tuple[Any, Mapping[str, Any]]] = []


if not TYPE_CHECKING:

    def __getattr__(name: str) -> SimpleNamespace:
        """The copy of a module, made when it is first asked for: a worker process need not load them all (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name not in _copies:
            _copies[name] = SimpleNamespace()
            # Windows has neither `fcntl` nor `resource`; what uses them asks for the platform first.
            with suppress(ImportError):
                _copies[name] = SimpleNamespace(**vars(importlib.import_module(name)))
        return _copies[name]


def bind_loaded() -> None:
    """Copies what is loaded already (0.1 ms). Called when pytest loads the plugin, before any conftest file."""
    for name in _MODULES:
        if name in sys_modules:
            _copies.setdefault(name, SimpleNamespace(**vars(sys_modules[name])))


def bind_all() -> None:
    """Makes every copy, and keeps what `restored` restores (5 ms). Called before the first test of a session that measures."""
    if _restorable:
        return
    for name in (*_MODULES, *_ALSO_RESTORED):
        with suppress(ImportError):
            module = importlib.import_module(name)
            copy = _copies.setdefault(name, SimpleNamespace(**vars(module)))
            # As it was when the plugin was loaded: gevent replaces much while test modules are imported.
            _restorable.extend(_replaceable_names(module, vars(copy)))


def _replaceable_names(
    module: ModuleType, names: Mapping[str, Any]
) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """The module, and each of its classes that tests are known to change; with what stands in it."""
    yield (
        module,
        {
            name: value
            for name, value in names.items()
            if (callable(value) or isinstance(value, ModuleType) or name in _TEXT)
            and not name.endswith("hook")
            and name not in _CHANGING
        },
    )
    for name in _CLASSES.get(module.__name__, ()):
        kind = getattr(module, name)
        methods = (FunctionType, classmethod, staticmethod, property)
        yield kind, {key: value for key, value in vars(kind).items() if isinstance(value, methods)}


def has_builtin_doubles() -> bool:
    """Whether a test has replaced or deleted one of the built-in names (2 µs)."""
    try:
        return bool(_BUILTINS(_builtins) != _builtins_before)
    except KeyError:
        return True


@contextmanager
def restored() -> Iterator[None]:
    """The standard library itself is as it was while the block runs; then every double is back (0.2 ms).

    All threads see that. It is for what has to work in any test, such as starting a process.
    """
    doubles = [
        (owner, name, _vars(owner).get(name, _MISSING), value)
        for owner, names in _restorable
        for name, value in names.items()
        if _vars(owner).get(name, _MISSING) is not value
    ]
    for owner, name, _, value in doubles:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, double, _ in doubles:
            if double is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, double)
