"""What is held at one instant: heap in use, other mappings, descriptors, threads and children."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from pytest_membudget.measurement.growth.caches import cache_steadier
from pytest_membudget.measurement.growth.foreign_memory import (
    RESERVED_BYTES,
    ForeignAllocators,
    ResidentPages,
    anonymous_bytes,
    arrow_bytes,
)
from pytest_membudget.measurement.growth.shared_files import SharedFiles, mapped_by_inode
from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.process.children import LeftBehind, children_of, descendants
from pytest_membudget.measurement.process.heap import heap_is_known, read_heap
from pytest_membudget.measurement.process.small_blocks import SmallBlockReader
from pytest_membudget.originals import (
    contextlib,
    gc,
    os,
    re,
    resource,
    restored,
    sys,
    threading,
    time,
)
from pytest_membudget.records.judgement import ResourceGrowth
from pytest_membudget.stats.growth import Trend
from pytest_membudget.units import format_size

_SETTLE_S = 0.03
_SETTLE_IN_ALL_S = 0.2
_ACCESSIBLE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) (?!---)", re.MULTILINE)
_MAIN_STACK = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) .*\[stack\]$", re.MULTILINE)
_LINUX = sys.platform.startswith("linux")


PAGED_ALLOWANCE_BYTES = 1 << 20


class Figures(NamedTuple):
    """Bytes and counts after a collection.

    `heap_bytes`: malloc in use, what malloc mapped, Python's small blocks, and what other allocators say that they have handed out.
    `small_bytes`: Python's small blocks alone (objects up to 512 bytes), which stay quiet where large buffers come and go.
    `mapped_bytes`: mappings that belong to none of these and are accessible, the stacks of threads left out; moves by whole pages; 0
    where another allocator has malloc's place, whose mappings they would be.
    `resident_bytes`: pages that belong to none of these, where an allocator is loaded that only they show; 0 elsewhere.
    `children_bytes`: resident memory of all descendants and of processes that were left behind, which `children` counts too. `files_bytes`, `shared_bytes`: shared memory beyond what is mapped of it, in files
    in `/dev/shm` that were made meanwhile, and in other files in memory that are open and segments of System V. `segments` counts new ones.
    """

    heap_bytes: int
    small_bytes: int
    mapped_bytes: int
    resident_bytes: int
    children_bytes: int
    files_bytes: int
    shared_bytes: int
    descriptors: int
    threads: int
    children: int
    segments: int


EXACT_BYTES = ("heap_bytes", "mapped_bytes")
PAGED_BYTES = ("resident_bytes", "children_bytes", "files_bytes", "shared_bytes")
"""Known by whole pages, and with what allocators keep: judged only beyond an allowance."""
OF_SHARED_FILES = ("files_bytes", "segments")


class FigureReader:
    """Takes the figures of this process and of what it has started. `close` it in the end: it holds a file open."""

    def __init__(self) -> None:
        self._blocks = SmallBlockReader()
        self._steady = cache_steadier()
        self._pages = ResidentPages()
        self.shared_files = SharedFiles()
        self.left_behind = LeftBehind()
        self.own_bytes = 0  # of the heap: what instruments of the check have left there
        self._waiting_left_s = _SETTLE_IN_ALL_S
        self._foreign = ForeignAllocators()

    def read(self) -> Figures:
        """Collects garbage, steadies known caches and reads. Waits a moment for threads and children that are about to be gone."""
        gc.collect()
        self._steady()
        blocks = self._blocks.read()
        malloc = read_heap()
        foreign = self._foreign
        in_use_bytes = malloc.used_bytes + malloc.mapped_bytes + arrow_bytes() + foreign.used_bytes()
        threads = count_threads()
        other_bytes = malloc.system_bytes + malloc.mapped_bytes + blocks.arena_bytes
        other_bytes += max(0, threads - 1) * _thread_stack_bytes()
        left_behind = self.left_behind.pids()
        below = [*descendants(), *left_behind]
        maps = proc.read("self", "maps") if _LINUX else b""
        shared = self.shared_files.read(mapped_by_inode(maps))
        accessible_bytes, reserved_bytes = self._mapped_bytes(maps)
        return Figures(
            heap_bytes=blocks.used_bytes + in_use_bytes - self.own_bytes,
            small_bytes=blocks.used_bytes,
            mapped_bytes=0 if foreign.preloaded else accessible_bytes - other_bytes,
            resident_bytes=self._foreign_bytes(in_use_bytes + blocks.arena_bytes, reserved_bytes),
            children_bytes=sum(map(anonymous_bytes, below)),
            files_bytes=shared.files_bytes,
            shared_bytes=shared.held_bytes,
            descriptors=count_descriptors(),
            threads=threads,
            children=count_children() + len(left_behind),
            segments=shared.segments,
        )

    def _foreign_bytes(self, known_bytes: int, reserved_bytes: int) -> int:
        if self._foreign.preloaded or self._foreign.unknown:
            return anonymous_bytes(os.getpid()) - known_bytes
        # Of Arrow's pool it is known what it has handed out; what it keeps besides comes and goes.
        return 0 if "pyarrow" in sys.modules else reserved_bytes

    def _mapped_bytes(self, text: bytes) -> tuple[int, int]:
        """All mappings but the main stack, which grows with the depth of calls; and the resident part of what is only reserved."""
        total = reserved = 0
        for first, last in _ACCESSIBLE.findall(text):
            begin, end = int(first, 16), int(last, 16)
            if end - begin < RESERVED_BYTES:
                total += end - begin
            elif "pyarrow" not in sys.modules and not self._foreign.preloaded and not self._foreign.unknown:
                reserved += self._pages.bytes_of(begin, end)
        stack = _MAIN_STACK.search(text, max(0, len(text) - 1000))
        return total - (int(stack[2], 16) - int(stack[1], 16) if stack else 0), reserved

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

    @property
    def counts_mappings_twice(self) -> bool:
        """Whether the mappings of a library's allocator hold what is in another figure already."""
        return bool(self._foreign.imported)

    @property
    def has_unknown_allocator(self) -> bool:
        """Whether some memory shows by whole pages only, those that are kept after they were freed included."""
        return bool(self._foreign.unknown)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What these figures cannot tell here."""
        doubts = []
        if not self._blocks.exact:
            doubts.append(
                "this interpreter does not tell the bytes of its small blocks: each was counted as 16 B, the least"
            )
        if not heap_is_known():
            doubts.append("malloc's own figures cannot be read here: native memory shows by whole pages only")
        if not _LINUX:
            doubts.append("mappings outside malloc are not seen on this system")
        if self._foreign.unknown:
            doubts.append(
                f"{', '.join(self._foreign.unknown)}: an allocator of its own, of which only whole pages can be read, and they include "
                f"what it keeps after it was freed: growth below {format_size(PAGED_ALLOWANCE_BYTES)} in all would not show there"
            )
        return tuple(doubts)


def count_descriptors() -> int:
    """Open descriptors of this process (handles on Windows)."""
    if _LINUX:
        return len(proc.descriptors())
    if sys.platform == "darwin":
        return len(os.listdir("/dev/fd"))
    process: Any = psutil.Process()
    return int(process.num_handles())


def count_threads() -> int:
    """Threads of this process, native ones included where the system lists them."""
    return len(proc.threads()) if _LINUX else threading.active_count()


def count_children() -> int:
    """Children of this process, those that ended and were never waited for included."""
    return len(children_of(os.getpid()))


def _thread_stack_bytes() -> int:
    """The size of a new thread's stack: glibc goes by the limit of the main one."""
    if not _LINUX:
        return 0
    limit, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return threading.stack_size() or (2 << 20 if limit == resource.RLIM_INFINITY else limit)


_MOST_EXAMPLES = 5


class Inventory(NamedTuple):
    """What was open or running at one moment: a name for each, by its number."""

    descriptors: dict[int, str]
    threads: dict[int, str]
    children: dict[int, str]

    @classmethod
    def take(cls, left_behind: Iterable[int] = ()) -> Inventory:
        """Lists everything there is now, with the processes that were left behind."""
        with restored():
            children = {pid: _process_name(pid) for pid in children_of(os.getpid())}
            children |= {pid: f"{_process_name(pid)}, left behind" for pid in left_behind}
            return cls(_descriptors(), _threads(), children)

    def growth(self, trends: dict[str, Trend], reader: FigureReader) -> tuple[ResourceGrowth, ...]:
        """The kinds of which `trends` says that they grow, with those that have appeared since this inventory."""
        growing = [kind for kind in self._fields if trends[kind].direction == "growing"]
        segments = trends["segments"]
        found = []
        if segments.direction == "growing":
            found.append(
                ResourceGrowth(
                    "segments", segments.slope, tuple(reader.shared_files.examples()[:_MOST_EXAMPLES])
                )
            )
        if not growing:
            return tuple(found)
        now = Inventory.take(reader.left_behind.pids())
        return *found, *(
            ResourceGrowth(kind, trends[kind].slope, _most_common(getattr(self, kind), getattr(now, kind)))  # type: ignore[arg-type]  # the fields are the kinds
            for kind in growing
        )


def _most_common(before: dict[int, str], now: dict[int, str]) -> tuple[str, ...]:
    added = Counter(name for number, name in now.items() if before.get(number) != name)
    return tuple(f"{name} ({count}x)" for name, count in added.most_common(_MOST_EXAMPLES))


def _descriptors() -> dict[int, str]:
    if _LINUX:
        return {number: name.split(":[", maxsplit=1)[0] for number, name in proc.open_files().items()}
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for number in os.listdir("/dev/fd"):
            # The descriptor of the listing itself is gone by now.
            with contextlib.suppress(OSError):
                found[int(number)] = str(Path("/dev/fd", number).readlink())
    return found


def _threads() -> dict[int, str]:
    # eventlet's threads have no such number.
    named = {getattr(thread, "native_id", None) or 0: thread.name for thread in threading.enumerate()}
    native = proc.thread_names() if _LINUX else {}
    return {number: f"native thread {name!r}" for number, name in native.items()} | named


def _process_name(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return f"{process.name()} ({process.status()})"
    except psutil.Error:
        return "a process that has ended"
