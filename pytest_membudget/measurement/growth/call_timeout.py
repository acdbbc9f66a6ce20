"""Ends a call that goes on beyond the time limit, where Python can be interrupted at all.

On Linux by a timer of our own with a real-time signal (`timer_create`): SIGALRM and its one timer stay the function's. Elsewhere by
that timer, unless it is set already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pytest_membudget.measurement.watchdog.interrupt import may_raise_in
from pytest_membudget.originals import _thread, contextlib, ctypes, signal, sys, threading

_LINUX = sys.platform.startswith("linux")
_AGAIN_S = 0.5
_CLOCK_MONOTONIC = 1
_SIGEV_SIGNAL = 0
_SIGNALS_BELOW_LAST = 6
"""The watchdog's is the one after it."""


class CallTooLongError(BaseException):
    """Raised inside a call at the time limit.

    Not an `Exception`, so that `except Exception` in the function cannot swallow it; it is raised again if
    something else does.
    """


@contextmanager
def interrupted_after(limit_s: float, is_running: Callable[[], bool]) -> Iterator[bool]:
    """Raises `CallTooLongError` `limit_s` seconds from now if a call `is_running` then; yields whether it can.

    It can in the main thread, where there is a timer that is free. C code that does not return to the interpreter is not
    interrupted.
    """
    number = _free_signal() if _thread.get_ident() == threading.main_thread().ident else None
    if number is None:
        yield False
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        if is_running() and may_raise_in(frame):
            raise CallTooLongError

    previous = signal.signal(number, stop)
    try:
        with _ringing(number, limit_s):
            yield True
    finally:
        signal.signal(number, previous)


def _free_signal() -> int | None:
    """The signal of the timer; `None` where another handler has it already."""
    if _LINUX:
        number = signal.SIGRTMAX - _SIGNALS_BELOW_LAST
        return number if signal.getsignal(number) is signal.SIG_DFL else None
    if not hasattr(signal, "setitimer") or signal.getitimer(signal.ITIMER_REAL)[0]:
        return None
    # None: set by C code, and could not be set back.
    return None if signal.getsignal(signal.SIGALRM) is None else signal.SIGALRM


@contextmanager
def _ringing(number: int, after_s: float) -> Iterator[None]:
    """Sends the signal to this process after so many seconds, and then again and again."""
    if not _LINUX:
        signal.setitimer(signal.ITIMER_REAL, after_s, _AGAIN_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return
    library = ctypes.CDLL(None, use_errno=True)
    timer = ctypes.c_void_p()
    event = _SignalEvent(0, number, _SIGEV_SIGNAL)
    times = _TimerTimes(*_whole_and_rest(_AGAIN_S), *_whole_and_rest(after_s))
    with contextlib.ExitStack() as stack:
        if library.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) == 0:
            stack.callback(library.timer_delete, timer)
            library.timer_settime(timer, 0, ctypes.byref(times), None)
        yield


def _whole_and_rest(seconds: float) -> tuple[int, int]:
    whole = int(seconds)
    return whole, max(int(not whole), int((seconds - whole) * 1e9))


class _SignalEvent(ctypes.Structure):
    """`struct sigevent` of Linux: 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


class _TimerTimes(ctypes.Structure):
    """`struct itimerspec`: the interval, then the time until the first ring."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "after_s", "after_ns"))
