"""Loaded by the fork server before it forks: the worker's code, and the script whose functions workers will run.

Without this every worker would import the script, and all that the script imports, once more. The server is told where
the script is by an environment variable, as its own start offers no other way. The coordinator never imports this.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import sys
from multiprocessing import process, spawn

from pytest_membudget.runtime.executor.context import SCRIPT_VARIABLE

_FOR_EVERY_WORKER = (
    "pytest_membudget.runtime.executor.worker",
    "multiprocessing.heap",
    "multiprocessing.popen_forkserver",
    "multiprocessing.queues",
    "multiprocessing.sharedctypes",
    "multiprocessing.synchronize",
    "psutil",
)


def _load_script() -> None:
    main_path, sys_path = json.loads(os.environ.pop(SCRIPT_VARIABLE, "[null, []]"))
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


for _module in _FOR_EVERY_WORKER:
    with contextlib.suppress(ImportError):  # psutil may be missing, and is not needed
        importlib.import_module(_module)
_load_script()
# Left out of collections, what is here stays shared: a collection would write to every page of it.
gc.freeze()
