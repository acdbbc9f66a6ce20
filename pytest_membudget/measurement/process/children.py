"""Children: whether this process has any, what those that ended used, all processes below one, and pipes to them.

A process that was *left behind* is no descendant any more: its parent has ended, and the reaper (pid 1, or a subreaper) has it now. It
is known by what it has of this process: the address of its environment, which is random for each program that is started and the same
in forks of it; in a test the name of the test, which pytest sets in the environment; elsewhere its session or its group, which tests
that run side by side share.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.process.high_water import resident_bytes
from pytest_membudget.originals import fcntl, os, resource, signal, sys

_LINUX = sys.platform.startswith("linux")

_CURRENT_TEST = "PYTEST_CURRENT_TEST"

WAIT_FOR_ALL_KINDS = 0x40000000
"""Linux's `__WALL`: children whose end sends no SIGCHLD count too."""

_ASK_FOR_CHILDREN = os.WEXITED | os.WNOHANG | os.WNOWAIT | WAIT_FOR_ALL_KINDS if hasattr(os, "waitid") else 0


class Reaped(NamedTuple):
    """What the children that were waited for had used, and their children in turn."""

    faults: int = 0
    largest_bytes: int = 0
    """The largest high-water mark that any of their address spaces had; it only grows.

    One that was forked starts with what its parent held, and until it calls exec a child of vfork has its parent's own mark.
    """
    switches: int = 0
    processor_s: float = 0.0


def reaped() -> Reaped:
    """The account of this process's dead children (1 µs). It changes whenever any code of this process waits for one."""
    if sys.platform == "win32":
        return Reaped()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Reaped(
        usage.ru_minflt + usage.ru_majflt,
        usage.ru_maxrss * 1024,
        usage.ru_nvcsw + usage.ru_nivcsw,
        usage.ru_utime + usage.ru_stime,
    )


def are_waited_for() -> bool:
    """Whether children that end show in `reaped`: where SIGCHLD is ignored no child can be waited for."""
    if sys.platform == "win32":
        return True
    # Past its wrapper, which makes an enum of the answer and takes ten times as long.
    handler = signal._signal.getsignal(signal.SIGCHLD)  # type: ignore[attr-defined]  # noqa: SLF001
    return bool(handler != signal.SIG_IGN)


def own_faults() -> int:
    """The page faults of this process, all its threads together (1 µs)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


def has_children() -> bool:
    """Whether this process has children now, of any thread and kind; none of them is waited for (1 µs)."""
    if not _ASK_FOR_CHILDREN:
        return False
    try:
        os.waitid(os.P_ALL, 0, _ASK_FOR_CHILDREN)
    except ChildProcessError:
        return False
    except OSError:
        return True
    return True


def none_since(before: Reaped | None, now: Reaped) -> bool:
    """Whether this process has no children and has waited for none since `reaped` was `before`; it is `now` at present."""
    return are_waited_for() and now == before and not has_children()


def descendants(pid: int | None = None) -> list[int]:
    """The numbers of all processes below `pid` (this one by default); empty for one that is gone."""
    found = children_of(os.getpid() if pid is None else pid)
    for child in found:  # grows while it is walked
        found += children_of(child)
    return found


def children_of(pid: int) -> list[int]:
    """The numbers of the children of all threads of `pid`, those that ended and were not waited for included (20 µs)."""
    return proc.children_of(pid) if _LINUX else _children_by_psutil(pid)


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
    known = {*ours, os.getpid(), *descendants(), *ancestors(os.getpid())}
    pids = proc.processes()
    return 1 not in pids or any(pid not in known and not _is_of_the_kernel(pid) for pid in pids)


def ancestors(pid: int) -> list[int]:
    """The processes above `pid`, its parent first."""
    found: list[int] = []
    while pid:
        status = proc.stat(pid)
        pid = status.parent if status else 0
        found.append(pid)
    return found


def _is_of_the_kernel(pid: int) -> bool:
    """Whether it is a thread of the kernel's, or gone."""
    status = proc.stat(pid)
    return status is None or status.is_of_the_kernel


class LeftBehind:
    """Processes left behind that were started since this was made; without a daemon that called exec outside of a test, what a test gave an environment of its own, and what runs as another user."""

    def __init__(self) -> None:
        self._before = frozenset(proc.processes() if _LINUX else ())
        own = proc.stat(os.getpid()) if _LINUX else None
        self._own_bands = {own.session, own.group} if own is not None else set()
        self._environment_at = own.environment_at if own is not None else 0
        self._reapers = {1} | {
            pid
            for pid in ancestors(os.getpid() if own is not None else 0)
            if (found := proc.stat(pid)) is not None and found.session not in self._own_bands
        }
        self._last_number = b""
        self._found: list[int] = []

    def pids(self) -> list[int]:
        """Their numbers, and those of all processes below them (5 µs where no process has been started since the last call)."""
        last_number = proc.read(".", "loadavg").rpartition(b" ")[2]
        has_changed = not last_number or last_number != self._last_number or self._found or descendants()
        if self._own_bands and has_changed:
            self._last_number = last_number
            new = [pid for pid in proc.processes() if pid not in self._before]
            left = [pid for pid in new if self._is_left(pid)]
            self._found = left + [below for pid in left for below in descendants(pid)]
        return self._found

    def _is_left(self, pid: int) -> bool:
        found = proc.stat(pid)
        if found is None or found.has_ended or found.parent not in self._reapers:
            return False
        if found.environment_at == self._environment_at != 0:
            return True
        test = os.environ.get(_CURRENT_TEST)
        return _was_started_by(test, pid) if test else bool({found.session, found.group} & self._own_bands)


def _was_started_by(test: str, pid: int) -> bool:
    return f"{_CURRENT_TEST}={test}".encode() in proc.read(pid, "environ").split(b"\0")


def pipe() -> tuple[int, int]:
    """Both ends of a pipe, above the standard descriptors: where a program has closed one of those, its number is not ours."""
    reading, writing = os.pipe()
    return above_standard(reading), above_standard(writing)


def above_standard(descriptor: int) -> int:
    """The descriptor, moved where its number is that of standard input, output or errors."""
    if descriptor > 2:
        return descriptor
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(descriptor)
    return moved
