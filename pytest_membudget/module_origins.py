"""Modules that another process of the same program would not find by their name, and where this one has them from.

Pickle sends a function as the names of its module and itself. A test module under pytest's `--import-mode=importlib`
was loaded from its file, and no entry of `sys.path` leads there; so was a module that `spec_from_file_location` made.
This process says which modules are so; the other one then imports them by the same names from the same files.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, NamespaceLoader
from multiprocessing import process
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pytest_membudget.errors import UnguardedMainError

_MAIN = frozenset({"__main__", "__mp_main__"})


class Origin(NamedTuple):
    """Where a module comes from. A package without a file has folders only, or was made up and has none."""

    file: str | None
    folders: tuple[str, ...] | None  # where a package's modules are; `None` for a plain module


Origins = Mapping[str, Origin]


def off_path() -> Origins:
    """Every loaded module whose name does not lead to its file, and the packages it is in, by name.

    The same object as before where nothing was loaded meanwhile: looking at 1,800 modules takes 10 ms.
    """
    newest = next(reversed(sys.modules), None)
    state = (len(sys.modules), newest, sys.modules.get(newest or ""), *sys.path)
    if state != _lately.state:
        _lately.state, _lately.origins = state, _searched()
    return _lately.origins


class Arriving:
    """Origins on their way in a pickle: installed as they arrive, so that what comes after them is found."""

    def __init__(self, origins: Origins) -> None:
        self._origins = origins

    def __reduce__(self) -> tuple[Callable[[Origins], None], tuple[Origins]]:
        return install, (self._origins,)


@dataclass(slots=True)
class _Lately:
    """What was found last, and what was loaded then."""

    state: tuple[object, ...] = ()
    origins: Origins = field(default_factory=dict)


_lately = _Lately()


def _searched() -> Origins:
    entries = frozenset({each for entry in sys.path for each in (entry, str(Path(entry).absolute()))})
    found: dict[str, Origin] = {}
    packages: set[str] = set()
    for name, module in list(sys.modules.items()):
        file = _source_of(name, module)
        if file is None:
            continue
        if not _is_found(name, _place(file), entries):
            found[name] = Origin(file, _folders(module))
        parent = name.rpartition(".")[0]
        while parent and parent not in packages:
            packages.add(parent)
            parent = parent.rpartition(".")[0]
    for name in packages:
        package = sys.modules.get(name)
        if package is not None and _has_no_file(package):
            folders = _folders(package) or ()
            if not any(_is_found(name, os.path.split(folder), entries) for folder in folders):
                found[name] = Origin(None, folders)
    return found


def install(origins: Origins) -> None:
    """Lets this process import these modules as the other one has them; what it has loaded stays."""
    _Finder.origins.update(origins)
    if origins and _Finder not in sys.meta_path:
        # Before all others: a name may also lead to another module, which is the wrong one.
        sys.meta_path.insert(0, _Finder)


class _Finder:
    """The import system's way to ask."""

    origins: dict[str, Origin] = {}  # noqa: RUF012 - one for the process, as `sys.meta_path` is

    @classmethod
    def find_spec(cls, name: str, *_where: object) -> ModuleSpec | None:
        """Where that module comes from; `None` where the others are to look for it."""
        origin = cls.origins.get(name)
        if origin is None or (origin.file is not None and not Path(origin.file).is_file()):
            return None
        folders = None if origin.folders is None else list(origin.folders)
        if origin.file is not None:
            return importlib.util.spec_from_file_location(
                name, origin.file, submodule_search_locations=folders
            )
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = folders
        return spec


def _source_of(name: str, module: object) -> str | None:
    """The source file that it was loaded from under this name, where it says so."""
    spec = _attributes(module).get("__spec__")
    if name in _MAIN or not isinstance(spec, ModuleSpec) or spec.name != name:
        return None
    file = spec.origin if spec.has_location else None  # without a location something else than a file made it
    return file if isinstance(file, str) and file.endswith(".py") else None


def _has_no_file(package: object) -> bool:
    """Whether a package is nothing but a name: folders without `__init__.py`, or made up by a program."""
    spec = _attributes(package).get("__spec__")
    return spec is None or isinstance(getattr(spec, "loader", None), NamespaceLoader)


def _place(file: str) -> tuple[str, str]:
    """The folder that leads to a module, and the name by which it does."""
    folder, last = os.path.split(file)
    return os.path.split(folder) if last == "__init__.py" else (folder, last.removesuffix(".py"))


def _is_found(name: str, place: tuple[str, str], entries: frozenset[str]) -> bool:
    """Whether a search for `name` comes by that place."""
    parent, _, last = name.rpartition(".")
    folder, found_as = place
    where = entries if not parent else _folders(sys.modules.get(parent)) or ()
    return found_as == last and folder in where


def _folders(module: object) -> tuple[str, ...] | None:
    path = _attributes(module).get("__path__")
    return None if path is None else tuple(map(str, path))


def _attributes(module: object) -> dict[str, Any]:
    """Without asking the module itself: one that loads when it is first used would do so.

    `isinstance` would ask as well, and believe it: a library of cffi (`cryptography`'s) says that it is a module.
    """
    if not issubclass(type(module), ModuleType):
        return {}
    attributes: dict[str, Any] = ModuleType.__getattribute__(module, "__dict__")
    return attributes


def main_is_importable() -> bool:
    """Whether another process finds the functions of the main module by their names: it is a script or a module."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        name = str(spec.name)
        return name != "__main__" and not name.endswith(".__main__")
    return getattr(main, "__file__", None) is not None and not main_came_through_a_pipe()


def main_came_through_a_pipe() -> bool:
    """Whether the script is `<stdin>`, which is no file."""
    name = getattr(sys.modules.get("__main__"), "__file__", None)
    return isinstance(name, str) and name.startswith("<")


@contextlib.contextmanager
def importing_main() -> Iterator[None]:
    """While this lasts, a fresh process imports the script of another: no pool may be used, as with the standard library's."""
    process.current_process()._inheriting = True  # type: ignore[attr-defined] # noqa: SLF001 - the mark that all pools ask for
    try:
        yield
    finally:
        del process.current_process()._inheriting  # type: ignore[attr-defined] # noqa: SLF001 - likewise


def refuse_in_unguarded_main(what: str) -> None:
    """Stops a fresh process that imports an unguarded script from doing the whole script's work once more.

    Raises:
        UnguardedMainError: names `what`, and what to do.
    """
    if getattr(process.current_process(), "_inheriting", False):
        raise UnguardedMainError(
            f"{what} was used while a fresh process was importing the script that started it; put the script's work under: "
            'if __name__ == "__main__":'
        )
