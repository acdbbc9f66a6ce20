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
import threading
from collections.abc import Iterator
from multiprocessing import process, spawn

from pytest_membudget.runtime.workers.fork_server import SCRIPT_VARIABLE

_FOR_EVERY_WORKER = (
    "pytest_membudget.runtime.workers.worker_main",
    "multiprocessing.heap",
    "multiprocessing.popen_forkserver",
    "multiprocessing.queues",
    "multiprocessing.sharedctypes",
    "multiprocessing.synchronize",
    "psutil",
)

_LOOK_EVERY_S = 0.5


def _load_script() -> None:
    main_path, sys_path, program_pid = json.loads(os.environ.pop(SCRIPT_VARIABLE, "[null, [], 0]"))
    if main_path is None:
        return
    own_path = sys.path[:]
    sys.path[:] = sys_path
    with _ending_with(program_pid):
        _import(main_path)
    sys.path[:] = own_path


def _import(main_path: str) -> None:
    process.current_process()._inheriting = True  # type: ignore[attr-defined] # noqa: SLF001 - as the standard library marks it
    # A script that cannot be imported fails in the worker, where it is told.
    with contextlib.suppress(BaseException):
        spawn.import_main_path(main_path)
    del process.current_process()._inheriting  # type: ignore[attr-defined] # noqa: SLF001 - likewise


@contextlib.contextmanager
def _ending_with(program_pid: int) -> Iterator[None]:
    """A script that never comes to an end must not outlive the program: the server looks after that only when it serves."""
    is_over = threading.Event()

    def watch() -> None:
        # By its number: the program may be gone already, and then the parent is another one from the start.
        while os.getppid() == program_pid:
            if is_over.wait(_LOOK_EVERY_S):
                return
        os._exit(1)

    thread = threading.Thread(target=watch, name="membudget-parent", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()  # what forks must have one thread


for _module in _FOR_EVERY_WORKER:
    with contextlib.suppress(ImportError):  # psutil may be missing, and is not needed
        importlib.import_module(_module)
# Before the script, which may be large. Workers are born with it then; the server itself can be started again.
importlib.import_module(_FOR_EVERY_WORKER[0]).offer_itself()
_load_script()
# Left out of collections, what is here stays shared: a collection would write to every page of it.
gc.freeze()
