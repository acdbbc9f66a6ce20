"""The machine as this process may use it, and what may change a figure from one machine to another.

1. How much memory may it really use? The least of all limits that bind it, and what is free under them (`memory_reading`).
2. `environment` is the fingerprint in reports and baselines.
3. Do tasks stall for want of memory (`MemoryPressure`)? The kernel's pressure stall information (PSI), Linux 4.20 and later.

`some` in such a file is the share of time in which at least one task waited for memory: for reclaim, for swap, or for
pages that had just been thrown out. Where the process is in a control group of version 2 that has a file of its own,
that one counts: it holds every stall of the group's tasks, whatever limit caused it, and no other's. Elsewhere, and in
the topmost group, it is the whole machine's. Containers that stall at their own limits show there as well, so it counts only
while this process's own limits leave little memory (`SHORT_SHARE`).
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.process.small_blocks import libc_version
from pytest_membudget.measurement.system import control_group
from pytest_membudget.measurement.system.control_group import Constraint
from pytest_membudget.originals import contextlib, logging, os, re, resource, select, sys, threading, time
from pytest_membudget.records.measurement import MemoryLimit, MemoryReading

if TYPE_CHECKING:
    from pytest_membudget.records.report import Environment

ASSUMED_LIMIT_BYTES = 16_384_000_000
"""Without psutil: the reference documents' assumption, half of it available."""

# Libraries that hold most of a data program's memory: another version is another figure.
FINGERPRINTED = ("beautifulsoup4", "dask", "lxml", "numpy", "pandas", "polars", "pyarrow", "pytest", "scipy")

_ALLOCATOR_LIBRARY = re.compile(r"/lib(jemalloc|tcmalloc|mimalloc)[^/]*\.so")


_logger = logging.getLogger("pytest_membudget")


def memory_limit() -> MemoryLimit:
    """The least of host memory, every control group above this process and RLIMIT_AS, and which one that is."""
    return memory_reading().limit


def usable_cores() -> int:
    """The cores that this process may run on, at least 1: its affinity where the system has one, else all there are."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def memory_reading(
    root: Path = Path("/"),
    host: Callable[[], Constraint] | None = None,
    address_space: Callable[[], Constraint | None] | None = None,
) -> MemoryReading:
    """The limit and what is available under all limits together now. Page cache does not count as used.

    Args:
        root: where `proc` and the control groups are found; a recorded tree in tests.
        host: the host's memory; psutil's by default.
        address_space: this process's RLIMIT_AS; the kernel's by default.
    """
    found = [(host or host_memory)(), *control_group.constraints(_groups(root, _membership(root)))]
    address = (address_space or address_space_limit)()
    if address is not None:
        found.append(address)
    least = min(found, key=lambda constraint: constraint.limit_bytes)
    return MemoryReading(
        limit=MemoryLimit(least.limit_bytes, least.source),
        available_bytes=max(0, min(each.limit_bytes - each.used_bytes for each in found)),
    )


def host_memory() -> Constraint:
    """The host's memory by psutil; without psutil 16,384 MB, half of it available, said once."""
    try:
        import psutil
    except ImportError:
        _say_assumed_once()
        return Constraint(ASSUMED_LIMIT_BYTES, ASSUMED_LIMIT_BYTES // 2, "assumed, without psutil")
    try:
        memory = psutil.virtual_memory()
    except (psutil.Error, OSError):  # /proc is hidden; the system call behind this is not
        total_bytes = os.sysconf("SC_PHYS_PAGES") * proc.PAGE_BYTES
        return Constraint(
            total_bytes, total_bytes - os.sysconf("SC_AVPHYS_PAGES") * proc.PAGE_BYTES, "host memory"
        )
    return Constraint(memory.total, memory.total - memory.available, "host memory")


def address_space_limit() -> Constraint | None:
    """This process's RLIMIT_AS and how much of it is mapped; `None` where there is no such limit."""
    if sys.platform == "win32":
        return None
    limit_bytes = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit_bytes == resource.RLIM_INFINITY or limit_bytes >= control_group.UNLIMITED_BYTES:
        return None
    found = proc.sizes("self")
    return Constraint(limit_bytes, found.mapped_bytes if found else 0, "RLIMIT_AS")


def _membership(root: Path) -> bytes:
    try:
        return (root / "proc/self/cgroup").read_bytes()
    except OSError:
        return b""


@functools.lru_cache(maxsize=8)
def _groups(root: Path, membership: bytes) -> list[control_group.Group]:
    """The mount table changes rarely, the group a process is in when it is moved: that is the key."""
    return control_group.groups(root) if membership else []


@functools.cache
def _say_assumed_once() -> None:
    _logger.warning(
        "psutil is not installed: assuming 16,384 MB of memory, half of it available; run: pip install psutil"
    )


def environment() -> Environment:
    """This machine and interpreter, as far as they may change a figure (a few milliseconds)."""
    # Not for worker processes, which would load all that reports are made of.
    from pytest_membudget.records.report import Environment

    limit = memory_limit()
    return Environment(
        system=platform.system(),
        kernel=platform.release(),
        machine=platform.machine(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        libc=libc_version(),
        allocator=allocator(),
        page_size_bytes=proc.PAGE_BYTES,
        transparent_hugepages=transparent_hugepages(),
        cores=usable_cores(),
        limit_bytes=limit.bytes,
        limit_source=limit.source,
        packages=_versions(),
    )


def transparent_hugepages() -> str:
    """The kernel's setting, such as "madvise"; empty where it has none."""
    with contextlib.suppress(OSError):
        setting = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii")
        return setting.partition("[")[2].partition("]")[0]
    return ""


def allocator() -> str:
    """Python's allocator and the C library's, such as "pymalloc, jemalloc"."""
    python = os.environ.get("PYTHONMALLOC") or ("pymalloc" if _has_pymalloc() else "malloc")
    preloaded = _ALLOCATOR_LIBRARY.search("\n".join(proc.mapped_files()))
    if preloaded:
        return f"{python}, {preloaded[1]}"
    return f"{python}, the C library's malloc"


def _has_pymalloc() -> bool:
    import sysconfig

    return sys.implementation.name == "cpython" and sysconfig.get_config_var("WITH_PYMALLOC") != 0


def _versions() -> dict[str, str]:
    import importlib.metadata  # with what it imports, a third of a fresh interpreter's start

    versions = {}
    for name in FINGERPRINTED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


WINDOW_S = 2.0
"""A process without privileges may ask for windows of a multiple of 2 s only."""

STALLED_SHARE = 0.10
"""From this share of a window on, tasks stall. A healthy machine that reclaims page cache stays far below."""

SHORT_SHARE = 0.25
"""Of the limit. An executor that measures its budget leaves 30% of it, so its own work alone is no shortage."""

_MACHINE = Path("proc/pressure/memory")


def open_trigger(path: Path) -> Callable[[], bool] | None:
    """Has the kernel watch `path`; what it returns says whether a window with stalls ended since it was last asked.

    `None` where the kernel takes no trigger from this process.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        os.write(descriptor, f"some {int(STALLED_SHARE * WINDOW_S * 1e6)} {int(WINDOW_S * 1e6)}\0".encode())
    except OSError:
        os.close(descriptor)
        return None
    poll = select.poll()
    poll.register(descriptor, select.POLLPRI)
    return lambda: any(event & select.POLLPRI for _, event in poll.poll(0))


class MemoryPressure:
    """Whether tasks stalled for more than `STALLED_SHARE` of a window that ended within the last `WINDOW_S` seconds.

    May be asked from any thread. The kernel watches the windows (a trigger); asking it costs under 1 µs. Where it takes no trigger from this process
    the average over 10 s is read, 13 µs. Without pressure files nothing is ever stalled, and `source` is empty.

    Args:
        root: where `proc` and the control groups are found; a recorded tree in tests.
        clock: seconds that only go up.
        trigger: opens the kernel's trigger on a file; scripted in tests.
        reading: this process's limit and what is available; asked only while the machine stalls.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
        trigger: Callable[[Path], Callable[[], bool] | None] = open_trigger,
        reading: Callable[[], MemoryReading] = memory_reading,
    ) -> None:
        self._clock = clock
        self._reading = reading
        self._path, self._is_of_machine = _pressure_file(root)
        self._trigger = trigger
        self._has_event: Callable[[], bool] | None = None
        self._pid = 0
        self._lock = threading.Lock()
        self._asked_at_s = self._event_at_s = float("-inf")

    @property
    def source(self) -> str:
        """The file that is read; empty where the kernel has none."""
        return "" if self._path is None else str(self._path)

    def is_stalled(self) -> bool:
        """Whether tasks stall for memory now that this process's own tasks may be short of."""
        return self._path is not None and self._stalls(self._path) and self._is_short()

    def _is_short(self) -> bool:
        if not self._is_of_machine:
            return True
        reading = self._reading()
        return reading.available_bytes < SHORT_SHARE * reading.limit.bytes

    def _stalls(self, path: Path) -> bool:
        # A parent's events, and a lock that its other threads held, are not a child's.
        if self._pid != os.getpid():
            self._lock = threading.Lock()
            self._has_event = self._trigger(path)
            self._pid = os.getpid()
        if self._has_event is None:
            return _average_share(path) >= STALLED_SHARE
        with self._lock:  # a poll object serves one thread at a time
            now_s = self._clock()
            # The kernel keeps an event until it is asked for: after a long pause it may be long past.
            is_recent = now_s - self._asked_at_s <= WINDOW_S
            self._asked_at_s = now_s
            if self._has_event() and (is_recent or _average_share(path) >= STALLED_SHARE):
                self._event_at_s = now_s
            return now_s - self._event_at_s < WINDOW_S


@functools.cache
def memory_pressure() -> MemoryPressure:
    """This process's own, with one trigger for all who ask."""
    return MemoryPressure()


def _pressure_file(root: Path) -> tuple[Path | None, bool]:
    """The file, and whether it is the whole machine's."""
    own = next((group for group in control_group.groups(root) if group.version == 2), None)
    if own is not None and _average_share(file := own.directory / "memory.pressure") >= 0.0:
        # A container sees its own group as the topmost. The kernel's topmost one has no type.
        return file, own.name == "/" and not (own.directory / "cgroup.type").exists()
    machine = root / _MACHINE
    return (machine, True) if _average_share(machine) >= 0.0 else (None, False)


def _average_share(path: Path) -> float:
    """`some avg10` as a fraction; below 0 where the file cannot be read."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        some = path.read_bytes().split(b"\n", 1)[0].split()
        return float(some[1].removeprefix(b"avg10=")) / 100
    return -1.0
