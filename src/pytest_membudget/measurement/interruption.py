"""Stopping a thread at its next bytecode, what all threads were doing then, and freeing what the stopped one held."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import signal
import sys
import threading
import traceback
from types import FrameType, TracebackType

from pytest_membudget.errors import WatchdogStop

_RUNNERS = {"_pytest", "pluggy", "pytest", "runpy", "threading"}
"""Whose frames lead to the user's code and tell nothing of it."""


def forget_frames(trace: TracebackType | None) -> None:
    """Clears the local variables of every frame of a traceback, so that what they hold is freed now.

    After a `WatchdogStop` or a `MemoryError` the traceback keeps the memory alive that the test was stopped for.
    """
    while trace is not None:
        with contextlib.suppress(RuntimeError):  # a frame that still runs keeps what it needs
            trace.tb_frame.clear()
        trace = trace.tb_next


def prepare() -> None:
    """Takes a real-time signal that nobody uses, once: unlike an asynchronous exception it interrupts a sleep."""
    if _interruption.signal is not None or not hasattr(signal, "SIGRTMAX"):
        return
    if threading.current_thread() is not threading.main_thread():
        return
    number = signal.SIGRTMAX - 5
    if signal.getsignal(number) is signal.SIG_DFL:
        signal.signal(number, _interruption.handle)
        _interruption.signal = number


class _Interruption:
    """Whether the main thread is to be stopped when the signal reaches it, and which signal that is."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.armed = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler stays for good: a signal that comes too late finds nothing to do."""
        if self.armed:
            self.armed = False
            raise WatchdogStop("the watchdog stopped this block: it took more memory than it may")


_interruption = _Interruption()


def raise_in(thread: int) -> None:
    """Raises `WatchdogStop` in a thread, at its next bytecode."""
    if thread == threading.main_thread().ident and _interruption.signal is not None:
        _interruption.armed = True
        signal.pthread_kill(thread, _interruption.signal)
    else:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(WatchdogStop))


def remind(thread: int) -> None:
    """Sends the signal again until it was heard: one that comes just before a blocking call does not wake it."""
    if _interruption.armed and _interruption.signal is not None and thread == threading.main_thread().ident:
        signal.pthread_kill(thread, _interruption.signal)


def take_back(thread: int) -> None:
    """Forgets a stop that the thread has not noticed yet."""
    if thread == threading.main_thread().ident and _interruption.signal is not None:
        _interruption.armed = False
    else:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)


def stacks() -> str:
    """What every thread was doing, as text, the main one first; without the frames that led to the user's code."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()  # noqa: SLF001 - the documented way to all stacks
    frames.pop(threading.get_ident(), None)
    main = threading.main_thread().ident
    return "\n".join(
        f"Thread {names.get(ident, ident)}:\n{''.join(_summary(frame).format())}"
        for ident, frame in sorted(frames.items(), key=lambda each: each[0] != main)
    )


def _summary(innermost: FrameType) -> traceback.StackSummary:
    walked = list(traceback.walk_stack(innermost))[::-1]
    rooms = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame, _ in walked]
    # The script that starts a runner is part of it.
    leading = (
        room in _RUNNERS or (room == "__main__" and called in _RUNNERS)
        for room, called in itertools.zip_longest(rooms, rooms[1:])
    )
    first = next((place for place, is_leading in enumerate(leading) if not is_leading), 0)
    return traceback.StackSummary.extract(iter(walked[first:]))
