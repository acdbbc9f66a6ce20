"""What may change a memory figure from one machine to another, as a fingerprint for reports and baselines."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.system.limit import memory_limit, usable_cores
from pytest_membudget.originals import contextlib, os, re, sys
from pytest_membudget.records.report import Environment

# Libraries that hold most of a data program's memory: another version is another figure.
FINGERPRINTED = ("beautifulsoup4", "dask", "lxml", "numpy", "pandas", "polars", "pyarrow", "pytest", "scipy")

_ALLOCATOR_LIBRARY = re.compile(r"/lib(jemalloc|tcmalloc|mimalloc)[^/]*\.so")


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


def libc_version() -> str:
    """Such as "glibc 2.36"; empty where the library does not tell."""
    if hasattr(os, "confstr"):
        with contextlib.suppress(ValueError, OSError):
            return os.confstr("CS_GNU_LIBC_VERSION") or ""
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
