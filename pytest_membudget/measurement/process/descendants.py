"""Which processes another one has started: its children, and all that descend from them."""

from __future__ import annotations

import contextlib
import os
import sys

_LINUX = sys.platform.startswith("linux")


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
    with open(file, "rb", buffering=0) as listing:  # noqa: PTH123 - read thousands of times
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
