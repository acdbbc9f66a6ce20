"""What calls hold in files in memory (tmpfs, memfd), which is in no resident size.

Of a file that its task holds open for writing it is known whose it is: it counts in what the task is proven to take. A file that
was closed, or was filled by something else that is gone, has no owner: the kernel counts it for the whole machine
alone. Let S be that figure, E what workers are seen to hold of it (files that are open, and memory that they map), and 0 the
last reading before a call began. Then the call may hold, beside what it is seen to hold,

    (S - S_0) - (E - E_0)

at most, and no more than its worker has written, unless that maps shared memory: other programs of the machine fill files as
well. That goes into its upper figure. Calls that start something are watched by the helper of their worker, which
goes by the same rule (`measurement.tree.helper.shared_memory`).
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.system.control_group import group_statistics
from pytest_membudget.measurement.tree.helper.shared_memory import (
    FILES_FLOOR_BYTES,
    SharedReader,
    SharedReading,
)
from pytest_membudget.runtime.workers.serialization import Report

_FRESH_S = 0.05
_MOST_READINGS = 64


class Instant(NamedTuple):
    """Shared memory of the machine, and what workers were seen to hold of it, in bytes."""

    at_s: float
    machine: SharedReading
    seen_bytes: int

    def unseen_since(self, start: Instant, seen_bytes: int) -> int:
        """What was added since `start` and is not seen in any worker, of which all were read by then."""
        seen_bytes = max(seen_bytes, self.seen_bytes) - start.seen_bytes
        return max(0, self.machine.added_since(start.machine) - seen_bytes)


class MachineMemory:
    """Readings of the machine's shared memory, for all workers of a launcher.

    Args:
        read: reads the figures; the kernel's by default.
        clock: seconds that only go up.
    """

    def __init__(
        self,
        read: Callable[[], SharedReading] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read or _reader()
        self._clock = clock
        self._readings: deque[Instant] = deque(maxlen=_MOST_READINGS)
        #: what each worker was seen to hold last; nothing once its call has ended
        self.seen: dict[int, int] = {}

    def now(self) -> Instant:
        """Reads (10 µs; 100 µs where the figure has moved in a control group)."""
        self._readings.append(Instant(self._clock(), self._read(), self.seen_bytes))
        return self._readings[-1]

    @property
    def seen_bytes(self) -> int:
        """What all workers were seen to hold last."""
        return sum(list(self.seen.values()))  # a copy: calls end in another thread

    def refresh(self) -> None:
        """Reads where the last reading is old: a call is about to begin."""
        if not self._readings or self._clock() - self._readings[-1].at_s > _FRESH_S:
            self.now()

    def before(self, at_s: float) -> Instant:
        """The last reading until then, else the oldest that there is."""
        earlier = (reading for reading in reversed(self._readings) if reading.at_s <= at_s)
        return next(earlier, self._readings[0])


def _reader() -> Callable[[], SharedReading]:
    """The kernel's figures; none where the system is not Linux."""
    return SharedReader(group_statistics()).read if sys.platform == "linux" else SharedReading


class CallFiles:
    """What the present call of one worker, which starts nothing, holds beside what is resident.

    Args:
        machine: shared by the workers of one launcher.
    """

    def __init__(self, machine: MachineMemory) -> None:
        self._machine = machine
        self._sequence = 0
        self._start: Instant | None = None
        self._last: Instant | None = None
        self._most_seen_bytes = 0  # in files, and the resident size then
        self._resident_then_bytes = 0
        self._most_unseen_bytes = 0
        self._written_bytes = self._written_before_bytes = 0  # by the worker in its life; and before the call
        self._has_mapped = False

    def read(self, pid: int, sequence: int, began_s: float, resident_bytes: int, files: OpenFiles) -> None:
        """Takes a reading of the call number `sequence`, which began at `began_s` on `time.monotonic`'s clock.

        `files` are those that the worker holds open. They count also where others have given as much up meanwhile.
        """
        if sequence != self._sequence:
            self.begin(sequence, began_s)
        self._written_bytes = _written_bytes(pid)
        now = self._machine.now()
        if self._start is not None and (files.sizes or now.machine.added_since(self._start.machine)):
            file_bytes = files.held_bytes(time.time() - (time.monotonic() - began_s))
            self.observe(now, file_bytes, files.mapped_bytes, resident_bytes)

    def begin(self, sequence: int, began_s: float) -> None:
        """Another call has begun."""
        self._sequence, self._start, self._last = sequence, self._machine.before(began_s), None
        self._most_seen_bytes = self._resident_then_bytes = self._most_unseen_bytes = 0
        self._written_before_bytes, self._has_mapped = self._written_bytes, False

    def observe(self, now: Instant, file_bytes: int, mapped_bytes: int, resident_bytes: int) -> None:
        """The call holds so much in open files and maps so much, where the machine holds what `now` says."""
        self._machine.seen[id(self)] = file_bytes + mapped_bytes
        self._has_mapped = self._has_mapped or mapped_bytes > FILES_FLOOR_BYTES
        if file_bytes > self._most_seen_bytes:
            self._most_seen_bytes, self._resident_then_bytes = file_bytes, resident_bytes
        self._count_unseen()
        self._last = now

    def _count_unseen(self) -> None:
        """What was unseen at the last reading: what other workers held then is known once they were read as well."""
        start, last = self._start, self._last
        if start is not None and last is not None:
            unseen_bytes = last.unseen_since(start, self._machine.seen_bytes)
            self._most_unseen_bytes = max(self._most_unseen_bytes, unseen_bytes)

    @property
    def _most_bytes(self) -> int:
        """What the call may have held in files."""
        if self._has_mapped:
            return self._most_seen_bytes + self._most_unseen_bytes
        written_bytes = self._written_bytes - self._written_before_bytes
        return max(self._most_seen_bytes, min(self._most_seen_bytes + self._most_unseen_bytes, written_bytes))

    def added_to(self, report: Report, sequence: int) -> Report:
        """The report of that call with what it held in files: at that moment at least, and at most both at their most."""
        self._count_unseen()
        self._last = None
        self._machine.seen.pop(id(self), None)
        is_watched = report.peak_upper_bytes is not None
        most_bytes = self._most_bytes
        if report.peak_bytes is None or is_watched or not most_bytes or sequence != self._sequence:
            return report
        start_bytes = report.resident_peak_bytes - report.peak_bytes
        then_bytes = self._most_seen_bytes + max(0, self._resident_then_bytes - start_bytes)
        peak_bytes = max(report.peak_bytes, then_bytes)
        upper_bytes = max(peak_bytes, report.peak_bytes + most_bytes)
        return report._replace(peak_bytes=peak_bytes, peak_upper_bytes=upper_bytes)


class OpenFiles:
    """What processes hold in tmpfs and memfd by files that are open for writing, as listed once."""

    def __init__(self, pids: Sequence[int], sizes: dict[tuple[int, int], tuple[float, int]]) -> None:
        #: by device and inode: when it changed, in seconds of the epoch, and its bytes
        self.sizes = sizes
        self._pids = pids

    @cached_property
    def mapped_bytes(self) -> int:
        """What the processes map of files in memory, which their resident sizes count."""
        return sum(proc.field_bytes(proc.read(pid, "status"), b"RssShmem") for pid in self._pids)

    def held_bytes(self, since_s: float) -> int:
        """What is in these files beyond what is mapped; those that have not changed since then belong to other programs."""
        total_bytes = sum(size_bytes for changed_s, size_bytes in self.sizes.values() if changed_s >= since_s)
        return max(0, total_bytes - self.mapped_bytes) if total_bytes else 0


def open_files(pids: Sequence[int]) -> OpenFiles:
    """The files in memory that these processes hold open for writing."""
    sizes: dict[tuple[int, int], tuple[float, int]] = {}
    for pid in pids:
        for descriptor in proc.descriptors(pid):
            path = f"/proc/{pid}/fd/{descriptor}"
            with contextlib.suppress(OSError):  # it was closed meanwhile
                status = os.stat(path)  # noqa: PTH116 - thousands of times
                if not stat.S_ISREG(status.st_mode):
                    continue
                is_writable = os.lstat(path).st_mode & stat.S_IWUSR
                if is_writable and _is_memory(status.st_dev, path):
                    sizes[status.st_dev, status.st_ino] = status.st_ctime, status.st_blocks * 512
    return OpenFiles(pids, sizes)


def _written_bytes(pid: int) -> int:
    """What a process has written in its life, to files of any kind; more than that where the system does not say."""
    return int((proc.read(pid, "io").partition(b"wchar:")[2].split() or [b"%d" % 2**62])[0])


_is_memory_by_device: dict[int, bool] = {}


def _is_memory(device: int, path: str) -> bool:
    """Whether the files of this device lie in memory: those of memfd, and of a mount of tmpfs."""
    if device not in _is_memory_by_device:
        target = os.readlink(path)  # noqa: PTH115 - "/memfd:name (deleted)" is no path
        _is_memory_by_device[device] = target.startswith("/memfd:") or device in {
            mount.device for mount in proc.mounts() if mount.kind == "tmpfs"
        }
    return _is_memory_by_device[device]
