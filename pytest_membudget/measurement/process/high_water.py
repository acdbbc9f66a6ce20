"""This process's own memory as the kernel counts it: resident bytes now, and the most since the last reset.

The kernel keeps a high-water mark of each process's resident memory (`VmHWM`), so even a spike of an instant is caught
exactly. Writing `5` to `/proc/self/clear_refs` sets the mark back to what is resident now (Linux 4.0 and later).

A process has only one such mark, and a reset loses it for every other reader. Every reset therefore goes through
this module, which first writes down in each open `Mark` how high the kernel's had been. So measurements may nest and
overlap.

`ru_maxrss` gives the mark in a tenth of the time that `/proc/self/status` takes, or what this process held before it
called exec, whichever is more: it survives exec, so that a child may report its parent's memory. See `_Account`.

Programs that watch their own `ru_maxrss`, which otherwise never falls, would see another story when a reset lowers it. While tests
are measured `getrusage` gives the largest value before all resets where that is larger (`keep_maxrss_rising`).

On macOS and Windows the mark cannot be reset: `reset_high_water_mark` says so, and the mark is that of the whole
life of the process. On macOS a process's size is its physical footprint, which counts compressed memory and leaves out what is
merely mapped: `proc_pid_rusage` fills `struct rusage_info_v4` (sys/resource.h), 16 bytes of identity, then 64-bit fields.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from pytest_membudget.measurement.process import proc
from pytest_membudget.originals import contextlib, ctypes, os, resource, struct, sys, threading


class Mark:
    """The most that was resident since the mark was opened, whatever resets the kernel's mark meanwhile.

    All figures are bytes, and 0 where they could not be read. `start_bytes` is what was resident when the mark was
    opened, `shared_bytes` the part of that in mapped files and shared memory, `end_bytes` what was resident when it was
    closed, and `peak_bytes` the most between the two. `faults` are this process's page faults before it was opened.
    """

    __slots__ = ("end_bytes", "faults", "peak_bytes", "shared_bytes", "start_bytes")

    def __init__(self, start_bytes: int, shared_bytes: int = 0, faults: int = 0) -> None:
        self.start_bytes = self.peak_bytes = start_bytes
        self.shared_bytes = shared_bytes
        self.faults = faults
        self.end_bytes = 0


class _Account:
    """The kernel's account of this process, as far as it gives the mark.

    It is the larger of the mark and of what was held before exec, which never changes. So it is the mark where it is above
    the least that it was ever seen at; and where it is not above what is resident, the mark is not either.
    """

    def __init__(self) -> None:
        self._least_bytes = sys.maxsize
        self.largest_kib = 0  # `ru_maxrss` before any reset

    def before_reset(self) -> None:
        """Keeps what a reset is about to lower (1 µs)."""
        self.largest_kib = max(self.largest_kib, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    def mark_bytes(self, resident_bytes: int) -> int:
        """The mark (1 µs); zero where the account may be of the time before exec, or of nothing."""
        most_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if most_bytes > self._least_bytes:
            return max(most_bytes, resident_bytes)
        self._least_bytes = most_bytes
        return resident_bytes if 0 < most_bytes <= resident_bytes else 0


_lock = threading.Lock()
_open: list[Mark] = []
_account = _Account()
_last_split = [0, 0]  # shared pages, and shared memory among them
_statm = proc.KeptOpen("statm")
_clear_refs = proc.KeptOpen("clear_refs", os.O_WRONLY)


def open_mark() -> Mark | None:
    """Opens a mark of our own, with the kernel's at what is resident now; `None` where the kernel's cannot be reset.

    Between two short blocks little is freed: often the kernel's is no higher than that, and need not be reset.
    """
    if sys.platform != "linux":
        return None
    with _lock:
        resident, shared = resident_and_shared_bytes()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        if usage.ru_maxrss * 1024 > resident or not usage.ru_maxrss:
            if not _reset():
                return None
            resident, shared = resident_and_shared_bytes()
        mark = Mark(resident, shared, usage.ru_minflt + usage.ru_majflt)
        _open.append(mark)
    return mark


def close_mark(mark: Mark) -> int:
    """Closes `mark` and returns the most that was resident since it was opened, in bytes."""
    with _lock:
        peak_bytes, mark.end_bytes = high_water_and_resident_bytes()
        mark.peak_bytes = max(mark.peak_bytes, peak_bytes)
        if mark in _open:
            _open.remove(mark)
    return mark.peak_bytes


def reset_high_water_mark() -> bool:
    """Sets the kernel's mark to what is resident now (2 µs); False where it cannot be reset."""
    with _lock:
        return _reset()


def largest_maxrss_kib() -> int:
    """The largest `ru_maxrss` before any reset, in KiB; 0 where there was none."""
    return _account.largest_kib


def high_water_bytes() -> int:
    """The most that was resident since the last reset, in bytes; 0 where it cannot be read."""
    if sys.platform != "linux":
        return _life_peak_bytes()
    return proc.field_bytes(proc.read("self", "status"), b"VmHWM") or _life_peak_bytes()


def mapped_shared_bytes(shared_bytes: int) -> int:
    """Shared memory that this process maps, files apart, where its shared pages are `shared_bytes` now.

    `status` has it, which takes 20 µs, and is read again only when `shared_bytes` has changed.
    """
    if _last_split[0] != shared_bytes:
        _last_split[:] = [shared_bytes, proc.field_bytes(proc.read("self", "status"), b"RssShmem")]
    return _last_split[1]


def high_water_and_resident_bytes() -> tuple[int, int]:
    """The most since the last reset, and what is resident now, in bytes."""
    if sys.platform != "linux":
        return high_water_bytes(), resident_bytes()
    resident = resident_bytes()
    mark_bytes = _account.mark_bytes(resident)
    if mark_bytes:
        return mark_bytes, resident
    status = proc.read("self", "status")
    resident = proc.field_bytes(status, b"VmRSS")
    return proc.field_bytes(status, b"VmHWM") or resident, resident


def resident_bytes(pid: int | None = None) -> int:
    """What process `pid` (this one by default) holds now, in bytes; 0 for one that is gone, or where it cannot be read."""
    if sys.platform == "darwin":
        return footprint(pid).now_bytes
    if sys.platform != "linux":
        return _psutil_resident_bytes(pid)
    if pid is None:
        return resident_and_shared_bytes()[0]
    found = proc.sizes(pid)
    return found.resident_bytes if found else 0


def resident_and_shared_bytes() -> tuple[int, int]:
    """What this process holds now, and how much of that is mapped files and shared memory, in bytes.

    The second is 0 where the system does not say.
    """
    if sys.platform != "linux":
        return resident_bytes(), 0
    try:
        _, resident, shared, _ = os.pread(_statm.descriptor(), 128, 0).split(None, 3)
    except (OSError, ValueError):  # no descriptor is left, or the file is empty
        return _psutil_resident_bytes(None), 0
    return int(resident) * proc.PAGE_BYTES, int(shared) * proc.PAGE_BYTES


def _reset() -> bool:
    if sys.platform != "linux":
        return False
    if _open:
        peak_bytes = high_water_bytes()
        for mark in _open:
            mark.peak_bytes = max(mark.peak_bytes, peak_bytes)
    _account.before_reset()
    try:
        os.write(_clear_refs.descriptor(), b"5")
    except OSError:
        return False
    return True


def _life_peak_bytes() -> int:
    """The most in the whole life of this process: `ru_maxrss`, the footprint on macOS, the working set on Windows."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "darwin":
        return footprint().life_peak_bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _psutil_resident_bytes(pid: int | None) -> int:
    with contextlib.suppress(ImportError):
        import psutil

        with contextlib.suppress(psutil.Error, OSError):
            return int(psutil.Process(pid).memory_info().rss)
    return 0


def close_files() -> None:
    """Closes what stays open between measurements; the next one opens it again."""
    _statm.close()
    _clear_refs.close()


def _forget_marks_in_child() -> None:
    """A forked child has its own mark; those of its parent mean nothing in it, nor do a lock held there and its files."""
    global _lock  # noqa: PLW0603 - a lock copied while held would never be released
    _lock = threading.Lock()
    _open.clear()
    _account.largest_kib = 0
    close_files()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_marks_in_child)


FLAVOR = 4
IDENTITY_BYTES = 16
FIELDS = 35
FOOTPRINT_FIELD = 7
LIFETIME_MAX_FIELD = 28


class Footprint(NamedTuple):
    """Bytes now, and the most during the life of the process."""

    now_bytes: int
    life_peak_bytes: int


def footprint(pid: int | None = None) -> Footprint:
    """The footprint of `pid`, or of this process; zeros for one that is gone or not ours to see."""
    buffer = ctypes.create_string_buffer(IDENTITY_BYTES + 8 * FIELDS)
    failed = _library().proc_pid_rusage(os.getpid() if pid is None else pid, FLAVOR, buffer)
    return Footprint(0, 0) if failed else decode(buffer.raw)


def decode(raw: bytes) -> Footprint:
    """Reads the two fields out of the kernel's answer."""
    fields = struct.unpack_from(f"={FIELDS}Q", raw, IDENTITY_BYTES)
    return Footprint(fields[FOOTPRINT_FIELD], fields[LIFETIME_MAX_FIELD])


@functools.cache
def _library() -> Any:
    return ctypes.CDLL("/usr/lib/libproc.dylib")


def keep_maxrss_rising() -> None:
    """Puts a `getrusage` in place whose `ru_maxrss` for this process never falls. `restore_getrusage` takes it out again."""
    if sys.platform == "win32":
        return
    import resource

    if isinstance(getattr(resource.getrusage, "__self__", None), _Rising):
        return
    resource.getrusage = _Rising(resource.getrusage).getrusage


def restore_getrusage() -> None:
    """Puts the one that was found back."""
    if sys.platform == "win32":
        return
    import resource

    rising = getattr(resource.getrusage, "__self__", None)
    if isinstance(rising, _Rising):
        resource.getrusage = rising.original


class _Rising:
    def __init__(self, original: Any) -> None:
        self.original = original

    def getrusage(self, who: int, /) -> Any:
        """As `resource.getrusage`."""
        import resource

        usage = self.original(who)
        before_resets_kib = largest_maxrss_kib()
        if who != resource.RUSAGE_SELF or usage.ru_maxrss >= before_resets_kib:
            return usage
        fields = list(usage)
        fields[_MAXRSS] = before_resets_kib
        return resource.struct_rusage(fields)


_MAXRSS = 2
"""The place of `ru_maxrss` in the record."""
