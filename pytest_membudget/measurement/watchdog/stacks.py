"""What the threads of this process are doing, as text: the user's lines, and of the libraries between them the ends.

```text
led_here = frames_of(sys._getframe())         # when the block begins
told = stacks(thread, led_here)               # from another thread, while the block runs
```
A frame is a library's where its file lies in the standard library, in a folder of installed packages or in this
package. Threads without a frame of the user's are counted and not shown.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from pytest_membudget.originals import itertools, os, sys, threading, traceback
from pytest_membudget.units import format_count

_LIBRARIES = tuple(
    os.path.join(folder, "")
    for folder in (
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(__file__).parents[2]),
    )
)
_INSTALLED = {"site-packages", "dist-packages"}

_ENDS = 2
"""So many frames of libraries in a row are shown whole; of more the ends."""
_MOST_FRAMES = 24
"""So many frames of the user's in a row are shown whole."""


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
    told = []
    if (own := running.pop(thread, None)) is not None:
        told.append(f"It was doing this, newest call last:\n{_text(_since(led_here, frames_of(own)))}")
    others = {ident: frames_of(frame) for ident, frame in running.items()}
    busy = {ident: frames for ident, frames in others.items() if not all(map(_is_library, frames))}
    told += [
        f"Meanwhile thread {names.get(ident, ident)}:\n{_text(frames)}" for ident, frames in busy.items()
    ]
    if quiet := len(others) - len(busy):
        told.append(f"Left out: {format_count(quiet, 'thread')} in library code alone.\n")
    return "\n".join(told)


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
