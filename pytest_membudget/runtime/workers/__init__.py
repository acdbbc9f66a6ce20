"""A worker and where it comes from: a process, a fork server, a thread, or the caller.

Nothing is imported here, so that `drop_forgotten_modules` can run before `multiprocessing` is.
"""

from __future__ import annotations

import sys
from types import ModuleType

_PACKAGES = ("multiprocessing", "concurrent.futures")


def drop_forgotten_modules() -> None:
    """Takes modules away that Python was made to forget while their package still has them as attributes.

    pytest's `pytester` runs projects in its own process and takes what each has loaded out of `sys.modules` afterwards. A
    module that is then loaded again finds the old copies of its neighbours by `from . import ...`, and pickle refuses to
    send an object whose class exists twice. Without those attributes everything is loaded again together. To be called
    before anything is imported from these packages, or started by them.
    """
    for package_name in _PACKAGES:
        package = sys.modules.get(package_name)
        for name, value in list(vars(package).items()) if package is not None else ():
            full_name = f"{package_name}.{name}"
            is_part = isinstance(value, ModuleType) and value.__name__ == full_name
            if is_part and full_name not in sys.modules:
                delattr(package, name)
