"""The process tree of one worker: kept together, so that it can be found, read and ended as a whole.

A worker leads a session of its own and is its descendants' *subreaper* (`prctl(2)`): a process whose parent has ended
becomes the worker's child, whatever session or group it is in. So all that a call starts stays below its worker, and
nothing of a neighbour's ever does. Where the kernel lacks or forbids one of these, the others still hold: a group, a
session, the descent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

from pytest_membudget.measurement.process.children import descendants

_PR_SET_CHILD_SUBREAPER = 36
_ROUNDS = 100
"""Most searches for processes that were started while others were being ended."""

_IS_LINUX = sys.platform == "linux"


def lead_tree() -> bool:
    """Makes this process the head of a tree of its own; whether it leads a process group now.

    A sandbox may forbid each step (`EPERM`); a worker that cannot lead a group still works.
    """
    adopt_orphans()
    if sys.platform == "win32":
        return False
    for lead in (os.setsid, lambda: os.setpgid(0, 0)):
        with contextlib.suppress(OSError):
            lead()
            break
    return os.getpgid(0) == os.getpid()


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
    _signal(
        root, getattr(signal, "SIGSTOP", None)
    )  # so that it starts nothing more, and still adopts orphans
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
