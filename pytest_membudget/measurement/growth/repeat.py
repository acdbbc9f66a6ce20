"""Calls a function in rounds and keeps what was held after each, without growing itself.

A call that goes on beyond the time limit is interrupted where Python can be interrupted at all: on Linux by a timer of our own with a
real-time signal (`timer_create`), so that SIGALRM and its one timer stay the function's; elsewhere by that timer, unless it is set already.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from types import FrameType
from typing import Any

from pytest_membudget.measurement.growth.caches import BoundedCaches, FilledCache, shrink_databases
from pytest_membudget.measurement.growth.samples import (
    EXACT_BYTES,
    OF_SHARED_FILES,
    PAGED_ALLOWANCE_BYTES,
    PAGED_BYTES,
    FigureReader,
    Figures,
)
from pytest_membudget.measurement.growth.shared_files import Origin, origin_of_files
from pytest_membudget.measurement.thread_stacks import may_raise_in
from pytest_membudget.originals import _thread, contextlib, ctypes, os, signal, sys, threading, time
from pytest_membudget.stats.growth import Precision, Trend, next_step, trend

RESOLUTION_COUNT_PER_CALL = 0.001
_ROUND_SHARE = 1 / 20
_READING_SHARE = 0.2
_NOISY_READING_SHARE = 0.6
_CLOSER = 8
_RECENT = 24
_GOLDEN = 0.618034
_MOST_TOGETHER = 64
_TOGETHER_S = 0.0005
_CALLS_FOR_CACHES = 16
CALLS_BEYOND_DOUBT = 256
"""What hides below the allowance for whole pages is 4 KiB a call then."""

_LINUX = sys.platform.startswith("linux")
_AGAIN_S = 0.5
_CLOCK_MONOTONIC = 1
_SIGEV_SIGNAL = 0
_SIGNALS_BELOW_LAST = 6
"""The watchdog's is the one after it."""


class CallsEnded(Exception):  # noqa: N818 - the regular end of the rounds
    """No further call may be made; the message is the reason."""


class Rounds:
    """Makes the calls of one check and holds the samples.

    The samples are stored in arrays of fixed size: a list that grows would be taken for a leak of the function.
    """

    def __init__(self, call: Callable[[], Any], reader: FigureReader, timeout_s: float) -> None:
        self.calls = 0
        self.samples = 0
        self.running = False
        self.first_call_s = 0.0  # it may import and fill much
        self.slowest_call_s = 0.0  # at most: fast calls are timed together
        self._call = call
        self._reader = reader
        self._timeout_s = timeout_s
        self._capacity = 1024 + int(40 * min(timeout_s, 3600.0))
        self._at_calls = array("q", bytes(8 * self._capacity))
        self._held = {name: array("q", bytes(8 * self._capacity)) for name in Figures._fields}
        self._reading_s = 0.0
        self._caches = BoundedCaches()
        self._quiet_figure = "heap_bytes"
        self.small_blocks_grow = False  # as `trends` found last
        self._samples_before_caches = 0
        for _ in range(3):  # the first readings fill caches of their own
            self.first = self.last = reader.read()
        self._begun = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first call."""
        return time.perf_counter() - self._begun

    @property
    def counted_s(self) -> float:
        """Seconds that count in the time limit: not those that the first call took longer than any after it, to import or fill."""
        usual_s = self.slowest_call_s if self.calls > 1 else 0.0
        return self.elapsed_s - max(0.0, self.first_call_s - usual_s)

    @property
    def may_hide_growth(self) -> bool:
        """Whether few calls were made, and a child, or an allocator that shows by pages, may have used memory that it had kept."""
        shows_by_pages = self._reader.has_unknown_allocator or bool(self.last.children)
        return shows_by_pages and self.calls < CALLS_BEYOND_DOUBT

    @property
    def has_new_files(self) -> bool:
        """Whether files have appeared in `/dev/shm` since the check began."""
        return bool(self._reader.shared_files.names())

    def advance(self, most_calls: int) -> None:
        """Makes the next round of calls, at most `most_calls`, and takes a sample.

        Raises:
            CallsEnded: the time or the room for samples is used up.
        """
        left_s = self._timeout_s - self.counted_s
        if self.calls > 1 and left_s < self.slowest_call_s:
            raise CallsEnded("another one might not have fitted into the time limit")
        if self.samples == self._capacity:
            raise CallsEnded(f"{self.samples} samples, as many as are kept")
        self.make_calls(
            min(self._next_step(), max(1, most_calls)), min(left_s, self._timeout_s * _ROUND_SHARE)
        )
        self._take_sample()

    def make_calls(self, count: int, for_s: float) -> int:
        """Calls up to `count` times, and begins no call after `for_s` seconds; says how many were made.

        Looks at the clock after each call of a slow function, and after up to 64 of a fast one: this loop itself
        allocates as little as it can, for the sake of who traces allocations.
        """
        call, clock, own_life = self._call, time.perf_counter, _Process.life
        begun = before = clock()
        made, together = 0, 1
        self.running = True
        try:
            while made < count:
                together = min(together, count - made)
                for _ in repeat(None, together):
                    call()
                    if _Process.life is not own_life:
                        _end_forked_child()
                made += together
                now = clock()
                took_s, before = now - before, now
                self.slowest_call_s = max(self.slowest_call_s, took_s) if self.calls > 1 else took_s
                self.first_call_s = self.first_call_s or took_s
                if now - begun > for_s:
                    break
                together = max(1, min(2 * together, _MOST_TOGETHER, int(together * _TOGETHER_S / took_s)))
        finally:
            self.running = False
        self.calls += made
        return made

    def origin_of_files(self, for_s: float) -> Origin:
        """Where the files come from that have appeared in shared memory; unless from the calls, they are left out of all samples."""
        files = self._reader.shared_files
        origin: Origin = "others"
        with contextlib.suppress(CallTooLongError):
            origin = origin_of_files(self, files, for_s, self.elapsed_s / max(1, len(files.names())))
        if origin == "calls":
            return origin
        files.leave_files_out()
        for name in OF_SHARED_FILES:
            self._held[name] = array("q", bytes(8 * self._capacity))
        nothing = dict.fromkeys(OF_SHARED_FILES, 0)
        self.first, self.last = self.first._replace(**nothing), self.last._replace(**nothing)
        return origin

    def remember_caches(self) -> None:
        """Counts the entries of caches that state their capacity, for `filled_caches`; once."""
        if not self._caches.are_known:
            self._caches.remember()
            self._samples_before_caches = self.samples - 1

    def filled_caches(self) -> tuple[float, tuple[FilledCache, ...]]:
        """Those that have got entries since they were remembered, and what share of the growth since then their entries hold."""
        if not self._caches.are_known:
            self.remember_caches()
            with contextlib.suppress(CallTooLongError):
                self.make_calls(_CALLS_FOR_CACHES, self._timeout_s * _ROUND_SHARE)
        now = self._reader.read()
        filled = self._caches.filled()
        # What was never given back: the least of the samples since then is where the growth began.
        grown_bytes = sum(
            getattr(now, name) - min(self._held[name][self._samples_before_caches : self.samples])
            for name in (self._quiet_figure, *EXACT_BYTES[1:])
        )
        return sum(each.added * each.bytes_per_entry for each in filled) / max(1, grown_bytes), tuple(filled)

    def shrink_databases(self, least_bytes: float) -> bool:
        """Empties sqlite's caches of pages. Where that gave back so much, the last sample is read again without them."""
        before = self._reader.read()
        if not shrink_databases():
            return False
        now = self._reader.read()
        if before.heap_bytes - now.heap_bytes < max(1.0, least_bytes):
            return False
        self.last = now
        for name, value in zip(Figures._fields, now, strict=True):
            self._held[name][self.samples - 1] = value
        return True

    def held_bytes(self) -> int:
        """The heap in use now, without taking a sample."""
        return self._reader.read().heap_bytes

    @contextmanager
    def without_own_memory(self, bytes_per_call: float) -> Iterator[None]:
        """Leaves out of later samples what an instrument of the check leaves in the heap, beside `bytes_per_call` of each call made meanwhile.

        CPython 3.9 to 3.12 never frees the tracebacks of allocations that it has traced: 0.1 to 3 MiB each time.
        """
        before_bytes, calls = self.held_bytes(), self.calls
        yield
        left_bytes = self.held_bytes() - before_bytes - bytes_per_call * (self.calls - calls)
        self._reader.own_bytes += max(0, int(left_bytes))

    def trends(self, allowed_bytes: float) -> dict[str, Trend]:
        """The trend of each figure so far. Where large buffers come and go, that of the heap may be that of small blocks, which grow."""
        calls = self._at_calls[: self.samples]
        found = {
            name: trend(
                calls,
                held[: self.samples],
                allowed=allowed_bytes if is_bytes(name) else 0.0,
                precision=_precision(name),
            )
            for name, held in self._held.items()
        }
        small, heap = found.pop("small_bytes"), found["heap_bytes"]
        self.small_blocks_grow = small.direction == "growing"
        if self.small_blocks_grow and heap.direction != "growing" and heap.fallback > small.grown / 2:
            found["heap_bytes"] = small._replace(fallback=heap.fallback)
        self._quiet_figure = "small_bytes" if found["heap_bytes"] is not heap else "heap_bytes"
        return found

    def _next_step(self) -> int:
        """How many calls until the next sample: as many as `next_step` says, but so that reading takes its share only.

        The least of many samples says what a noisy function keeps: they lie closer then, and unevenly, lest they
        keep step with a buffer that is emptied regularly.
        """
        if not self.calls:
            return 1
        step, share = next_step(self.calls), _READING_SHARE
        if self.samples > _RECENT and self._fell():
            step = max(1, int(step / _CLOSER * (0.5 + self.samples * _GOLDEN % 1)))
            share = _NOISY_READING_SHARE
        call_s = max(1e-7, (self.elapsed_s - self._reading_s) / self.calls)
        worthwhile = int(self._reading_s / self.samples * (1 / share - 1) / call_s)
        return min(max(step, worthwhile), max(step, self.calls // 2))

    def _fell(self) -> bool:
        """Whether the heap fell back by more than a leak of a few bytes would explain, in the last samples."""
        recent = self._held["heap_bytes"][max(0, self.samples - _RECENT) : self.samples]
        return max(recent) - min(recent[recent.index(max(recent)) :]) > self.calls

    def _take_sample(self) -> None:
        begun = time.perf_counter()
        self.last = self._reader.read_settled(self.last)
        self._at_calls[self.samples] = self.calls
        for name, value in zip(Figures._fields, self.last, strict=True):
            self._held[name][self.samples] = value
        self.samples += 1
        self._reading_s += time.perf_counter() - begun


def is_bytes(name: str) -> bool:
    """Whether the figure of that name is in bytes, and not a count."""
    return name.endswith("_bytes")


def _precision(name: str) -> Precision:
    if name in PAGED_BYTES:
        return Precision(in_all=PAGED_ALLOWANCE_BYTES, lately=PAGED_ALLOWANCE_BYTES)
    return Precision() if is_bytes(name) else Precision(RESOLUTION_COUNT_PER_CALL, lately=0.0)


class _Process:
    """Tells a forked child from its parent: `life` is another object there."""

    life = object()

    @classmethod
    def begin_in_child(cls) -> None:
        """Runs in each forked child."""
        cls.life = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Process.begin_in_child)


def _end_forked_child() -> None:
    """Ends a copy of this process that came back from the function: it must not go on as if it were the check."""
    with contextlib.suppress(OSError):
        os.write(
            2,
            b"membudget: the checked function forked, and its child came back from it; the child ends here\n",
        )
    os._exit(0)  # noqa: SLF001 - no clean-up of the parent's may run here


class CallTooLongError(BaseException):
    """Raised inside a call at the time limit.

    Not an `Exception`, so that `except Exception` in the function cannot swallow it; it is raised again if
    something else does.
    """


@contextmanager
def interrupted_after(limit_s: float, is_running: Callable[[], bool]) -> Iterator[bool]:
    """Raises `CallTooLongError` `limit_s` seconds from now, or up to half a second after `is_running`; yields whether it can.

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
