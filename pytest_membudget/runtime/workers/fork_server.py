"""How worker processes are started where the caller does not say: by a fork server of our own.

Plain `fork` copies a process with threads, which can deadlock, and `spawn` takes a new interpreter 100 ms. The server is
a fresh interpreter that has loaded the worker's code (`fork_server_main`) and forks within milliseconds. It is not the
one of `multiprocessing`: other pools of the program keep theirs. What it inherited when it started may be out of date by
then, so each worker is sent the coordinator's environment and resource limits.

Nothing here waits for the server, which may be stopped, or still loading.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

from pytest_membudget.measurement.process import proc
from pytest_membudget.module_origins import main_came_through_a_pipe
from pytest_membudget.runtime.workers import fork_server_main

_logger = logging.getLogger("pytest_membudget.runtime")

_STOP_S = 1.0
_STARTS = 3
"""How often a start is tried whose server is killed just then."""


class ForkServer:
    """One server process and the socket to it; started with the first worker, and again when it was lost."""

    def __init__(self, preload: tuple[str, ...] = ()) -> None:
        self._preload = preload
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lifeline = -1
        self.is_ready = False
        """Whether the present process has served, or could."""

    @property
    def pid(self) -> int | None:
        """The server's process; `None` where there is none."""
        return None if self._process is None else self._process.pid

    def fork(self, descriptors: Sequence[int]) -> None:
        """Asks for a worker; the answer comes through the first of the descriptors.

        Raises:
            OSError: no server can be had.
        """
        with self._lock:
            for left in reversed(range(_STARTS)):
                if self._control is None or self._process is None or self._process.poll() is not None:
                    self._start()
                assert self._control is not None
                self._read_notices()
                try:
                    socket.send_fds(self._control, [b"f"], list(descriptors), socket.MSG_DONTWAIT)
                except ConnectionError:
                    self._forget()
                    if not left:
                        raise
                else:
                    return

    def lives_elsewhere(self) -> bool:
        """Whether a running server is in another control group than this process: its forks would be charged there."""
        process = self._process
        if process is None:
            return False
        elsewhere = proc.read(process.pid, "cgroup") not in {b"", proc.read("self", "cgroup")}
        if not elsewhere:
            return False
        status = proc.stat(process.pid)
        return status is not None and not status.is_ending  # one that is ending has left its group

    def read_notices(self) -> None:
        """Reads what the server has said: that it is ready, or why it does not preload."""
        with self._lock:
            self._read_notices()

    def kill(self) -> None:
        """Ends a server that is stopped or stuck; those of its workers that run go on. The next start begins another."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
            self._forget()

    def ended_by_itself(self) -> bool:
        """Whether the last server that ran is gone, and not by a signal."""
        code = None if self._process is None else self._process.poll()
        return code is not None and code >= 0

    def stop(self) -> None:
        """Ends the server, and what tasks have left behind, with the program."""
        with self._lock:
            if self._process is not None:
                if self._control is not None:
                    self._control.close()
                try:
                    self._process.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            self._forget()

    def forget_in_child(self) -> None:
        """In a forked child: the server is its parent's. An open end of the lifeline would keep it after its program."""
        self._lock = threading.Lock()
        if self._control is not None:
            self._control.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
        self._process, self._control, self._lifeline, self.is_ready = None, None, -1, False

    def _start(self) -> None:
        self._forget()
        with fork_server_main.standard_streams_open():
            ours, theirs = socket.socketpair()
            their_lifeline, self._lifeline = os.pipe()
        try:
            command = fork_server_main.server_command(theirs.fileno(), their_lifeline, self._preload)
            self._process = _launched(command, (theirs.fileno(), their_lifeline))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(their_lifeline)
        self._control = ours

    def _read_notices(self) -> None:
        control = self._control
        while control is not None and is_readable(control.fileno(), 0.0):
            try:
                notice = control.recv(4096)
            except ConnectionError:  # it was killed with requests that it had not read
                return
            if not notice:
                return
            if notice.endswith(fork_server_main.READY):
                self.is_ready = True
                notice = notice.removesuffix(fork_server_main.READY)
            if notice:
                _logger.warning("%s; each worker imports that for itself", notice.decode(errors="replace"))

    def _forget(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
        self._control, self._lifeline, self.is_ready = None, -1, False


def _launched(command: list[str], descriptors: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """In a session of its own, as Ctrl-C is the coordinator's to handle; a sandbox may forbid that."""
    try:
        return subprocess.Popen(
            command, pass_fds=descriptors, stdin=subprocess.DEVNULL, start_new_session=True
        )
    except PermissionError:
        return subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL)


_servers: dict[tuple[str, ...], ForkServer] = {}
_one_at_a_time = threading.Lock()


def server_for(preload: tuple[str, ...]) -> ForkServer:
    """The server of this program that preloads these modules."""
    with _one_at_a_time:
        if preload not in _servers:
            _servers[preload] = ForkServer(preload)
        return _servers[preload]


def _stop_servers(owner_pid: int) -> None:
    if os.getpid() == owner_pid:
        for server in _servers.values():
            server.stop()


def _forget_servers() -> None:
    global _one_at_a_time  # noqa: PLW0603 - a lock copied while held would never be released
    _one_at_a_time = threading.Lock()
    for server in _servers.values():
        server.forget_in_child()
    _servers.clear()


atexit.register(_stop_servers, os.getpid())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_servers)


@contextlib.contextmanager
def main_left_alone_where_it_is_no_file() -> Iterator[None]:
    """While this lasts, workers that start do not import `<stdin>`, which would end them."""
    if not main_came_through_a_pipe() or importlib.util.find_spec("cloudpickle") is None:
        yield
        return
    main = vars(sys.modules["__main__"])
    with _one_at_a_time:
        name = main.pop("__file__", None)
        try:
            yield
        finally:
            main["__file__"] = name


def is_readable(descriptor: int, timeout_s: float | None) -> bool:
    """Waits until there is something to read, or the other end is closed."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
