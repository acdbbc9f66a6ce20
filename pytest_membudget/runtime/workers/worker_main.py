"""What runs inside a worker process. Imports little: every worker pays for it.

1. `main` makes the process a worker: the head of its own process tree, with the coordinator's environment and the
   caller's initializer run.
2. Calls arrive one after the other through one connection; `run_call` runs each and measures it.
3. Reports go back through the same connection. What is known of a worker that was killed is in the shared `marks`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from enum import IntEnum
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from typing import Any

from pytest_membudget.errors import text_of
from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.process.high_water import resident_bytes
from pytest_membudget.module_origins import Arriving, install
from pytest_membudget.runtime.workers import process_tree
from pytest_membudget.runtime.workers.channel import receive, send
from pytest_membudget.runtime.workers.process_state import Environment, ProcessState
from pytest_membudget.runtime.workers.process_tree import HeldCalls
from pytest_membudget.runtime.workers.serialization import (
    Pack,
    Packed,
    PacksAnswer,
    Report,
    by_name,
    by_value,
    packed_error,
    packed_text,
    trace_of,
)
from pytest_membudget.runtime.workers.task_memory import HeapReader, TaskMemory, TaskTree

_logger = logging.getLogger("concurrent.futures")

WORKER_OOM_SCORE = 500
"""What is added to a worker's share of memory, in thousandths, when the kernel looks for a process to end."""


class Mark(IntEnum):
    """Places in the memory that a worker shares with the coordinator, each a float.

    They survive the worker: after a kill they say which call it had begun.
    """

    PID = 0
    READY = 1
    READY_BYTES = 2  # resident when it was ready
    STARTED = 3  # sequence of the last call it began
    STARTED_AT = 4  # on time.monotonic's clock, which processes of one machine share
    CALLED = 5  # sequence of the last call whose function it has called: it had been imported then
    CALLED_AT = 6
    HELPER_PID = 7  # what watches the tree of its calls, once there is one; no part of them
    BARE_BYTES = 8  # resident before the initializer
    READY_ANONYMOUS_BYTES = 9  # of what was resident when it was ready, what belonged to no file
    READY_SHARE_BYTES = 10  # when it was ready, with its part in pages that others have as well
    READY_STARTED_BYTES = 11  # what the initializer had started held then


class WorkerState:
    """What a worker knows of itself: its marks, what it holds, and whether its initializer failed.

    `heap` reads what it holds from task to task, and `tree` measures what calls start, where all that happens in the
    process is ours; then `held` has the kernel hold the limits of calls.
    """

    __slots__ = ("heap", "held", "initializer_error", "marks", "memory", "process", "tree")

    def __init__(self, marks: Any, heap: HeapReader | None = None, tree: TaskTree | None = None) -> None:
        self.marks = marks
        self.heap = heap
        self.tree = tree
        self.held = HeldCalls()
        self.initializer_error: bytes | None = None

    def initialize(
        self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...], pack: Pack = by_name
    ) -> None:
        """Runs the caller's initializer, whose exception is kept as `pack` packs it; then the worker is ready."""
        if initializer is not None:
            try:
                initializer(*initargs)
            except BaseException as error:  # the caller's: it travels back with the first call
                _logger.critical("Exception in initializer:", exc_info=True)
                self.initializer_error = packed_error(error, pack)
        self.process = ProcessState.of_now()
        self.memory = TaskMemory(self.tree)
        self.marks[Mark.READY_BYTES] = self.memory.ready_bytes
        sizes = proc.sizes("self")
        ready_bytes = self.memory.ready_bytes if sizes is None else sizes.anonymous_bytes
        self.marks[Mark.READY_ANONYMOUS_BYTES] = ready_bytes
        self.marks[Mark.READY_SHARE_BYTES] = proc.proportional_bytes("self") or self.memory.ready_bytes
        self.marks[Mark.READY_STARTED_BYTES] = 0 if self.tree is None else self.tree.leave_out_others()
        self.marks[Mark.READY] = 1


def main(
    channel: Connection,
    marks: Any,
    _arrived: Arriving | None,  # installed as it was unpickled, before the initializer that may need it
    environment: Environment,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    *,
    is_forked: bool,
) -> None:
    """Runs calls until the coordinator says that there are no more, or is gone.

    Args:
        channel: where calls come from and reports go to.
        marks: memory shared with the coordinator, a float for each `Mark`.
        environment: the coordinator's.
        initializer: the caller's.
        initargs: its arguments.
        is_forked: whether the fork server has made this process the head of its tree already, and tied it to the program.
    """
    marks[Mark.PID] = os.getpid()
    if not is_forked:
        process_tree.lead_tree()
        _end_with_parent()
    raise_oom_score(WORKER_OOM_SCORE)
    environment.take_over()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=channel.close)  # an open end would hide this worker's own end
    state = WorkerState(
        marks, heap=_heap_reader(), tree=watched_tree(lambda pid: marks.__setitem__(Mark.HELPER_PID, pid))
    )
    marks[Mark.BARE_BYTES] = resident_bytes()
    state.initialize(initializer, initargs)
    del initializer, initargs
    _run_calls(state, channel)
    # As at the end of a program, pools that tasks have kept end first. `multiprocessing` would join their processes
    # before, which wait for more work.
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - it has no public name


def _run_calls(state: WorkerState, channel: Connection) -> None:
    """Until the coordinator says that there are no more, or is gone."""
    while True:
        try:
            kind, *details = receive(channel)
        except (EOFError, OSError):
            return
        if kind == "stop":
            return
        if kind == "origins":
            install(details[0])
            continue
        sequence, exact, is_by_value, limit, data = details
        state.held.begin(*limit, has_helper=state.marks[Mark.HELPER_PID] > 0)
        report = run_call(state, sequence, Packed(data, is_by_value), exact=exact)
        del details, data
        is_restored = state.process.restore()
        try:
            # As a plain tuple: the name of its class would cost each short call more than all figures in it.
            send(channel, (sequence, tuple(report._replace(body=b""))), report.body)
        except OSError:  # the coordinator has given this worker up
            return
        del report
        if not is_restored:  # another worker runs what comes next
            return


def run_call(state: WorkerState, sequence: int, call: Packed, *, exact: bool = True) -> Report:
    """Runs one call and measures it; only the worker's death keeps it from returning."""
    if state.initializer_error is not None:
        return Report("initializer", state.initializer_error)
    heap = None if state.heap is None else state.heap.before_task(len(call.data))
    state.memory.begin(exact=exact)
    began = time.monotonic()
    state.marks[Mark.STARTED_AT] = began
    state.marks[Mark.STARTED] = sequence
    ending, body = _outcome(state.marks, sequence, call)
    duration_s = time.monotonic() - began
    return Report(ending, body, duration_s, *state.memory.end(), heap)


def _outcome(marks: Any, sequence: int, call: Packed) -> tuple[str, bytes]:
    """How the call ended and what came of it; nothing of it is left alive here."""
    try:
        fn, args, kwargs = pickle.loads(call.data)  # noqa: S301 - packed by our own coordinator
    except MemoryError:
        return "memory", b""
    except BaseException as error:
        return "arguments", packed_text(error)
    marks[Mark.CALLED_AT] = time.monotonic()
    marks[Mark.CALLED] = sequence
    pack = by_value if call.is_by_value else by_name
    return _called(fn, args, kwargs, fn.pack_answer if isinstance(fn, PacksAnswer) else pack)


def _called(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], pack: Pack
) -> tuple[str, bytes]:
    try:
        value = fn(*args, **kwargs)
    except MemoryError as error:
        traceback.clear_frames(error.__traceback__)
        return "memory", b""
    except BaseException as error:  # the caller's own, whatever it is
        return _error_outcome(error, pack)
    try:
        return "returned", pack(value)
    except MemoryError:
        return "memory", b""
    except BaseException as error:
        return "result", packed_text(error, f"a {type(value).__qualname__}")


def _error_outcome(error: BaseException, pack: Pack) -> tuple[str, bytes]:
    try:
        return "raised", packed_error(error, pack)
    except MemoryError:
        return "memory", b""
    except BaseException as why:
        subject = f"{type(error).__qualname__}: {text_of(error)}"
        return "exception", pickle.dumps((subject, f"{type(why).__name__}: {text_of(why)}", trace_of(error)))


def run_chunk(fn: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    """Calls of one task, one after the other: what `map` sends with a `chunksize`."""
    return [fn(*arguments) for arguments in chunk]


def _heap_reader() -> HeapReader | None:
    """What reads the heap from task to task; `None` where a sandbox forbids what it needs."""
    try:
        return HeapReader()
    except OSError:
        return None


def watched_tree(tell_helper: Callable[[int], None]) -> TaskTree | None:
    """What measures the trees of calls of this process; `None` where the system has no /proc to see them by.

    Args:
        tell_helper: as in `TaskTree`.
    """
    if sys.platform != "linux":
        return None
    tree = TaskTree(tell_helper)
    tree.watch_starts()
    return tree


def raise_oom_score(score: int) -> None:
    """Has the kernel's OOM killer prefer this process to the coordinator: it loses one task, the coordinator all."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            if int(os.read(descriptor, 16)) < score:
                os.write(descriptor, b"%d" % score)
        finally:
            os.close(descriptor)


def _end_with_parent() -> None:
    """Ends this worker, and what its tasks have started, when the coordinator is gone, however that came about."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        process_tree.end_descendants(os.getpid())
        if sys.platform != "win32" and os.getpgid(0) == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    with contextlib.suppress(RuntimeError):  # no thread to be had: the end of the connection ends it as well
        threading.Thread(target=watch, name="membudget-parent", daemon=True).start()
