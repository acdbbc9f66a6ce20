"""Stopping a thread at its next bytecode, and freeing what it held."""

from __future__ import annotations

from types import FrameType, TracebackType

from pytest_membudget.errors import WatchdogStop
from pytest_membudget.originals import _thread, contextlib, ctypes, logging, signal, threading


def forget_frames(trace: TracebackType | None) -> None:
    """Clears the local variables of every frame of a traceback, so that what they hold is freed now.

    After a `WatchdogStop` or a `MemoryError` the traceback keeps the memory alive that the test was stopped for.
    It then ends where the block was: in none of our frames.
    """
    while trace is not None:
        if trace.tb_next is not None and trace.tb_next.tb_frame.f_code is _Interruption.handle.__code__:
            trace.tb_next = None
        with contextlib.suppress(RuntimeError):  # a frame that still runs keeps what it needs
            trace.tb_frame.clear()
        trace = trace.tb_next


_LOGGING = logging.getLevelName.__code__.co_filename


def may_raise_in(frame: FrameType | None) -> bool:
    """Whether a signal's handler may raise where it was called.

    Not in logging: between taking a lock and the block that gives it back, or in what it does after a fork, an exception
    would leave the lock taken, and the next thread that logs would wait for ever.
    """
    return frame is None or frame.f_code.co_filename != _LOGGING


def prepare() -> None:
    """Reserves a real-time signal that is free, once. Unlike an asynchronous exception it ends a sleep.

    Without one (in another thread than the main one, on Windows, or where the signal is taken) `raise_in` uses such an
    exception.
    """
    if _interruption.signal is not None or not hasattr(signal, "SIGRTMAX"):
        return
    if _thread.get_ident() != threading.main_thread().ident:
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
        if self.armed and may_raise_in(frame):  # else the next reminder does
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
