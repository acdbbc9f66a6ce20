"""Memory that no process has to map: files in tmpfs, POSIX and System V segments, memfd. And what was swapped out.

The kernel counts it for the whole machine (`sharedram` of sysinfo(2)) and for each mounted tmpfs (statvfs), 1 µs each. Whose it
is it does not say. Let S be such a figure, m what the processes of the tree map of it, which their resident sizes count
already, and 0 the start. Where no other process gives shared memory up meanwhile,

    what the tree made and does not map  <=  (S - S_0) - (m - m_0).

What programs of other control groups add is kept apart: a page is charged to the group of who touches it first.

`sharedram` is summed up from counters of each core and is off by up to 125 pages a core, so growth below that is none. What
mounts hold is exact; growth below `FILES_FLOOR_BYTES` is left out all the same, since every semaphore of any program is a page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import builtins
    import contextlib
    import os
else:
    try:  # in the measured process, whose tests may replace what is read here
        from pytest_membudget.originals import builtins, contextlib, os
    except ImportError:  # in the helper, which knows nothing of the package
        import builtins
        import contextlib
        import os

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
COUNTER_FLOOR_BYTES = 125 * PAGE_BYTES * (os.cpu_count() or 1)
FILES_FLOOR_BYTES = 256 * 1024
MOST_MOUNTS = 16


class SharedReading(NamedTuple):
    """Shared memory of the whole machine at one instant, in bytes."""

    files_bytes: int = 0  # in the tmpfs mounts that can be seen from here
    total_bytes: int = 0  # those, and what no mount shows: memfd, System V, anonymous
    swapped_bytes: int = 0  # swap in use, of any memory
    group_bytes: int = -1  # shared memory of this control group; -1 where that is not known

    def added_since(self, start: SharedReading) -> int:
        """What may have been added by programs of this control group; growth within the counters' error is none."""
        if not start.total_bytes:  # it was not read at the start
            return 0
        files_bytes = self.files_bytes - start.files_bytes
        unnamed_bytes = self.total_bytes - start.total_bytes - files_bytes
        added_bytes = files_bytes if files_bytes >= FILES_FLOOR_BYTES else 0
        added_bytes += unnamed_bytes if unnamed_bytes > COUNTER_FLOOR_BYTES else 0
        # What is swapped out is charged to the group as swap, and has left this figure.
        if min(self.group_bytes, start.group_bytes) < 0 or self.swapped_bytes != start.swapped_bytes:
            return added_bytes
        of_group_bytes = max(0, self.group_bytes - start.group_bytes)
        if of_group_bytes <= COUNTER_FLOOR_BYTES < added_bytes:
            return 0
        # The machine's figure is exact, but hides what was added while a program elsewhere gave as much up.
        least_bytes, most_bytes = of_group_bytes - COUNTER_FLOOR_BYTES, of_group_bytes + COUNTER_FLOOR_BYTES
        return min(max(added_bytes, least_bytes), most_bytes)


class SharedReader:
    """Reads the figures (a few µs); zeros where the system has none.

    Args:
        group: the file `memory.stat` of this process's control group; empty where it has none.
    """

    def __init__(self, group: str = "") -> None:
        self.mounts = _tmpfs_mounts()
        self._sysinfo = _sysinfo()
        self._group = group
        self._membership = _read("/proc/self/cgroup")
        self._last = (-1, -1)
        self._group_bytes = -1

    def read(self) -> SharedReading:
        """The figures now."""
        files_bytes = 0
        for mount in self.mounts:
            try:
                found = os.statvfs(mount)
            except OSError:  # unmounted
                continue
            files_bytes += (found.f_blocks - found.f_bfree) * found.f_frsize
        total_bytes, swapped_bytes = self._sysinfo()
        # The group's figure is the expensive one (25 to 100 µs), and is of use only where the machine's has moved.
        if self._group and self._last != (files_bytes, total_bytes):
            self._last = (files_bytes, total_bytes)
            self._group_bytes = self._read_group()
        return SharedReading(files_bytes, total_bytes, swapped_bytes, self._group_bytes)

    def _read_group(self) -> int:
        if _read("/proc/self/cgroup") != self._membership:
            self._group = ""  # moved: what is charged from now on is charged elsewhere
            return -1
        statistics = b"\n" + _read(self._group)
        # Version 1 of control groups has both; the first is that of the groups below as well.
        for field in (b"\ntotal_shmem ", b"\nshmem "):
            words = statistics.partition(field)[2].split(None, 1)
            if words:
                return int(words[0])
        return -1


class SharedGrowth:
    """What one measurement's tree may have added beside what it maps. Takes every scan."""

    def __init__(self, start: SharedReading, mapped_low: int, mapped_high: int) -> None:
        self._start = self._before = start
        self._mapped_low, self._mapped_high = mapped_low, mapped_high
        self.high_bytes = 0
        """The most at any scan."""
        self.now_bytes = 0
        """The most at the last scan."""
        self.total_low_bytes = 0
        """The most that the tree and this together are seen to have added, if all of it is the tree's."""

    def update(self, reading: SharedReading, mapped_low: int, mapped_high: int, tree_low: int) -> None:
        """Takes one scan.

        Args:
            reading: read after the processes were.
            mapped_low: shared memory that the tree maps, at least.
            mapped_high: and at most.
            tree_low: what the tree is proven to have added.
        """
        least = min(reading.added_since(self._start), self._before.added_since(self._start))
        self._before = reading
        self.now_bytes = max(0, reading.added_since(self._start) - max(0, mapped_low - self._mapped_high))
        self.high_bytes = max(self.high_bytes, self.now_bytes)
        unmapped_low = max(0, least - max(0, mapped_high - self._mapped_low))
        self.total_low_bytes = max(self.total_low_bytes, tree_low + unmapped_low)


def _read(path: str) -> bytes:
    with contextlib.suppress(OSError), builtins.open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - starts faster
        return stream.read(16384)
    return b""


def held_open_bytes(mounts: list[str], since_s: float) -> int:
    """What this process holds open of files in tmpfs and of memfd that changed after `since_s`, seconds of the epoch."""
    devices = set()
    with contextlib.suppress(OSError):
        descriptor = os.memfd_create("membudget", os.MFD_CLOEXEC)
        devices.add(os.fstat(descriptor).st_dev)
        os.close(descriptor)
    for mount in mounts:
        with contextlib.suppress(OSError):
            devices.add(os.stat(mount).st_dev)  # noqa: PTH116 - starts faster
    found: dict[tuple[int, int], int] = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself is closed by now
            status = os.fstat(int(name))
            if status.st_dev in devices and status.st_ctime >= since_s:
                found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def _tmpfs_mounts() -> list[str]:
    """Writable mounts of tmpfs; of several at one place the last can be seen. Of more than `MOST_MOUNTS` the machine's figure must do."""
    found: set[str] = set()
    with contextlib.suppress(OSError, ValueError, IndexError):
        with builtins.open("/proc/self/mountinfo", "rb", buffering=0) as stream:  # noqa: PTH123 - starts faster
            lines = stream.readall().splitlines()
        for line in lines:
            before, _, after = line.partition(b" - ")
            fields = before.split()
            path = os.fsdecode(fields[4].decode("unicode_escape").encode("latin-1"))
            if after.split(None, 1)[0] == b"tmpfs" and b"ro" not in fields[5].split(b","):
                found.add(path)
    found = {path for path in found if not path.startswith("/sys/")}  # of the kernel's own
    return sorted(found) if len(found) <= MOST_MOUNTS else []


def _sysinfo() -> Callable[[], tuple[int, int]]:
    """A function that gives shared and swapped memory of the machine, in bytes."""
    try:
        import ctypes
        import struct

        ask = ctypes.CDLL(None).sysinfo
        buffer = ctypes.create_string_buffer(256)
        # struct sysinfo: uptime, three loads, totalram, freeram, sharedram, bufferram, totalswap, freeswap; then shorts, mem_unit.
        layout = struct.Struct("@l9LHHLLI")
    except (ImportError, AttributeError, OSError):
        return lambda: (0, 0)

    def read() -> tuple[int, int]:
        if ask(buffer):
            return 0, 0
        fields = layout.unpack_from(buffer)
        unit = fields[-1] or 1
        return fields[6] * unit, (fields[8] - fields[9]) * unit

    return read
