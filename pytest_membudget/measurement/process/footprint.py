"""macOS: a process's physical footprint, which counts compressed memory and leaves out what is merely mapped.

`proc_pid_rusage` fills `struct rusage_info_v4` (sys/resource.h): 16 bytes of identity, then 64-bit fields.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from pytest_membudget.originals import ctypes, os, struct

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
