"""What runs in the fork server: a fresh interpreter with the workers' code loaded, which forks a worker in milliseconds.

The coordinator sends one message for each worker, with descriptors (`SCM_RIGHTS`):

    status    the writing end of a pipe: the server writes the worker's number, and later its exit code
    payload   an open file: the process object, pickled as the standard library's `spawn` does
    lifeline  the reading end of a pipe whose other end closes when the program ends
    the rest  what the process object refers to: its connection, the resource tracker's pipe, shared memory

Nothing of the program is imported here: the script, its open files, threads and generators would be shared by all
workers. What the user names to be preloaded is checked first; where it leaves threads or open files the server starts
again without it, and says why. The server itself has one thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import itertools
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker, spawn
from typing import NoReturn

from pytest_membudget.errors import UnguardedMainError, text_of
from pytest_membudget.measurement.process import proc
from pytest_membudget.runtime.workers import process_tree, worker_main

BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from pytest_membudget.runtime.workers import fork_server_main; fork_server_main.main(*sys.argv[2:])"
)
"""What the interpreter runs: `sys.path` as JSON, the control socket, the lifeline, and the modules to preload as JSON."""

MOST_DESCRIPTORS = 250
STATUS = struct.Struct("q")
READY = b"ready"
STDERR = 2
UNGUARDED = 86
"""The exit code of a worker that the script, which it imports, would have do the whole script's work."""
SERVER_OOM_SCORE = 300
"""Above the program's, whose loss ends everything, and below the workers', of which one is repeated at most."""

_FOR_EVERY_WORKER = (
    "multiprocessing.connection",
    "multiprocessing.heap",
    "multiprocessing.sharedctypes",
    "pytest_membudget.runtime.workers.fork_server",
    "psutil",
)
_STATELESS = frozenset({"/dev/null", "/dev/urandom", "/dev/random", "/dev/zero"})


def main(control: str, lifeline: str, preload: str, *_: str) -> None:
    """Loads, then serves until the coordinator is gone."""
    # A preloaded module may never come to an end, and the program may end meanwhile.
    process_tree.kill_at_hang_up(int(lifeline), signal.SIGKILL)
    worker_main.raise_oom_score(SERVER_OOM_SCORE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with standard_streams_open(), socket.socket(fileno=int(control)) as requests:
        _load(requests, int(lifeline), tuple(json.loads(preload)))
        _Server(requests, int(lifeline)).run()


@contextlib.contextmanager
def standard_streams_open() -> Iterator[None]:
    """While this lasts, no other file gets the number of a standard stream that is closed.

    What a task's programs write to their standard output would go there.
    """
    opened: list[int] = []
    while not opened or opened[-1] <= STDERR:
        opened.append(os.open(os.devnull, os.O_RDWR))
    os.close(opened.pop())
    for number in opened:
        os.set_inheritable(number, True)
    try:
        yield
    finally:
        for number in opened:
            os.close(number)


def _load(requests: socket.socket, lifeline: int, modules: Sequence[str]) -> None:
    for name in _FOR_EVERY_WORKER:
        with contextlib.suppress(ImportError):  # psutil may be missing, and is not needed
            importlib.import_module(name)
    before = proc.open_files()
    why = _preload(modules) or (_left_behind(before) if modules else "")
    if why:
        requests.sendall(f"the fork server does not preload {', '.join(modules)}: {why}".encode())
        _start_again(requests, lifeline)
    # Left out of collections, what is here stays shared: a collection would write to every page of it.
    gc.freeze()
    requests.sendall(READY)


def _preload(modules: Sequence[str]) -> str:
    """Imports the modules; why that failed, if it did."""
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException as error:  # whatever their code raises
            return f"importing {name} raised {type(error).__name__}: {text_of(error)}"
    return ""


def _left_behind(before: dict[int, str]) -> str:
    """What forks would share by accident: threads that exist in no fork but whose locks do, and open files."""
    if threads := _threads():
        python = {thread.name for thread in threading.enumerate() if thread.name != "MainThread"}
        names = "".join(f", {name}" for name in sorted(python or set(threads)))
        return f"it left {len(threads)} thread{'s' * (len(threads) > 1)} running{names}"
    opened = [name for number, name in proc.open_files().items() if before.get(number) != name]
    shared = sorted({name for name in opened if name not in _STATELESS})
    return f"it left open: {', '.join(shared[:5])}" if shared else ""


def _threads() -> list[str]:
    """The names of this process's threads, the main one left out, and those that their owners care for at a fork.

    jemalloc (pyarrow's) and OpenBLAS (numpy's) stop and restart their threads with `pthread_atfork`.
    """
    threads = proc.thread_names()
    names, own = list(threads.values()), threads[os.getpid()]
    others = [name for name in names if name not in {own, "jemalloc_bg_thd"}]
    return others + [own] * (names.count(own) - 1 - _openblas_threads())


def _openblas_threads() -> int:
    """How many threads all loaded copies of OpenBLAS have started; they bear the program's name."""
    threads = 0
    for file in (path for path in proc.mapped_files() if "openblas" in path):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(file)
            for prefix, suffix in itertools.product(("", "scipy_"), ("", "64_")):
                ask = getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None)
                if ask is not None:
                    threads += ask() - 1
                    break
    return threads


def _start_again(requests: socket.socket, lifeline: int) -> NoReturn:
    """As a fresh interpreter on the same descriptors, which finds the requests that wait, and preloads nothing."""
    own = {0, 1, 2, requests.fileno(), lifeline}
    for number in proc.open_files():
        if number not in own:
            with contextlib.suppress(OSError):
                os.set_inheritable(number, False)
    command = server_command(requests.fileno(), lifeline, ())
    os.execv(command[0], command)  # noqa: S606 - our own interpreter


def server_command(control: int, lifeline: int, preload: Sequence[str]) -> list[str]:
    """How a fork server is started. `-P` keeps the working directory's files from standing in for Python's modules."""
    from multiprocessing import util

    flags = util._args_from_interpreter_flags()  # type: ignore[attr-defined] # noqa: SLF001 - as all pools do
    path = json.dumps(sys.path)
    program = [os.fsdecode(spawn.get_executable()), *flags, "-P", "-c", BOOTSTRAP, path]
    return [
        *program,
        str(control),
        str(lifeline),
        json.dumps(list(preload)),
        "membudget-forkserver",
    ]  # for `ps`


class _Server:
    """Forks workers and reports their ends. All state is here: the status pipe of each living worker, by its number."""

    def __init__(self, requests: socket.socket, lifeline: int) -> None:
        self._requests = requests
        self._lifeline = lifeline
        self._status: dict[int, int] = {}
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        process_tree.adopt_orphans()
        # One that is stopped has to go on to see that the program is gone.
        process_tree.kill_at_hang_up(lifeline, signal.SIGCONT)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._requests, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
                self._reap()
            if self._requests.fileno() in ready and not self._serve():
                break
        process_tree.end_descendants(os.getpid())

    def _serve(self) -> bool:
        """One request; False where the program is gone, and none can follow."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self._requests, 1, MOST_DESCRIPTORS)
        except OSError:
            return False
        if not message:
            return False
        status, payload, lifeline, *passed = descriptors
        try:
            pid = os.fork()
        except OSError as error:
            _write(status, -(error.errno or 1))
            pid = -1
        if pid == 0:
            self._close()
            os.close(status)
            _become_worker(payload, lifeline, passed)
        for descriptor in (payload, lifeline, *passed):
            os.close(descriptor)
        if pid < 0:
            os.close(status)
        else:
            self._status[pid] = status
            _write(status, pid)
        return True

    def _reap(self) -> None:
        """Reports workers that have ended, and ends what they left behind: it has become the server's child."""
        ended = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            pipe = self._status.pop(pid, None)
            if pipe is not None:
                ended = True
                _write(pipe, os.waitstatus_to_exitcode(status))
                os.close(pipe)
        if ended:
            process_tree.end_descendants(os.getpid(), keep=frozenset(self._status))

    def _close(self) -> None:
        """In a new worker: gives up what is the server's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._requests.close()
        for descriptor in (self._woken, self._wake, self._lifeline, *self._status.values()):
            os.close(descriptor)


def _become_worker(payload: int, lifeline: int, passed: list[int]) -> NoReturn:
    code = 1
    try:
        process_tree.lead_tree()
        process_tree.kill_at_hang_up(lifeline, signal.SIGKILL)
        _seed_numpy()
        inherited[:] = passed[1:]
        resource_tracker._resource_tracker._fd = passed[0]  # type: ignore[attr-defined] # noqa: SLF001 - one for the program
        code = spawn._main(payload, lifeline)  # noqa: SLF001 - what spawn's workers run
    except UnguardedMainError:
        code = UNGUARDED  # the coordinator says so once
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _seed_numpy() -> None:
    """As Python's own `random` is after each fork: a preloaded numpy would draw the same numbers in every worker."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()


def _write(pipe: int, number: int) -> None:
    with contextlib.suppress(OSError):  # the coordinator has given up that worker
        os.write(pipe, STATUS.pack(number))


inherited: list[int] = []
"""In a worker: the descriptors that came with its process object, in the order in which that refers to them."""
