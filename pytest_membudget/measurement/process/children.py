"""Children: whether this process has any, what those that ended used, and all processes below one, with what they hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pytest_membudget.measurement.process.high_water import resident_bytes
from pytest_membudget.originals import builtins, contextlib, os, resource, signal, sys

_LINUX = sys.platform.startswith("linux")

_PF_KTHREAD = 0x00200000

WAIT_FOR_ALL_KINDS = 0x40000000
"""Linux's `__WALL`: children whose end sends no SIGCHLD count too."""


class Reaped(NamedTuple):
    """What the children that were waited for had used, and their children in turn."""

    faults: int
    largest_bytes: int
    """The largest high-water mark that any of their address spaces had; it only grows.

    One that was forked starts with what its parent held, and until it calls exec a child of vfork has its parent's own mark.
    """
    switches: int
    processor_s: float


def reaped() -> Reaped:
    """The account of this process's dead children (1 µs). It changes whenever one is waited for, by anybody in this process."""
    if sys.platform == "win32":
        return Reaped(0, 0, 0, 0.0)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Reaped(
        usage.ru_minflt + usage.ru_majflt,
        usage.ru_maxrss * 1024,
        usage.ru_nvcsw + usage.ru_nivcsw,
        usage.ru_utime + usage.ru_stime,
    )


def are_waited_for() -> bool:
    """Whether children that end show in `reaped`: where SIGCHLD is ignored no child can be waited for."""
    return signal.getsignal(signal.SIGCHLD) is not signal.SIG_IGN


def own_faults() -> int:
    """The page faults of this process, all its threads together (1 µs)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


def has_children() -> bool:
    """Whether this process has children now, of any thread and kind; none of them is waited for (1 µs)."""
    if not hasattr(os, "waitid"):
        return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | WAIT_FOR_ALL_KINDS)
    except ChildProcessError:
        return False
    except OSError:
        return True
    return True


def descendants(pid: int | None = None) -> list[int]:
    """The numbers of all processes below `pid` (this one by default); empty for one that is gone."""
    found = children_of(os.getpid() if pid is None else pid)
    for child in found:  # grows while it is walked
        found += children_of(child)
    return found


def children_of(pid: int) -> list[int]:
    """The numbers of the children of all threads of `pid`, those that ended and were not waited for included (20 µs)."""
    if not _LINUX:
        return _children_by_psutil(pid)
    found: list[int] = []
    with contextlib.suppress(OSError):  # the process is gone
        for thread in os.listdir(f"/proc/{pid}/task"):
            # One that has ended meanwhile: the others have children all the same.
            with contextlib.suppress(OSError):
                found += _children_of_thread(f"/proc/{pid}/task/{thread}/children")
    return found


def _children_of_thread(file: str) -> list[int]:
    with builtins.open(file, "rb", buffering=0) as listing:  # read thousands of times
        return [int(number) for number in listing.read().split()]


def _children_by_psutil(pid: int) -> list[int]:
    try:
        import psutil
    except ImportError:
        return []
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def tree_resident_bytes(root: int | None = None) -> int:
    """Resident bytes of `root` (this process by default) and of all below it. Shared pages count in each that maps them."""
    top = os.getpid() if root is None else root
    return sum(map(resident_bytes, [top, *descendants(top)]))


def runs_with_others(ours: Iterable[int]) -> bool:
    """Whether any other program can be seen here but `ours` and those that wait for them, or whether others are hidden."""
    if not _LINUX:
        return True
    known = {*ours, os.getpid(), *descendants(), *_ancestors(os.getpid())}
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return 1 not in pids or any(pid not in known and not _is_of_the_kernel(pid) for pid in pids)


def _ancestors(pid: int) -> list[int]:
    found: list[int] = []
    while pid:
        fields = _stat_fields(pid)
        pid = int(fields[1]) if fields else 0
        found.append(pid)
    return found


def _is_of_the_kernel(pid: int) -> bool:
    """Whether it is a thread of the kernel's, or gone."""
    fields = _stat_fields(pid)
    return not fields or bool(int(fields[6]) & _PF_KTHREAD)


def _stat_fields(pid: int) -> list[bytes]:
    """The fields of `stat` after the name; empty for a process that is gone."""
    with contextlib.suppress(OSError), builtins.open(f"/proc/{pid}/stat", "rb", buffering=0) as stream:
        return stream.read(1024).rpartition(b")")[2].split()
    return []
