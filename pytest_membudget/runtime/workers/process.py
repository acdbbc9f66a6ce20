"""One worker process: a `concurrent.futures.ProcessPoolExecutor` of one.

A pool of several breaks as a whole when one of its processes is killed. A pool of one loses the call it ran and
nothing else, and everything between the processes stays the standard library's work.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from pytest_membudget.measurement.process.high_water import resident_bytes
from pytest_membudget.origins import Arriving, install, off_path
from pytest_membudget.records.run import Level
from pytest_membudget.runtime.workers import worker_main as worker
from pytest_membudget.runtime.workers.fork_server import (
    answering_within,
    default_context,
    left_alone_where_it_is_no_file,
    let_server_end,
)
from pytest_membudget.runtime.workers.protocol import (
    Call,
    CannotStartError,
    Delay,
    Died,
    Done,
    Stage,
    Unpicklable,
)
from pytest_membudget.runtime.workers.serialization import (
    IN_WORKER_PROCESS,
    name_of,
    packed_for_here,
    unpacked,
    unpicklable,
)
from pytest_membudget.runtime.workers.stale_modules import drop_forgotten_modules
from pytest_membudget.runtime.workers.worker_main import Slot, Surroundings

_logger = logging.getLogger("pytest_membudget.runtime")

_FAULTS = frozenset(
    getattr(signal, name) for name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE") if hasattr(signal, name)
)
"""Signals that a program brings upon itself. SIGABRT is not among them: libraries abort where they get no memory."""

ENDING_S = 60.0
"""How long a worker may take to end after its last call."""


class ProcessWorker:
    """A process with the shared marks by which it tells how far it has come."""

    def __init__(
        self,
        context: BaseContext,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        start_timeout_s: float | None = None,
    ) -> None:
        self._start_timeout_s = start_timeout_s
        self._coming_up: Stage = "start" if initializer is None else "initializer"
        self._marks = context.RawArray("d", len(Slot))
        self._origins = off_path()
        self._retired_s: float | None = None
        self._pool = ProcessPoolExecutor(
            1,
            mp_context=context,
            initializer=worker.prepare,
            initargs=(
                self._marks,
                Arriving(self._origins),
                Surroundings.of_now(),
                initializer,
                initargs,
            ),
        )
        self._process: Any = None
        self._manager: threading.Thread | None = None
        # The process starts with the first call: have it on its way now, or learn that it cannot start.
        try:
            self._pool.submit(int)
        except BaseException:
            self._remember_internals()
            self.kill()
            self._pool.shutdown(wait=False)
            raise
        self._born_s = time.monotonic()  # its start has begun; a fork server's has ended
        self._remember_internals()

    @property
    def pid(self) -> int | None:
        """The worker's process id, from its start."""
        return None if self._process is None else self._process.pid

    def send(self, call: Call, done: Done) -> None:
        """Packs the call and hands it over."""
        try:
            packed = packed_for_here(call.fn, call.args, call.kwargs)
        except Exception as error:  # whatever the caller's own objects raise while they are packed
            done(Unpicklable(unpicklable(f"the arguments of {name_of(call.fn)}", error)))
            return
        try:
            self._tell_origins()
            future = self._pool.submit(worker.perform, call.sequence, call.exact, *packed)
        except BrokenProcessPool:
            done(self._died(attempted=False))
            return
        except RuntimeError as error:  # no thread for it, or the interpreter is on its way out
            done(Died(str(error), attempted=False, failed_to_start=True))
            return
        future.add_done_callback(functools.partial(self._reply, call.sequence, name_of(call.fn), done))

    def started_at(self, sequence: int) -> float | None:
        """When the worker called the function of that call."""
        return self._marks[Slot.CALLED_AT] if self._marks[Slot.CALLED] == sequence else None

    def delay(self, sequence: int) -> Delay | None:
        """By the marks that the worker makes on its way up, and on its way to a function."""
        if not self._marks[Slot.READY]:
            return Delay(self._coming_up if self._marks[Slot.PID] else "start", self._born_s)
        if self._marks[Slot.STARTED] == sequence != self._marks[Slot.CALLED]:
            return Delay("import", self._marks[Slot.STARTED_AT])
        return None

    def added_bytes(self) -> int:
        """What is resident above the bare worker."""
        if not self._marks[Slot.READY]:
            return 0
        return max(0, resident_bytes(self.pid) - int(self._marks[Slot.READY_BYTES]))

    def kill(self) -> bool:
        """Ends the worker, its task and what the task has started."""
        self._kill_group()
        if self._process is not None:
            with contextlib.suppress(OSError, ValueError):
                self._process.kill()
        return True

    def retire(self) -> None:
        """Lets the worker end after the calls that it has."""
        self._retired_s = time.monotonic()
        self._pool.shutdown(wait=False)

    def join(self) -> None:
        """Waits for the process and for the pool's thread; one that neither comes up nor ends in time is ended."""
        if self._manager is not None:
            self._wait_for_start(self._manager)
            self._wait_for_end(self._manager)
            self._manager.join()
        if self._process is not None:
            with contextlib.suppress(ValueError, AssertionError):
                self._process.join()

    def has_ended(self) -> bool:
        """Whether the process and the pool's thread are gone."""
        return self._manager is None or not self._manager.is_alive()

    def _wait_for_start(self, manager: threading.Thread) -> None:
        if self._start_timeout_s is None or self._marks[Slot.READY]:
            return
        manager.join(max(0.0, self._born_s + self._start_timeout_s - time.monotonic()))
        if not self._marks[Slot.READY]:
            self.kill()

    def _wait_for_end(self, manager: threading.Thread) -> None:
        now_s = time.monotonic()
        ends_s = (now_s if self._retired_s is None else self._retired_s) + ENDING_S
        manager.join(max(0.0, ends_s - now_s))
        if manager.is_alive():
            _logger.warning(
                "worker process %s had not ended %g s after its last call, and was killed: "
                "a thread that a task has left running keeps it",
                self.pid,
                ENDING_S,
            )
            self.kill()

    def _tell_origins(self) -> None:
        """What was loaded since the worker began: a test module of a session that collects as it runs."""
        origins = off_path()
        if origins is not self._origins:
            self._origins = origins
            self._pool.submit(install, origins)

    def _reply(self, sequence: int, name: str, done: Done, future: concurrent.futures.Future[Any]) -> None:
        """Runs in the pool's thread: what came back, unpacked."""
        try:
            reply = unpacked(future.result(), name, IN_WORKER_PROCESS)
        except BrokenProcessPool:
            self._kill_group()  # what its task has started would go on otherwise
            reply = self._died(attempted=self._marks[Slot.STARTED] >= sequence)
        except BaseException as error:
            reply = Unpicklable(unpicklable(f"what {name} gave back", error))
        done(reply)

    def _remember_internals(self) -> None:
        """The pool has no public way to its process and its thread before Python 3.14; without them we wait less."""
        self._process = next(iter((getattr(self._pool, "_processes", None) or {}).values()), None)
        self._manager = getattr(self._pool, "_executor_manager_thread", None)

    def _kill_group(self) -> None:
        if sys.platform != "win32" and self._marks[Slot.OWN_GROUP]:
            with contextlib.suppress(OSError):
                os.killpg(int(self._marks[Slot.PID]), signal.SIGKILL)

    def _died(self, *, attempted: bool) -> Died:
        code = None if self._process is None else self._process.exitcode
        if code is None:
            how = "ended"
        elif code < 0:
            how = f"was killed by {_signal_name(-code)}"
        else:
            how = f"ended with exit code {code}"
        by_itself = code is None or code >= 0
        return Died(
            f"worker process {self.pid} {how}",
            attempted=attempted,
            failed_to_start=by_itself and not self._marks[Slot.READY],
            crashed=code is not None and (code >= 0 or -code in _FAULTS),
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_SERVERS_THAT_MAY_BE_KILLED = 2


class ProcessLauncher:
    """Starts worker processes."""

    level: Level = "process"
    own_memory = True

    def __init__(
        self,
        context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        start_timeout_s: float | None = None,
    ) -> None:
        self._start_timeout_s = start_timeout_s
        self._context = context
        self._initializer = initializer
        self._initargs = initargs

    def start(self) -> ProcessWorker:
        """A new worker process, on its way up.

        Raises:
            CannotStartError: no memory, threads, processes or semaphores for one, or it cannot be told what it needs.
        """
        try:
            check_threads()
            check_directory()
            drop_forgotten_modules()
            for _ in range(_SERVERS_THAT_MAY_BE_KILLED):
                try:
                    return self._started()
                except (EOFError, ConnectionError):
                    let_server_end()  # somebody has killed it just then; there will be another
            return self._started()
        except Exception as error:
            # The system's, the standard library's or a pickle's: no function has run yet.
            raise CannotStartError(f"{type(error).__name__}: {error}") from error

    def _started(self) -> ProcessWorker:
        context = self._context or default_context()
        with answering_within(self._start_timeout_s), left_alone_where_it_is_no_file():
            return ProcessWorker(context, self._initializer, self._initargs, self._start_timeout_s)


_THREADS_PER_WORKER = 2  # the pool's manager and its queue's feeder


def check_threads() -> None:
    """Makes sure that the pool's threads can start; it would wait for ever for one that could not.

    Raises:
        RuntimeError: one of them cannot.
    """
    release = threading.Event()
    threads = []
    try:
        for _ in range(_THREADS_PER_WORKER):
            thread = threading.Thread(target=release.wait, name="membudget-probe", daemon=True)
            thread.start()
            threads.append(thread)
    finally:
        release.set()
        for thread in threads:
            thread.join()


def check_directory() -> None:
    """Makes sure that the worker can be told where it is to work.

    Raises:
        OSError: the working directory is gone.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise OSError(error.errno, f"the working directory is gone ({error.strerror})") from error
