"""What this process itself knows of its children, at next to no cost: whether it has any, whether any has ended."""

from __future__ import annotations

import os
import signal
import sys
from typing import NamedTuple

if sys.platform != "win32":
    import resource

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
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Reaped(
        usage.ru_minflt + usage.ru_majflt,
        usage.ru_maxrss * 1024,
        usage.ru_nvcsw + usage.ru_nivcsw,
        usage.ru_utime + usage.ru_stime,
    )


def are_waited_for() -> bool:
    """Whether children that end show in `reaped`: where SIGCHLD is ignored nobody can be waited for."""
    return signal.getsignal(signal.SIGCHLD) is not signal.SIG_IGN


def own_faults() -> int:
    """The page faults of this process, all its threads together (1 µs)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


def has_children() -> bool:
    """Whether this process has children now, of any thread and kind; none of them is waited for (1 µs)."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | WAIT_FOR_ALL_KINDS)
    except ChildProcessError:
        return False
    except OSError:
        return True
    return True
