"""The machine as this process may use it, and what may change a figure from one machine to another.

How much memory may it really use? The least of all limits that bind it, and what is free under them. `environment` is the
fingerprint in reports and baselines.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from collections.abc import Callable
from pathlib import Path

from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.process.small_blocks import libc_version
from pytest_membudget.measurement.system import control_group
from pytest_membudget.measurement.system.control_group import Constraint
from pytest_membudget.originals import contextlib, logging, os, re, resource, sys
from pytest_membudget.records.measurement import MemoryLimit, MemoryReading
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
    versions = {}
    for name in FINGERPRINTED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
