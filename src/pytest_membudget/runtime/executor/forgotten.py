"""Modules that Python was made to forget while their package still has them as attributes.

pytest's `pytester` makes it forget what each project has loaded that it runs in its own process. What is loaded anew
then meets, by `from . import …`, first copies of its neighbours, and pickle refuses to send an object of a class that
has two. Without those attributes everything is loaded anew together.
"""

from __future__ import annotations

import sys
from types import ModuleType

_PACKAGES = ("multiprocessing", "concurrent.futures")


def let_go() -> None:
    """To be called before anything is imported from these packages, or started by them."""
    for package_name in _PACKAGES:
        package = sys.modules.get(package_name)
        for name, value in list(vars(package).items()) if package is not None else ():
            full_name = f"{package_name}.{name}"
            is_part = isinstance(value, ModuleType) and value.__name__ == full_name
            if is_part and full_name not in sys.modules:
                delattr(package, name)
