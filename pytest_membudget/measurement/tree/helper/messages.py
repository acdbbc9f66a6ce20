"""What the measured process and its helper say to each other: one record a message, one line of JSON a record.

Commands go down one pipe, answers come up another, and events of the watchdog a third, since they come unasked.

A message through a pipe wakes the helper, and that costs the measured process up to 0.1 ms each time. Most blocks start
no process, and the helper is not needed. So a block of a process alone is written into a file in memory, the note, and
erased at its end; the helper reads the note a hundred times a second. What happened before that reading follows from the
note: it has what the root held at the start, and how many faults of dead children were on its account then.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from .shared_memory import SharedReading

_LAYOUT = struct.Struct("=QQQQQQQQQQqQ")
"""The key at both ends shows a reader that it came in the middle: the last is written before the first, and wiped before it."""
_KEY = struct.Struct("=Q")
_REST = struct.Struct("=QQQQQQQQQqQ")


class Start(NamedTuple):
    """The root and the machine's shared memory at the start of a block. Sizes are bytes."""

    resident_bytes: int
    shared_bytes: int  # of those, in files and shared memory
    reaped_faults: int  # page faults of its dead children
    own_faults: int  # and its own
    mapped_bytes: int = 0  # shared memory that it maps
    files_bytes: int = 0  # the machine's, as `SharedReading` has them
    total_bytes: int = 0
    swapped_bytes: int = 0
    group_bytes: int = -1

    @property
    def shared(self) -> SharedReading:
        """The machine's shared memory."""
        return SharedReading(self.files_bytes, self.total_bytes, self.swapped_bytes, self.group_bytes)


class Limits(NamedTuple):
    """What ends a block while it runs. Sizes are bytes."""

    block_bytes: int | None = None  # above the start
    total_bytes: int | None = None  # of the whole tree
    grace_s: float = 0.0  # from the event until the helper ends the process itself
    #: a command that is run before, with the facts as JSON on its standard input
    last_words: list[str] | None = None
    directory: str = ""  # where that runs
    environment: dict[str, str] | None = None


class Begin(NamedTuple):
    """A block begins. `alone`: the root as it was then, where it had no children; else the tree is read now."""

    key: int
    interval_s: float | None = None  # between two scans at rest
    limits: Limits | None = None
    alone: Start | None = None
    shared: SharedReading | None = None  # the machine's shared memory, where `alone` does not have it
    answer: bool = False  # whether to answer `Begun` once the tree was read


class End(NamedTuple):
    """A block has ended; with `answer` the helper sends its `Summary`."""

    key: int
    answer: bool = False


class Quit(NamedTuple):
    """The helper is to end."""


class Ready(NamedTuple):
    """The first answer: the helper has read the tree, or why it cannot."""

    pid: int = 0
    members: int = 0
    hides_huge_pages: bool = False  # whether the machine may hand out huge pages and does not show how many
    failure: str = ""


class Begun(NamedTuple):
    """The tree was read; how many processes it has."""

    members: int


class Unknown(NamedTuple):
    """There is no such block."""

    key: int


class Summary(NamedTuple):
    """What was seen of the whole tree of one block. Sizes are bytes."""

    peak_low_bytes: int  # proven above the start
    peak_high_bytes: int  # at most, above the start
    total_low_bytes: int  # proven, with the start
    start_bytes: int
    end_bytes: int
    seen: Sequence[tuple[int, int]]  # process and the most that it was seen to hold
    names: Sequence[tuple[int, str]] = ()  # process and program
    timeline: Sequence[tuple[float, int]] = ()  # seconds and bytes after the start
    start_file_bytes: int = 0  # of the start, what the tree mapped of files
    #: what others never fell below; `None` where none was there at the start
    others_floor_bytes: int | None = None
    missed_bytes: int = 0  # at most so much was held by processes that ended before they could be read
    by_marks_bytes: int = 0  # what the marks of living children prove of `peak_low_bytes`
    floor_bytes: int = 0  # what this process held throughout and no child of it can have shared
    hidden_bytes: int = 0  # what a fork that no scan saw may have had beside what this process had
    shared_high_bytes: int = 0  # shared memory that was added and that no process of the tree maps, at most
    shared_total_low_bytes: int = 0  # what the tree and all of that are seen to have added together
    members: int = 1  # processes at the end
    interval_s: float | None = None  # between two scans at rest

    @property
    def sizes(self) -> dict[int, int]:
        """By process: the most that it was seen to hold."""
        return dict(self.seen)


class Exceeded(NamedTuple):
    """An event: a limit is proven to be exceeded. `killed`: by a child, which the helper has killed."""

    key: int
    killed: bool
    peak_bytes: int
    total_bytes: int
    pid: int
    name: str = ""


Message = Begin | End | Quit | Ready | Begun | Unknown | Summary | Exceeded
_KINDS = {kind.__name__: kind for kind in (Begin, End, Quit, Ready, Begun, Unknown, Summary, Exceeded)}
_NESTED = {"limits": Limits, "alone": Start, "shared": SharedReading}


def encode(message: Message, dumps: Any = json.dumps) -> bytes:
    """One line. `dumps` is `json.dumps`, given by a process whose tests may have replaced it."""
    return dumps([type(message).__name__, *message]).encode() + b"\n"  # type: ignore[no-any-return]


def decode(line: bytes, loads: Any = json.loads) -> Message:
    """The record of one line."""
    name, *values = loads(line)
    kind = _KINDS[name]
    message: Message = kind(*values)
    nested = {
        field: record(*value)
        for field, record in _NESTED.items()
        if (value := getattr(message, field, None)) is not None
    }
    return message._replace(**nested) if nested else message


class Note(NamedTuple):
    """A block that was begun at `start_ns` (`time.monotonic_ns`)."""

    key: int
    start_ns: int
    start: Start


class NoteWriter:
    """The root's side: the file behind `descriptor` as memory, since to leave a note there takes no system call.

    Raises:
        OSError: the file cannot be mapped.
    """

    def __init__(self, descriptor: int) -> None:
        os.ftruncate(descriptor, _LAYOUT.size)
        self._page = mmap.mmap(descriptor, _LAYOUT.size)
        self.wipe()  # so that no block pays for the page

    def write(self, note: Note) -> None:
        """Leaves a note where there is none."""
        _REST.pack_into(self._page, _KEY.size, note.start_ns, *note.start, note.key)
        _KEY.pack_into(self._page, 0, note.key)

    def wipe(self) -> None:
        """Leaves no note."""
        _KEY.pack_into(self._page, _LAYOUT.size - _KEY.size, 0)
        _KEY.pack_into(self._page, 0, 0)

    def close(self) -> None:
        """Ends it, and closes the descriptor of its own that the mapping has."""
        self._page.close()


class Notepad:
    """The helper's side: reads the file behind `descriptor`. There is never a note where that is -1, for want of a file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self) -> Note | None:
        """The note, where there is a whole one."""
        found = os.pread(self._descriptor, _LAYOUT.size, 0) if self._descriptor >= 0 else b""
        if len(found) < _LAYOUT.size:
            return None
        key, start_ns, *start, again = _LAYOUT.unpack(found)
        return Note(key, start_ns, Start(*start)) if key and key == again else None
