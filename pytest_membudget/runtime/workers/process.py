"""One worker process: a connection, some shared memory, and what to make of its end.

Each worker stands alone, so the death of one costs the call that it ran and nothing else. One thread for all workers of a
launcher (`Replies`) reads what they send and notices their ends. Calls are written by the caller's thread where they fit
into what the system buffers, and else by a thread of the worker's own: nothing waits for a worker that is busy, stopped
or gone.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple

from pytest_membudget.measurement.process.children import descendants
from pytest_membudget.measurement.process.high_water import resident_bytes
from pytest_membudget.measurement.process.shared_pages import SharedPages
from pytest_membudget.module_origins import Arriving, off_path
from pytest_membudget.records.measurement import signal_name
from pytest_membudget.runtime.workers import drop_forgotten_modules, worker_main
from pytest_membudget.runtime.workers.channel import TICK_S, Inbox, Message, Outbox, Replies
from pytest_membudget.runtime.workers.files_in_memory import CallFiles, MachineMemory, open_files
from pytest_membudget.runtime.workers.fork_server import main_left_alone_where_it_is_no_file
from pytest_membudget.runtime.workers.fork_server_main import UNGUARDED
from pytest_membudget.runtime.workers.forked_process import ForkedProcess, ForkServerContext, default_context
from pytest_membudget.runtime.workers.process_state import Environment
from pytest_membudget.runtime.workers.process_tree import HeldGroup, end_tree
from pytest_membudget.runtime.workers.protocol import (
    Call,
    CannotStartError,
    Delay,
    Died,
    Done,
    Figures,
    Reading,
    Reply,
    Stage,
    Unpicklable,
)
from pytest_membudget.runtime.workers.serialization import (
    IN_WORKER_PROCESS,
    Report,
    name_of,
    packed_for_here,
    unpacked,
    unpicklable,
)
from pytest_membudget.runtime.workers.task_memory import HELPER_TO_COME
from pytest_membudget.runtime.workers.worker_main import Mark

_logger = logging.getLogger("pytest_membudget.runtime")

ENDING_S = 60.0
"""How long a worker may take to end after its last call."""

HUNG_S = 2.0
"""A fork server that has loaded and does not answer for so long is stopped or stuck: it is ended, another one serves."""

_UNGUARDED_TEXT = (
    "workers import the script, whose work is not guarded and would be done once more by each; put it under "
    '`if __name__ == "__main__":`'
)
_FAULTS = frozenset(
    getattr(signal, name) for name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE") if hasattr(signal, name)
)
"""Signals that a program brings upon itself. SIGABRT is not among them: libraries abort where they get no memory."""


class ProcessLauncher:
    """Starts worker processes.

    Args:
        context: how to start processes; our own fork server by default.
        initializer: called in each worker before its first call, with `initargs`.
        initargs: its arguments.
        start_timeout_s: how long a worker may take to come up.
        preload: modules that the fork server imports for all workers.
    """

    def __init__(
        self,
        context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        start_timeout_s: float | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        self._context = context
        self._initializer = initializer
        self._initargs = initargs
        self._start_timeout_s = start_timeout_s
        self._preload = tuple(preload)
        self._replies = Replies()
        self._machine = MachineMemory()

    def start(self) -> ProcessWorker:
        """A new worker process, on its way up. Waits for half a second at most.

        Raises:
            CannotStartError: no memory, threads, processes or descriptors for one, or what it needs cannot be sent to it.
        """
        try:
            _check_directory()
            drop_forgotten_modules()
            context = self._context or default_context(self._preload)
            with main_left_alone_where_it_is_no_file():
                worker = ProcessWorker(
                    context, self._initializer, self._initargs, self._machine, self._start_timeout_s
                )
            try:
                self._replies.add(worker)
            except BaseException:
                worker.kill()
                raise
        except (Exception, SystemExit) as error:
            # The system's, the standard library's or a pickle's: no function has run yet.
            raise CannotStartError(f"{type(error).__name__}: {error}") from error
        return worker


def _check_directory() -> None:
    """Makes sure that there is a working directory for the worker.

    Raises:
        OSError: the working directory is gone.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise OSError(error.errno, f"the working directory is gone ({error.strerror})") from error


class _Sent(NamedTuple):
    """A call that has no reply yet."""

    name: str
    done: Done


class ProcessWorker:
    """A process, the connection to it, and the marks by which it shows how far it has come.

    What comes from the process is handled in the launcher's thread (`Replies`), all else in the caller's.
    """

    def __init__(
        self,
        context: BaseContext,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        machine: MachineMemory,
        start_timeout_s: float | None = None,
    ) -> None:
        self._start_timeout_s = start_timeout_s
        self._coming_up: Stage = "start" if initializer is None else "initializer"
        self._marks = context.RawArray("d", len(Mark))
        self._origins = off_path()
        self._retired_s: float | None = None
        self._pages: SharedPages | None = None  # of what its calls have started
        self._machine = machine
        self._files = CallFiles(machine)
        self._lock = threading.Lock()
        self._sent: dict[int, _Sent] = {}
        self._ended = threading.Event()
        self._held = HeldGroup()
        self.channel, theirs = context.Pipe(duplex=True)
        self._outbox = Outbox(self.channel)
        self._inbox = Inbox(self.channel)
        details = (theirs, self._marks, Arriving(self._origins), Environment.of_now(), initializer, initargs)
        self._process: Any = context.Process(  # type: ignore[attr-defined] # every context has it
            target=worker_main.main,
            args=details,
            kwargs={"is_forked": isinstance(context, ForkServerContext)},
            name="membudget-worker",
        )
        try:
            self._process.start()
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()
        self._forked = self._process.forked if isinstance(self._process, ForkedProcess) else None
        self._born_s = time.monotonic()
        self._born_epoch_s = time.time()

    @property
    def pid(self) -> int | None:
        """The worker's process id, once that is known."""
        pid: int | None = self._process.pid
        return pid

    @property
    def sentinel(self) -> int:
        """A descriptor that is readable when there is something to learn of the process."""
        return int(self._process.sentinel)

    def send(self, calls: Sequence[tuple[Call, Done]]) -> None:
        """Packs the calls and hands them over."""
        self._machine.refresh()
        messages = []
        for call, done in calls:
            name = name_of(call.fn)
            try:
                packed = packed_for_here(call.fn, call.args, call.kwargs)
            except BaseException as error:
                done(Unpicklable(unpicklable(f"the arguments of {name}", error)))
                continue
            limit = (call.limit_bytes, None if call.limit_bytes is None else self._held.address())
            head = ("call", call.sequence, call.exact, packed.is_by_value, limit)
            messages.append(Message(call.sequence, head, packed.data))
            with self._lock:
                self._sent[call.sequence] = _Sent(name, done)
        # It may have ended before or since: what `give_up` has not answered is answered here.
        if self._ended.is_set():
            self.give_up()
        elif messages:
            self._write(messages)

    def _write(self, messages: Sequence[Message]) -> None:
        try:
            self._send_origins()
            self._outbox.put(messages)
        except RuntimeError as error:  # no thread to write it, or the interpreter is on its way out
            for message in messages:
                with self._lock:
                    sent = self._sent.pop(message.sequence, None)
                if sent is not None:
                    sent.done(Died(str(error), attempted=False, failed_to_start=True))

    def reading(self, sequence: int = 0) -> Reading:
        """By the marks that the worker makes on its way up and on its way to a function, and by /proc (30 µs)."""
        marks = self._marks
        is_called = marks[Mark.CALLED] == sequence
        is_ready = bool(marks[Mark.READY])
        return Reading(
            marks[Mark.CALLED_AT] if is_called else None,
            self._delay(sequence, is_ready=is_ready, is_called=is_called),
            self._held_bytes() if is_ready else 0,
            self._held.has_reached_limit(),
            self._base_bytes() if is_ready else None,
            self.pid,
            int(marks[Mark.READY_ANONYMOUS_BYTES]) if is_ready else None,
        )

    def _delay(self, sequence: int, *, is_ready: bool, is_called: bool) -> Delay | None:
        if not is_ready:
            return Delay(self._coming_up if self._marks[Mark.PID] else "start", self._born_s)
        if self._marks[Mark.STARTED] == sequence and not is_called:
            return Delay("import", self._marks[Mark.STARTED_AT])
        return None

    def _base_bytes(self) -> int:
        """What the initializer has loaded, here and in what it has started."""
        loaded_bytes = max(0, int(self._marks[Mark.READY_BYTES] - self._marks[Mark.BARE_BYTES]))
        return loaded_bytes + int(self._marks[Mark.READY_STARTED_BYTES])

    def _held_bytes(self) -> int:
        """What is resident above the ready worker, in it and in all that its calls have started."""
        if self.pid is None or self._ended.is_set():
            return 0
        now_bytes = resident_bytes(self.pid)
        grown_bytes = max(0, now_bytes - int(self._marks[Mark.READY_BYTES]))
        helper = int(self._marks[Mark.HELPER_PID])
        started = [] if helper == HELPER_TO_COME else [pid for pid in descendants(self.pid) if pid != helper]
        files_bytes = 0
        if sys.platform == "linux":
            files = open_files([self.pid, *started])
            files_bytes = files.held_bytes(self._born_epoch_s)
            sequence, began_s = int(self._marks[Mark.STARTED]), self._marks[Mark.STARTED_AT]
            if not started and sequence:
                self._files.read(self.pid, sequence, began_s, now_bytes, files)
        if not started:
            return grown_bytes + files_bytes
        if self._pages is None:
            self._pages = SharedPages()
        shares = self._pages.exact_holdings([self.pid, *started])
        # Forks have a part in what their worker holds. Its own part is less for that, and may be less than it was at first.
        own_bytes = shares.pop(self.pid, 0) - int(self._marks[Mark.READY_SHARE_BYTES])
        started_bytes = sum(shares.values()) - int(self._marks[Mark.READY_STARTED_BYTES])
        return max(0, min(grown_bytes, own_bytes) + started_bytes) + files_bytes

    def kill(self) -> None:
        """Ends the worker, its task and all that the task has started."""
        if not self._ended.is_set():
            if self.pid is not None:
                end_tree(self.pid)
            with contextlib.suppress(OSError, ValueError):
                self._process.kill()

    def retire(self) -> None:
        """Lets the worker end after the calls that it has."""
        self._retired_s = time.monotonic()
        with contextlib.suppress(RuntimeError):
            self._outbox.put([Message(0, ("stop",), b"")])

    def join(self) -> None:
        """Waits for the process; one that neither comes up nor ends in time is ended."""
        if self._start_timeout_s is not None and not self._marks[Mark.READY]:
            self._ended.wait(max(0.0, self._born_s + self._start_timeout_s - time.monotonic()))
            if not self._marks[Mark.READY]:
                self.kill()
        since_s = time.monotonic() if self._retired_s is None else self._retired_s
        if not self._ended.wait(max(0.0, since_s + ENDING_S - time.monotonic())):
            _logger.warning(
                "worker process %s had not ended %g s after its last call, and was killed: "
                "a thread that a task has left running keeps it",
                self.pid,
                ENDING_S,
            )
            self.kill()
            self._ended.wait(ENDING_S)

    def has_ended(self) -> bool:
        """Whether the process is gone, and all its calls have their replies."""
        return self._ended.is_set()

    # What follows runs in the launcher's thread.

    def receive(self) -> bool:
        """Reads what the worker has sent; False where it sends no more."""
        for sequence, report, body in self._inbox.read():
            self._outbox.was_read(sequence)
            with self._lock:
                sent = self._sent.pop(sequence, None)
            if sent is not None:
                seen = Report(*report)._replace(body=body)
                reply = _reply(self._files.added_to(seen, sequence), sent.name)
                if self._held.has_reached_limit():
                    reply = reply._replace(figures=reply.figures._replace(reached_limit=True))
                sent.done(reply)
        return not self._inbox.at_end_s

    def check_end(self) -> bool:
        """Whether the process has ended; then its calls have their replies."""
        if self._ended.is_set():
            return True
        if self._forked is not None:
            if self._forked.waits_for_server_s > HUNG_S:
                self._process.kill()
            if self._inbox.at_end_s and time.monotonic() - self._inbox.at_end_s > TICK_S:
                self._forked.ask_kernel()
        if self._process.exitcode is None:
            return False
        while connection.wait([self.channel], 0) and self.receive():
            pass
        self.give_up()
        return True

    def give_up(self) -> None:
        """Gives the calls that are left their replies: it has ended, or nothing more can be learned of it."""
        with self._lock:
            self._ended.set()
            left = list(self._sent.items())
            self._sent.clear()
        for sequence, sent in left:
            sent.done(self._died(attempted=self._marks[Mark.STARTED] >= sequence))

    def close(self) -> None:
        """Closes what was open for it."""
        self._held.close()
        self._outbox.close()
        if self._forked is not None:
            self._forked.close()

    def _send_origins(self) -> None:
        """What was loaded since the worker began: a test module of a session that collects as it runs."""
        origins = off_path()
        if origins is not self._origins:
            self._origins = origins
            self._outbox.put([Message(0, ("origins", origins), b"")])

    def _died(self, *, attempted: bool) -> Died:
        code = self._process.exitcode
        if code == UNGUARDED and not self._marks[Mark.READY]:
            return Died(_UNGUARDED_TEXT, attempted=attempted, failed_to_start=True, is_final=True)
        is_lost = self._forked is not None and self._forked.is_code_unknown
        if is_lost or code is None:
            how = "ended after its fork server was lost" if self.pid else "was lost with its fork server"
        elif code < 0:
            how = f"was killed by {signal_name(-code)}"
        else:
            how = f"ended with exit code {code}"
        by_itself = not is_lost and code is not None and code >= 0
        if self._forked is not None and self._forked.failed_to_fork:
            by_itself = True
        is_ready, initializes = bool(self._marks[Mark.READY]), self._coming_up == "initializer"
        in_initializer = initializes and not is_ready and bool(self._marks[Mark.BARE_BYTES])
        return Died(
            f"worker process {self.pid} {how}",
            attempted=attempted,
            failed_to_start=by_itself and not is_ready and not in_initializer,
            in_initializer=in_initializer,
            crashed=not is_lost and code is not None and (code >= 0 or -code in _FAULTS),
            figures=Figures(reached_limit=attempted and self._held.has_reached_limit()),
        )


def _reply(report: Report, name: str) -> Reply:
    try:
        return unpacked(report, name, IN_WORKER_PROCESS)
    except BaseException as error:
        return Unpicklable(unpicklable(f"what {name} gave back", error))
