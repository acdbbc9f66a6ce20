"""The process tree of one worker: kept together, so that it can be found, read and ended as a whole.

A worker leads a session of its own and is its descendants' *subreaper* (`prctl(2)`): a process whose parent has ended
becomes the worker's child, whatever session or group it is in. So all that a call starts stays below its worker, and
nothing of a neighbour's ever does. Where the kernel lacks or forbids one of these, the others still hold: a group, a
session, the descent.

A worker whose call has a limit is also put into a control group of its own, where one can be made. The coordinator reads
every worker's tree and ends what exceeds its limit; that is exact, but late by a reading, and 400 MB/s is 8 MB between two. What
was resident before stays charged elsewhere, so the group counts what calls add. Its limit is a little above the call's: page tables
and other memory of the kernel count there as well, and a tree that is read in time is ended by its own figure.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

from pytest_membudget.measurement.process.children import descendants
from pytest_membudget.measurement.system.control_group import ControlGroup, make_control_group

_PR_SET_CHILD_SUBREAPER = 36
_ROUNDS = 100
"""Most searches for processes that were started while others were being ended."""

_EXCESS_SHARE = 0.03
_EXCESS_BYTES = 2 * 1024 * 1024
"""What the kernel lets a call take above its limit."""

_HELPER_BYTES = 8 * 1024 * 1024
"""What the helper may take that measures a call's tree. It is started by the first call that starts anything."""

_IS_LINUX = sys.platform == "linux"


def lead_tree() -> None:
    """Makes this process the head of a tree of its own, which leads a process group.

    A sandbox may forbid each step (`EPERM`); a worker that cannot lead a group still works.
    """
    adopt_orphans()
    if sys.platform == "win32":
        return
    for lead in (os.setsid, lambda: os.setpgid(0, 0)):
        with contextlib.suppress(OSError):
            lead()
            return


def adopt_orphans() -> None:
    """Has processes below this one become its children when their parent ends."""
    if _IS_LINUX:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_at_hang_up(lifeline: int, number: int) -> None:
    """Has the kernel signal this process and its group when the other end of the pipe `lifeline` is closed.

    The other end is held by the program alone, so this is its end, however it came about. No thread waits for that:
    the signal also reaches a process that is stopped, or stuck in an import (`F_SETSIG` and `O_ASYNC` in `fcntl(2)`).

    Args:
        lifeline: the reading end; nothing is ever written to the other one.
        number: the signal to send.
    """
    import fcntl

    fcntl.fcntl(lifeline, fcntl.F_SETSIG, number)  # type: ignore[attr-defined,unused-ignore] # Linux
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgid(0) if os.getpgid(0) == os.getpid() else os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if _has_hung_up(lifeline):  # before anything was armed
        os.kill(os.getpid(), number)


def end_tree(root: int) -> None:
    """Kills a worker and everything that it has started, also what left its group or session."""
    # While it is stopped it starts nothing more, and still adopts orphans.
    _signal(root, getattr(signal, "SIGSTOP", None))
    end_descendants(root)
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            if os.getpgid(root) == root:
                os.killpg(root, signal.SIGKILL)
    _signal(root, _KILL)


def end_descendants(root: int, keep: frozenset[int] = frozenset()) -> None:
    """Kills everything below `root` but the processes in `keep` and what is below these."""
    ended: set[int] = set()
    for _ in range(_ROUNDS):
        found = set(descendants(root)) - ended - keep
        for kept in keep:
            found -= set(descendants(kept))
        if not found:
            return
        for pid in found:
            _signal(pid, _KILL)
        ended |= found


class HeldGroup:
    """A worker's control group, as the coordinator sees it."""

    def __init__(self) -> None:
        self._group: ControlGroup | None = None
        self._cannot_be_made = False

    def address(self) -> tuple[int, str] | None:
        """What the worker needs to enter it; `None` where no group can be made."""
        if self._group is None and not self._cannot_be_made:
            self._group = make_control_group(None, stands_still=False)
            self._cannot_be_made = self._group is None
        return None if self._group is None else self._group.address

    def has_reached_limit(self) -> bool:
        """Whether the kernel has ended something there."""
        return self._group is not None and self._group.has_reached_limit()

    def close(self) -> None:
        """Removes the group, and what calls have left running in it."""
        if self._group is not None:
            self._group.close()
            self._group = None


class HeldCalls:
    """The same group, as its worker sees it."""

    def __init__(self) -> None:
        self._group: ControlGroup | None = None
        self._is_held = False

    def begin(self, limit_bytes: int | None, address: tuple[int, str] | None, *, has_helper: bool) -> None:
        """Just before a call. Where the kernel refuses, the coordinator's readings alone keep the limit."""
        if limit_bytes is None or address is None:
            if self._is_held:
                self._set_limit(None)
            return
        if self._group is None:
            self._group = ControlGroup(*address)
            with contextlib.suppress(OSError):
                self._group.entrance.write_text(str(os.getpid()), encoding="ascii")
        excess_bytes = int(limit_bytes * _EXCESS_SHARE) + _EXCESS_BYTES + (0 if has_helper else _HELPER_BYTES)
        self._set_limit(self._group.used_bytes() + limit_bytes + excess_bytes)

    def _set_limit(self, limit_bytes: int | None) -> None:
        if self._group is not None:
            with contextlib.suppress(OSError):
                self._group.set_limit(limit_bytes)
                self._is_held = limit_bytes is not None


_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def _signal(pid: int, number: int | None) -> None:
    if number is not None:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def _has_hung_up(descriptor: int) -> bool:
    import select

    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))
