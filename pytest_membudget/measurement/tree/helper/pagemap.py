"""Which pages of which files processes map at this moment, so that what several of them map counts once.

`pagemap` says of every page of an address space whether it is there and whether it is a file's. What it costs goes with the
number of mappings: 0.1 ms for a small program, 1 ms for a large one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from .page_faults import PAGE
from .records import FilePages, Reading

ENTRY_BYTES = 8
PRESENT = bytes(1 if (top & 0xA0) == 0xA0 else 0 for top in range(256))
"""By the highest byte of an entry: bit 63 is "in memory", bit 61 is "of a file or shared memory"."""


class FileLook:
    """Counts file pages of several processes; one that has not changed since is not read again.

    Args:
        memory: the devices whose inodes are shared memory and not files.
    """

    def __init__(self, memory: set[bytes]) -> None:
        self._memory = memory
        self._known: dict[int, tuple[object, dict[bytes, int], int]] = {}

    def take(self, readings: Iterable[Reading]) -> FilePages:
        """Everybody's file pages together.

        `resident` is `union` and what a process maps twice by itself or in ways unknown here: those count as often as they do in its
        own resident size.

        Raises:
            OSError: a process is gone, or may not be read.
        """
        living = [reading for reading in readings if reading.resident]
        self._known = {
            reading.pid: known
            for reading in living
            if (known := self._known.get(reading.pid)) and known[0] == _signature(reading)
        }
        pages: dict[bytes, int] = {}
        twice = 0
        for reading in living:
            if reading.pid not in self._known:
                self._known[reading.pid] = (_signature(reading), *_present(reading.pid, self._memory))
            _, mapped, count = self._known[reading.pid]
            distinct = sum(bits.bit_count() for bits in mapped.values())
            twice += max(0, max(count * PAGE, reading.file) - distinct * PAGE)
            for inode, bits in mapped.items():
                pages[inode] = pages.get(inode, 0) | bits
        union = sum(bits.bit_count() for bits in pages.values()) * PAGE
        return FilePages(union, union + twice)


def _signature(reading: Reading) -> object:
    return reading.family, reading.faults, reading.file


def _present(pid: int, memory: set[bytes]) -> tuple[dict[bytes, int], int]:
    """By inode: a byte that is 1 for each page that is there, as one number; and how many were there in all."""
    with open(f"/proc/{pid}/maps", "rb", buffering=0) as stream:  # noqa: PTH123 - hot path
        lines = stream.readall().splitlines()
    found: dict[bytes, int] = {}
    count = 0
    descriptor = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for addresses, offset, inode in _file_mappings(lines, memory):
            low, _, high = addresses.partition(b"-")
            first, last = int(low, 16) // PAGE, int(high, 16) // PAGE
            entries = os.pread(descriptor, (last - first) * ENTRY_BYTES, first * ENTRY_BYTES)
            there = entries[ENTRY_BYTES - 1 :: ENTRY_BYTES].translate(PRESENT)
            count += there.count(1)
            bits = int.from_bytes(there, "little") << (int(offset, 16) // PAGE * 8)
            found[inode] = found.get(inode, 0) | bits
    finally:
        os.close(descriptor)
    return found, count


def _file_mappings(lines: Iterable[bytes], memory: set[bytes]) -> Iterable[tuple[bytes, bytes, bytes]]:
    for line in lines:
        addresses, _, offset, device, inode = line.split(None, 5)[:5]
        if inode != b"0" and device not in memory:
            yield addresses, offset, device + b" " + inode
