"""Loaded by the fork server before it forks: the worker's code, and the script whose functions workers will run.

Without this every worker would import the script, and all that the script imports, once more. The server is told
where the script is by an environment variable, as its own start offers no other way.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Iterator
from multiprocessing import process, spawn

VARIABLE = "_MEMBUDGET_PRELOAD"


@contextlib.contextmanager
def announced() -> Iterator[None]:
    """While this lasts, a fork server that starts finds the running script."""
    data = spawn.get_preparation_data("ignore")
    os.environ[VARIABLE] = json.dumps([data.get("init_main_from_path"), data["sys_path"]])
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)


def _load_script() -> None:
    main_path, sys_path = json.loads(os.environ.pop(VARIABLE, "[null, []]"))
    if main_path is None:
        return
    own_path = sys.path[:]
    sys.path[:] = sys_path
    process.current_process()._inheriting = True  # type: ignore[attr-defined] # noqa: SLF001 - as the standard library marks it
    # A script that cannot be imported fails in the worker, where it is told.
    with contextlib.suppress(BaseException):
        spawn.import_main_path(main_path)
    del process.current_process()._inheriting  # type: ignore[attr-defined] # noqa: SLF001 - likewise
    sys.path[:] = own_path


importlib.import_module("pytest_membudget.runtime.executor.worker")
with contextlib.suppress(ImportError):
    importlib.import_module("psutil")
_load_script()
