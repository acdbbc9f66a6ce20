"""Who holds a lease, and is it still alive? A process id alone does not tell: numbers are used again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec


class Owner(msgspec.Struct, frozen=True, array_like=True):
    """One process of this boot: its id and when it started (clock ticks since boot on Linux, else seconds)."""

    pid: int
    started: float


def this_process() -> Owner:
    """The calling process, also just after a fork."""
    pid = os.getpid()
    return Owner(pid, _started(pid) or 0.0)


def is_alive(owner: Owner) -> bool:
    """Whether that very process still runs. One that has ended but was not waited for holds no memory any more."""
    return _started(owner.pid) == owner.started


def boot_id() -> str:
    """Differs from boot to boot; empty where start times are absolute, so that none is needed."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def process_namespace() -> str:
    """Processes of another namespace (a container) have ids that mean nothing here; empty where there is only one."""
    try:
        return "".join(character for character in os.readlink("/proc/self/ns/pid") if character.isdigit())  # noqa: PTH115 - not a path
    except OSError:
        return ""


def _started(pid: int) -> float | None:
    """When the process started; `None` where there is none, or only what is left of one."""
    if sys.platform != "linux":
        return _started_by_psutil(pid)
    try:
        # The second field is the program's name in brackets, with whatever characters it has.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    state, threads, started = fields[0], int(fields[17]), float(fields[19])
    # The first thread may have ended before the others.
    return None if state in {b"Z", b"X"} and threads <= 1 else started


def _started_by_psutil(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return None  # another user's: not one of ours
