"""The note: which block of a process alone is measured now, left where the helper looks by itself.

A message through a pipe wakes the helper, and that costs the measured process up to 0.1 ms each time. Most blocks start
no process and end before anybody had to know of them. So they leave a note in a file in memory, and wipe it off; the
helper reads it a hundred times a second. What it comes too late to see is made up for from the note: it tells
what the root held at the start, and which faults of dead children were on its account then.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple

from .shared_memory import SharedReading

_LAYOUT = struct.Struct("=QQQQQQQQQQqQ")
"""The key at both ends tells a reader who came in the middle: the last is written before the first, and wiped before it."""
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
