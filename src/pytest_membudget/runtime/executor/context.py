"""How worker processes are started where the caller does not say.

A fork server, where there is one: plain `fork` copies a process with threads, which can deadlock, and `spawn` takes a
new interpreter 100 ms. The server is a fresh interpreter that has loaded the worker's code and forks within
milliseconds. What it inherited when it started may be out of date by then, so each worker is told the coordinator's
environment and resource limits; a control group cannot be told, and where it differs `spawn` is used.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from multiprocessing import process, spawn
from multiprocessing.context import BaseContext
from pathlib import Path

SCRIPT_VARIABLE = "_MEMBUDGET_PRELOAD"
"""Environment variable that tells a fork server which script to load."""

_PRELOAD = "pytest_membudget.runtime.executor.preload"
_starting = threading.Lock()


def default_context() -> BaseContext:
    """The fork server's context, or `spawn` where there is none or it lives in another control group."""
    if sys.platform != "linux" or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    # The module's only instance, which tells more than its public functions do.
    server = getattr(forkserver, "_forkserver", None)
    server_pid = getattr(server, "_forkserver_pid", None)
    if server_pid is None:
        _start(list(getattr(server, "_preload_modules", ())))
    elif _groups(server_pid) != _groups("self"):
        return multiprocessing.get_context("spawn")
    return multiprocessing.get_context("forkserver")


def _start(modules: list[str]) -> None:
    """Starts the fork server with the worker's code, and the running script, loaded."""
    from multiprocessing import forkserver

    with _starting, _announced():
        forkserver.set_forkserver_preload([*(name for name in modules if name != _PRELOAD), _PRELOAD])
        forkserver.ensure_running()
    atexit.register(_end, getattr(forkserver, "_forkserver", None), os.getpid())


def _end(server: object, owner_pid: int) -> None:
    """Ends the server with the program that started it: by itself it would notice a moment after."""
    stop = getattr(server, "_stop", None)
    if stop is not None and os.getpid() == owner_pid:
        stop()


@contextlib.contextmanager
def _announced() -> Iterator[None]:
    """While this lasts, a fork server that starts finds the running script."""
    data = spawn.get_preparation_data("ignore")
    os.environ[SCRIPT_VARIABLE] = json.dumps([data.get("init_main_from_path"), data["sys_path"]])
    try:
        yield
    finally:
        os.environ.pop(SCRIPT_VARIABLE, None)


def refuse_in_unguarded_main() -> None:
    """Stops a worker that imports an unguarded script from running the whole script's work once more.

    Raises:
        RuntimeError: as the standard library's pools do there.
    """
    if getattr(process.current_process(), "_inheriting", False):
        raise RuntimeError(
            "a FallbackExecutor was used while a worker process was importing the script that started it; "
            'put the script\'s work under: if __name__ == "__main__":'
        )


def _groups(pid: int | str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cgroup").read_bytes()
    except OSError:
        return b""
