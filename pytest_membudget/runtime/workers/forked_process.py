"""One process from our fork server, as `multiprocessing` sees processes: a context, a process object, a Popen.

The process object travels as the standard library's `spawn` packs it, so locks, queues and connections of
`multiprocessing` may be in an initializer's arguments. Unlike the standard library's, a start does not wait for the
server, and a process outlives its server: the kernel then reports its end (`pidfd_open`).
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from multiprocessing import context, process, reduction, resource_tracker, spawn
from multiprocessing.context import BaseContext
from typing import IO, Any

from pytest_membudget.runtime.workers import fork_server_main
from pytest_membudget.runtime.workers.fork_server import ForkServer, is_readable, server_for

ANSWER_S = 0.5
"""How long a start waits for the answer of a server that has loaded; it may also come later."""

LOST = 255
"""The exit code of a process whose server, which alone would know it, was lost before."""


def default_context(preload: Sequence[str] = ()) -> BaseContext:
    """The fork server's context, or `spawn` where there is none, or it lives in another control group.

    Args:
        preload: modules that the server imports for all workers, which then share their memory.
    """
    if sys.platform == "linux":
        server = server_for(tuple(preload))
        if not server.lives_elsewhere():  # what it forks would be charged to its own group
            return ForkServerContext(server)
    return multiprocessing.get_context("spawn")


class ForkServerContext(BaseContext):
    """A context of `multiprocessing` whose processes come from a server of ours."""

    _name = "forkserver"

    def __init__(self, server: ForkServer) -> None:
        self.server = server

    def Process(self, *args: Any, **kwargs: Any) -> ForkedProcess:  # type: ignore[override,unused-ignore] # noqa: N802 - a context's name for it
        """A process that has not started yet."""
        return ForkedProcess(self.server, *args, **kwargs)


class ForkedProcess(process.BaseProcess):
    """A process that the server forks. `pid` is `None` until the server has answered, which `start` does not wait for."""

    _start_method = None  # the program's own default holds in it as well
    _popen: Forked

    def __init__(self, server: ForkServer, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._server: ForkServer | None = server
        # billiard's (celery's) processes have a key of its own type, which refuses to travel by anyone else.
        self._config["authkey"] = process.AuthenticationString(process.current_process().authkey)  # type: ignore[attr-defined]

    def start(self) -> None:
        """Asks the server for it.

        A daemonic process, as each of a `multiprocessing.Pool` is, may have no children, since these would outlive it.
        Ours end with it, whatever ends it: they are held by their lifelines.
        """
        own = process.current_process()._config  # type: ignore[attr-defined] # noqa: SLF001 - no other way
        is_daemon = own.pop("daemon", None)
        self._config.pop("daemon", None)  # type: ignore[attr-defined]
        try:
            super().start()
        finally:
            if is_daemon is not None:
                own["daemon"] = is_daemon

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_server": None}

    def _Popen(self, _: process.BaseProcess) -> Forked:  # noqa: N802 - the name that the base class calls
        assert self._server is not None
        return Forked(self._server, self)

    @property
    def forked(self) -> Forked:
        """The process as the server has answered for it; there once it was started."""
        return self._popen

    def kill(self) -> None:
        """Ends the process, or the server that does not answer."""
        if self._popen.pid is None and self._popen.returncode is None and self._server is not None:
            self._server.kill()
        super().kill()


class Forked:
    """What `multiprocessing` calls a Popen.

    `sentinel` is readable when there is something to learn by `poll`: the process's number, its end, or that the server
    was lost. It is a pipe from the server first, and after its loss the kernel's descriptor of the process. Any thread may
    ask: `multiprocessing` asks all processes of the program at each start, and for `active_children`.
    """

    method = "forkserver"

    def __init__(self, server: ForkServer, process_object: process.BaseProcess) -> None:
        self.returncode: int | None = None
        self.pid: int | None = None
        self.failed_to_fork = False
        self.is_code_unknown = False
        self._server = server
        self._passed: list[int] = []
        self._received = b""
        self._is_told_by_kernel = False
        self._asked_s = time.monotonic()
        self._lock = threading.RLock()
        self.sentinel, status = os.pipe()
        their_lifeline, self._lifeline = os.pipe()
        _open.add(self)
        try:
            with self._packed(process_object) as payload:
                tracker = resource_tracker.getfd() or 0
                server.fork([status, payload.fileno(), their_lifeline, tracker, *self._passed])
        except BaseException:
            self.close()
            raise
        finally:
            os.close(status)
            os.close(their_lifeline)
        if server.is_ready and is_readable(self.sentinel, ANSWER_S):
            self._read()
        if self.failed_to_fork:
            self.close()
            raise OSError(-(self.returncode or 0), os.strerror(-(self.returncode or 0)))

    class DupFd:
        """A descriptor on its way in the process object: as its place among those that are sent along."""

        def __init__(self, place: int) -> None:
            self.place = place

        def detach(self) -> int:
            """The descriptor, in the worker."""
            return fork_server_main.inherited[self.place]

    def duplicate_for_child(self, descriptor: int) -> int:
        """Called while the process object is pickled, with a descriptor that is to be sent along; its place."""
        self._passed.append(descriptor)
        return len(self._passed) - 1

    @property
    def waits_for_server_s(self) -> float:
        """How long a server that has loaded does not answer; 0 once it has."""
        if self.pid is not None or self.returncode is not None:
            return 0.0
        if not self._server.is_ready:
            self._server.read_notices()
            self._asked_s = time.monotonic()
        return time.monotonic() - self._asked_s

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """The exit code once it is known; with a `flag` of 0 it is waited for."""
        return self.wait(0.0 if flag else None)

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code; `None` where the process has not ended within `timeout` seconds."""
        end_s = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left_s = None if end_s is None else max(0.0, end_s - time.monotonic())
            sentinel = self.sentinel
            # Not under the lock, which a thread that waits would keep from all others.
            if sentinel >= 0 and not is_readable(sentinel, left_s):
                return None
            self._read()
        return self.returncode

    def kill(self) -> None:
        """Sends SIGKILL, unless the process has ended."""
        if self.poll() is None and self.pid is not None:
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)

    terminate = kill

    def close(self) -> None:
        """Closes the lifeline, which ends a process that still runs, and the sentinel."""
        with self._lock:
            if self.returncode is None:
                self.returncode = LOST
            for name in ("_lifeline", "sentinel"):
                descriptor = getattr(self, name)
                setattr(self, name, -1)
                if descriptor >= 0:
                    os.close(descriptor)

    def _packed(self, process_object: process.BaseProcess) -> IO[bytes]:
        """The process object, and how to prepare for it, in a file without a name: a pipe could be full."""
        packed = io.BytesIO()
        preparation = spawn.get_preparation_data(process_object.name)
        preparation["authkey"] = process_object.authkey
        context.set_spawning_popen(self)  # type: ignore[arg-type] # another class of the same kind
        try:
            reduction.dump(preparation, packed)
            reduction.dump(process_object, packed)
        finally:
            context.set_spawning_popen(None)
        file = _unnamed_file()
        file.write(packed.getbuffer())
        file.seek(0)
        return file

    def _read(self) -> None:
        """Reads what `sentinel` has, unless another thread has read it since."""
        with self._lock:
            if self.returncode is None and is_readable(self.sentinel, 0.0):
                self._read_status()

    def _read_status(self) -> None:
        if self._is_told_by_kernel:
            self._end_unknown()
            return
        size = fork_server_main.STATUS.size
        received = os.read(self.sentinel, size)  # whole: the server writes so much at once
        if not received:
            self._lost_server()
            return
        (number,) = fork_server_main.STATUS.unpack(received)
        if self.pid is not None:
            self.returncode = number
        elif number > 0:
            self.pid = number
            self._server.read_notices()
        else:
            self.returncode, self.failed_to_fork = number, True

    def _end_unknown(self) -> None:
        self.returncode, self.is_code_unknown = LOST, True

    def _lost_server(self) -> None:
        if self.pid is None:
            self.failed_to_fork = self._server.ended_by_itself()
            self._end_unknown()
        else:
            self.ask_kernel()

    def ask_kernel(self) -> None:
        """Makes `sentinel` the kernel's own descriptor of the process, readable once that has ended: the server may be stopped."""
        with self._lock:
            if self.pid is None or self.returncode is not None:
                return
            try:
                told_by_kernel = os.pidfd_open(self.pid)
            except (OSError, AttributeError):  # it has ended, or this kernel has no such descriptors
                self._end_unknown()
                return
            os.dup2(told_by_kernel, self.sentinel, inheritable=False)
            os.close(told_by_kernel)
            self._is_told_by_kernel = True


def _unnamed_file() -> IO[bytes]:
    try:
        return os.fdopen(os.memfd_create("membudget-worker"), "w+b")
    except (OSError, AttributeError):  # a sandbox forbids it
        return tempfile.TemporaryFile()


_open: weakref.WeakSet[Forked] = weakref.WeakSet()


def _close_lifelines() -> None:
    """In a forked child of the program: an open end would keep its workers after its end."""
    for forked in list(_open):
        if forked._lifeline >= 0:  # noqa: SLF001 - of this file
            os.close(forked._lifeline)  # noqa: SLF001 - likewise
            forked._lifeline = -1  # noqa: SLF001 - likewise
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_lifelines)
