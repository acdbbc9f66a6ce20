"""The threads of this process: stopping one at its next bytecode, freeing what it held, and what each is doing, as text.

```text
led_here = frames_of(sys._getframe())         # when the block begins
text = stacks(thread, led_here)               # from another thread, while the block runs
```
Of a stack the user's lines are shown, and of the libraries between them the ends. A frame is a library's where its file lies in
the standard library, in a folder of installed packages or in this package. Threads without a frame of the user's are counted
and not shown.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType

from pytest_membudget.errors import WatchdogStop
from pytest_membudget.originals import (
    _thread,
    contextlib,
    ctypes,
    itertools,
    logging,
    os,
    signal,
    sys,
    threading,
    traceback,
)
from pytest_membudget.units import format_count

_LOGGING = logging.getLevelName.__code__.co_filename

_LIBRARIES = tuple(
    os.path.join(folder, "")
    for folder in (
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(__file__).parents[1]),
    )
)
_INSTALLED = {"site-packages", "dist-packages"}

_ENDS = 2
"""So many frames of libraries in a row are shown whole; of more the ends."""
_MOST_FRAMES = 24
"""So many frames of the user's in a row are shown whole."""


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


def frames_of(innermost: FrameType | None) -> list[FrameType]:
    """The frames of one stack, the outermost first."""
    return [frame for frame, _ in traceback.walk_stack(innermost)][::-1] if innermost is not None else []


def stacks(thread: int, led_here: Sequence[FrameType] = ()) -> str:
    """What `thread` is doing, and each other thread but the calling one that runs code of the user's.

    Args:
        thread: the identifier of the thread that is spoken of.
        led_here: the frames in which it began; what lies outside of the innermost of them is left out.
    """
    names = {each.ident: each.name for each in threading.enumerate()}
    running = sys._current_frames()  # noqa: SLF001 - the documented way to all stacks
    running.pop(threading.get_ident(), None)
    parts = []
    if (own := running.pop(thread, None)) is not None:
        parts.append(f"It was doing this, newest call last:\n{_text(_since(led_here, frames_of(own)))}")
    others = {ident: frames_of(frame) for ident, frame in running.items()}
    busy = {ident: frames for ident, frames in others.items() if not all(map(_is_library, frames))}
    parts += [
        f"Meanwhile thread {names.get(ident, ident)}:\n{_text(frames)}" for ident, frames in busy.items()
    ]
    if quiet := len(others) - len(busy):
        parts.append(f"Left out: {format_count(quiet, 'thread')} in library code alone.\n")
    return "\n".join(parts)


def _since(led_here: Sequence[FrameType], frames: Sequence[FrameType]) -> Sequence[FrameType]:
    """From the innermost frame that both have, which says where the block stands."""
    common = sum(
        1 for _ in itertools.takewhile(lambda pair: pair[0] is pair[1], zip(led_here, frames, strict=False))
    )
    return frames[max(0, common - 1) :]


def _text(frames: Sequence[FrameType]) -> str:
    """From the first frame of the user's on; from the first at all where there is none."""
    owners = list(map(_is_library, frames))
    first = owners.index(False) if False in owners else 0
    return "".join(
        line
        for is_library, run in itertools.groupby(frames[first:], key=_is_library)
        for line in _run_lines(list(run), is_library=is_library)
    )


def _run_lines(run: list[FrameType], *, is_library: bool) -> Iterator[str]:
    head, tail = (1, 1) if is_library else (_MOST_FRAMES // 4, _MOST_FRAMES - _MOST_FRAMES // 4)
    if len(run) <= (_ENDS if is_library else _MOST_FRAMES):
        head, tail = len(run), 0
    between = run[head : len(run) - tail]
    yield from _lines(run[:head])
    if between:
        rooms = dict.fromkeys(str(each.f_globals.get("__name__", "?")).partition(".")[0] for each in between)
        yield f"  ... {len(between)} more in {', '.join(rooms)}\n"
    yield from _lines(run[len(run) - tail :])


def _lines(frames: Sequence[FrameType]) -> list[str]:
    return traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames).format()


def _is_library(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith((*_LIBRARIES, "<frozen ")) or not _INSTALLED.isdisjoint(Path(file).parts)
