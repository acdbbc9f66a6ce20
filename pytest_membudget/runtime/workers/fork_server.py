"""How worker processes are started where the caller does not say.

A fork server, where there is one: plain `fork` copies a process with threads, which can deadlock, and `spawn` takes a
new interpreter 100 ms. The server is a fresh interpreter that has loaded the worker's code and forks within
milliseconds. What it inherited when it started may be out of date by then, so each worker is told the coordinator's
environment and resource limits; a control group cannot be told, and where it differs `spawn` is used.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import process, spawn
from multiprocessing.context import BaseContext
from pathlib import Path

SCRIPT_VARIABLE = "_MEMBUDGET_PRELOAD"
"""Environment variable that tells a fork server which script to load, and for which process."""

_PRELOAD = "pytest_membudget.runtime.workers.fork_server_preload"
_DYING_S = 0.5
_starting = threading.Lock()


def default_context() -> BaseContext:
    """The fork server's context, or `spawn` where there is none or it lives in another control group."""
    if sys.platform != "linux" or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    # The module's only instance, which tells more than its public functions do.
    server = getattr(forkserver, "_forkserver", None)
    server_pid = getattr(server, "_forkserver_pid", None)
    if server_pid is None or _has_ended(server_pid):
        _start(list(getattr(server, "_preload_modules", ())))
    elif _groups(server_pid) != _groups("self"):
        return multiprocessing.get_context("spawn")
    return multiprocessing.get_context("forkserver")


@contextlib.contextmanager
def answering_within(limit_s: float | None) -> Iterator[None]:
    """A fork server serves nobody before it has loaded the script; while this lasts, it is ended after `limit_s`.

    Raises:
        TimeoutError: that happened.
    """
    if not _is_loading():
        yield
        return
    timer = threading.Timer(threading.TIMEOUT_MAX if limit_s is None else limit_s, end_loading)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (EOFError, OSError) as error:
        if not _is_loading():
            within = "" if limit_s is None else f" within {limit_s:g} s"
            raise TimeoutError(
                f"the fork server had not loaded {_Loading.script}{within}, and was ended"
            ) from error
        raise
    finally:
        timer.cancel()
    _Loading.server_pid = None


def end_loading() -> None:
    """Ends the fork server where it is still loading the script, which may never end."""
    server_pid, _Loading.server_pid = _Loading.server_pid, None
    if server_pid is not None:
        with contextlib.suppress(OSError):
            os.kill(server_pid, signal.SIGKILL)


def _is_loading() -> bool:
    return _Loading.server_pid is not None


class _Loading:
    """The fork server that we have started, until it has served somebody."""

    server_pid: int | None = None
    script = ""
    is_forgotten_in_forks = False


def _start(modules: list[str]) -> None:
    """Starts the fork server with the worker's code, and the running script, loaded."""
    from multiprocessing import forkserver

    with _starting, _announced() as script:
        # The script is loaded by ours, which ends with the program however long that takes; "__main__" would not.
        others = [name for name in modules if name not in {_PRELOAD, "__main__"}]
        forkserver.set_forkserver_preload([*others, _PRELOAD])
        forkserver.ensure_running()
    server = getattr(forkserver, "_forkserver", None)
    _Loading.server_pid = getattr(server, "_forkserver_pid", None)
    _Loading.script = script
    atexit.register(_end, server, os.getpid())
    if not _Loading.is_forgotten_in_forks:
        os.register_at_fork(after_in_child=_forget)
        _Loading.is_forgotten_in_forks = True


def _forget() -> None:
    """In a forked child: the server is its parent's, and serves nobody else. The child may start its own."""
    from multiprocessing import forkserver

    server = vars(getattr(forkserver, "_forkserver", None) or threading.local())
    if (pipe := server.get("_forkserver_alive_fd")) is not None:
        with contextlib.suppress(OSError):
            os.close(pipe)  # an open end would keep the server after its program
    server.update(dict.fromkeys(("_forkserver_address", "_forkserver_alive_fd", "_forkserver_pid")))
    server["_lock"] = threading.Lock()
    _Loading.server_pid = None


def _end(server: object, owner_pid: int) -> None:
    """Ends the server with the program that started it: by itself it would notice a moment after."""
    stop = getattr(server, "_stop", None)
    if stop is not None and os.getpid() == owner_pid:
        end_loading()
        stop()


@contextlib.contextmanager
def _announced() -> Iterator[str]:
    """While this lasts, a fork server that starts finds the running script."""
    data = spawn.get_preparation_data("ignore")
    os.environ[SCRIPT_VARIABLE] = json.dumps([data.get("init_main_from_path"), data["sys_path"], os.getpid()])
    try:
        yield str(data.get("init_main_from_path") or "its modules")
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


def let_server_end() -> None:
    """Waits for a fork server that has closed its connections: being killed takes it some moments more."""
    from multiprocessing import forkserver

    server_pid = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
    end_s = time.monotonic() + _DYING_S
    while server_pid is not None and not _has_ended(server_pid) and time.monotonic() < end_s:
        time.sleep(_DYING_S / 1000)


def _has_ended(pid: int) -> bool:
    """Whether a child of ours is gone, though nobody has asked for its exit code yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in {b"Z", b"X"}
    except (OSError, IndexError):
        return True


def _groups(pid: int | str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cgroup").read_bytes()
    except OSError:
        return b""


_one_at_a_time = threading.Lock()


def is_found() -> bool:
    """Whether a worker has the functions of the main module under their names."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        name = str(spec.name)
        return name != "__main__" and not name.endswith(".__main__")
    return getattr(main, "__file__", None) is not None and not _came_through_a_pipe()


@contextlib.contextmanager
def left_alone_where_it_is_no_file() -> Iterator[None]:
    """While this lasts, workers that start are not told to import `<stdin>`, which would end them."""
    if not _came_through_a_pipe() or importlib.util.find_spec("cloudpickle") is None:
        yield
        return
    main = vars(sys.modules["__main__"])
    with _one_at_a_time:
        name = main.pop("__file__", None)
        try:
            yield
        finally:
            main["__file__"] = name


def _came_through_a_pipe() -> bool:
    name = getattr(sys.modules.get("__main__"), "__file__", None)
    return isinstance(name, str) and name.startswith("<")
