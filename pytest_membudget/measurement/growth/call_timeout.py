"""Ends a call that goes on beyond the time limit, where Python can be interrupted at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pytest_membudget.measurement.watchdog.interrupt import may_raise_in
from pytest_membudget.originals import _thread, signal, threading, time

_AGAIN_S = 0.5


class CallTooLongError(BaseException):
    """Raised inside a call at the time limit.

    Not an `Exception`, so that `except Exception` in the function cannot swallow it; it is raised again if
    something else does.
    """


@contextmanager
def interrupted_after(limit_s: float, is_running: Callable[[], bool]) -> Iterator[bool]:
    """Raises `CallTooLongError` `limit_s` seconds from now if a call `is_running` then; yields whether it can.

    It can in the main thread, on systems with interval timers, unless somebody else's timer would ring first:
    there is one a process. C code that does not return to the interpreter is not interrupted.
    """
    if not _may_interrupt(limit_s):
        yield False
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        if is_running() and may_raise_in(frame):
            raise CallTooLongError

    previous = signal.signal(signal.SIGALRM, stop)
    begun = time.perf_counter()
    others_delay_s, others_interval_s = signal.setitimer(signal.ITIMER_REAL, limit_s, _AGAIN_S)
    try:
        yield True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if others_delay_s:
            left_s = max(0.001, others_delay_s - (time.perf_counter() - begun))
            signal.setitimer(signal.ITIMER_REAL, left_s, others_interval_s)


def _may_interrupt(limit_s: float) -> bool:
    if not hasattr(signal, "setitimer") or _thread.get_ident() != threading.main_thread().ident:
        return False
    if signal.getsignal(signal.SIGALRM) is None:  # set by C code, and could not be set back
        return False
    others_delay_s, _ = signal.getitimer(signal.ITIMER_REAL)
    return others_delay_s == 0 or others_delay_s > limit_s
