"""Which files and shared memory processes map, and the most that they can have mapped of them together."""

from __future__ import annotations

import contextlib
import os

Mappings = dict[bytes, tuple[int, int]]
"""By device and inode: the first byte offset that is mapped, and the last."""


def read_mappings(pid: int) -> Mappings:
    """What one process maps now."""
    with open(f"/proc/{pid}/maps", "rb", buffering=0) as stream:  # noqa: PTH123 - hot path
        lines = stream.readall().splitlines()
    found: Mappings = {}
    for line in lines:
        addresses, _, offset, device, inode = line.split(None, 5)[:5]
        if inode == b"0":
            continue
        low, _, high = addresses.partition(b"-")
        first = int(offset, 16)
        last = first + int(high, 16) - int(low, 16)
        key = device + b" " + inode
        known = found.get(key, (first, last))
        found[key] = (min(first, known[0]), max(last, known[1]))
    return found


def mapped_limit(mappings: list[Mappings], without: set[bytes]) -> int:
    """The most that processes with these mappings can have mapped together, each file once, but for some devices."""
    spans: Mappings = {}
    for mapping in mappings:
        for inode, (first, last) in mapping.items():
            if inode.partition(b" ")[0] not in without:
                known = spans.get(inode, (first, last))
                spans[inode] = (min(first, known[0]), max(last, known[1]))
    return sum(last - first for first, last in spans.values())


class Devices:
    """Which devices hold files and which hold shared memory, by what is mounted; the others may hold either."""

    def __init__(self, root: int) -> None:
        self.files: set[bytes] = set()
        self.memory: set[bytes] = set()
        with open(f"/proc/{root}/mountinfo", "rb", buffering=0) as stream:  # noqa: PTH123 - starts faster
            lines = stream.readall().splitlines()
        for line in lines:
            before, _, after = line.partition(b" - ")
            major, _, minor = before.split()[2].partition(b":")
            device = b"%02x:%02x" % (int(major), int(minor))
            in_memory = after.split(None, 1)[0] in {b"tmpfs", b"devtmpfs", b"ramfs"}
            (self.memory if in_memory else self.files).add(device)
        with contextlib.suppress(OSError):
            self.memory.add(_anonymous_device())
        self.files -= self.memory


def _anonymous_device() -> bytes:
    """The device of shared memory that no mount names: anonymous, System V, and memfd."""
    descriptor = os.memfd_create("membudget", os.MFD_CLOEXEC)
    device = os.fstat(descriptor).st_dev
    os.close(descriptor)
    return b"%02x:%02x" % (os.major(device), os.minor(device))
