"""Names that a package loads when they are first used, so that importing it costs next to nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def names_on_demand(package: str, module_of: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of `package` (PEP 562): each name comes from its module below the package.

    It is looked up each time. Kept in the package, it would outlive its module where a program forgets modules and
    loads them again, as pytest's own `pytester` does between the projects that it runs: then two copies of a class meet.
    """

    def load(name: str) -> Any:
        module = module_of.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{module}"), name)

    return load
