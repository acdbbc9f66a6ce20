"""What is held at one instant: heap in use, other mappings, descriptors, threads and children."""

from __future__ import annotations

from typing import Any, NamedTuple

import psutil

from pytest_membudget.measurement.process.children import children_of
from pytest_membudget.measurement.process.heap import heap_is_known, read_heap
from pytest_membudget.measurement.process.small_blocks import SmallBlockReader
from pytest_membudget.originals import builtins, gc, os, re, resource, sys, threading, time

_SETTLE_S = 0.03
_SETTLE_IN_ALL_S = 0.2
_ACCESSIBLE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) (?!---)", re.MULTILINE)
_MAIN_STACK = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) .*\[stack\]$", re.MULTILINE)
_LINUX = sys.platform.startswith("linux")


class Figures(NamedTuple):
    """Bytes and counts after a collection.

    `heap_bytes`: malloc in use, what malloc mapped, and Python's small blocks. `mapped_bytes`: mappings that belong to
    neither and are accessible, the stacks of threads left out; moves by whole pages.
    """

    heap_bytes: int
    mapped_bytes: int
    descriptors: int
    threads: int
    children: int


class FigureReader:
    """Takes exact figures of this process. `close` it in the end: it holds a file open."""

    def __init__(self) -> None:
        self._blocks = SmallBlockReader()
        self._waiting_left_s = _SETTLE_IN_ALL_S
        self.caveats = tuple(self._doubts())

    def read(self) -> Figures:
        """Collects garbage and reads. Waits a moment for threads and children that are about to be gone."""
        gc.collect()
        blocks = self._blocks.read()
        malloc = read_heap()
        heap_bytes = blocks.used_bytes + malloc.used_bytes + malloc.mapped_bytes
        threads = count_threads()
        other_bytes = malloc.system_bytes + malloc.mapped_bytes + blocks.arena_bytes
        other_bytes += max(0, threads - 1) * _thread_stack_bytes()
        mapped_bytes = _accessible_bytes() - other_bytes
        return Figures(heap_bytes, mapped_bytes, count_descriptors(), threads, count_children())

    def read_settled(self, before: Figures) -> Figures:
        """Like `read`, once threads and children beyond those of `before` have had a moment to end.

        Those that do not end are not waited for time and again: there are 200 ms for all readings together.
        """
        give_up_at = time.perf_counter() + min(_SETTLE_S, self._waiting_left_s)
        while count_threads() > before.threads or count_children() > before.children:
            if time.perf_counter() > give_up_at:
                self._waiting_left_s = max(0.0, self._waiting_left_s - _SETTLE_S)
                break
            time.sleep(0.001)
        return self.read()

    def close(self) -> None:
        """Gives the file back."""
        self._blocks.close()

    def _doubts(self) -> list[str]:
        doubts = []
        if not self._blocks.exact:
            doubts.append(
                "this interpreter does not tell the bytes of its small blocks: each was counted as 16 B, the least"
            )
        if not heap_is_known():
            doubts.append("malloc's own figures cannot be read here: native memory shows by whole pages only")
        if not _LINUX:
            doubts.append("mappings outside malloc are not seen on this system")
        return doubts


def count_descriptors() -> int:
    """Open descriptors of this process (handles on Windows)."""
    if _LINUX or sys.platform == "darwin":
        return len(os.listdir("/proc/self/fd" if _LINUX else "/dev/fd"))
    process: Any = psutil.Process()
    return int(process.num_handles())


def count_threads() -> int:
    """Threads of this process, native ones included where the system lists them."""
    return len(os.listdir("/proc/self/task")) if _LINUX else threading.active_count()


def count_children() -> int:
    """Children of this process, those that ended and were never waited for included."""
    return len(children_of(os.getpid()))


def _accessible_bytes() -> int:
    """All mappings but the main stack, which grows with the depth of calls, and what is only reserved."""
    if not _LINUX:
        return 0
    with builtins.open("/proc/self/maps", "rb") as maps:
        text = maps.read()
    sizes = sum(int(end, 16) - int(begin, 16) for begin, end in _ACCESSIBLE.findall(text))
    stack = _MAIN_STACK.search(text, max(0, len(text) - 1000))
    return sizes - (int(stack[2], 16) - int(stack[1], 16) if stack else 0)


def _thread_stack_bytes() -> int:
    """The size of a new thread's stack: glibc goes by the limit of the main one."""
    if not _LINUX:
        return 0
    limit, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return threading.stack_size() or (2 << 20 if limit == resource.RLIM_INFINITY else limit)
