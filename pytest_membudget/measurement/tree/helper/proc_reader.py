"""Reads processes from /proc for the helper: their sizes and faults, and what files and shared memory they map.

Beside `measurement.process.proc`, because the helper knows nothing of this package, and because it reads each process thousands of
times: the files of a process stay open, which makes a reading 5 µs instead of 30. They follow a process through exec.
"""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from .records import PAGE, Reading

Mappings = dict[bytes, tuple[int, int]]
"""By device and inode: the first byte offset that is mapped, and the last."""


def read_mappings(pid: int) -> Mappings:
    """What one process maps now."""
    with open(f"/proc/{pid}/maps", "rb", buffering=0) as stream:  # noqa: PTH123 - hot path
        lines = stream.readall().splitlines()
    found: Mappings = {}
    for line in lines:
        addresses, _, offset, device, inode = line.split(None, 5)[:5]
        if inode == b"0":
            continue
        low, _, high = addresses.partition(b"-")
        first = int(offset, 16)
        last = first + int(high, 16) - int(low, 16)
        key = device + b" " + inode
        known = found.get(key, (first, last))
        found[key] = (min(first, known[0]), max(last, known[1]))
    return found


def mapped_limit(mappings: list[Mappings], without: set[bytes]) -> int:
    """The most that processes with these mappings can have mapped together, each file once, but for some devices."""
    spans: Mappings = {}
    for mapping in mappings:
        for inode, (first, last) in mapping.items():
            if inode.partition(b" ")[0] not in without:
                known = spans.get(inode, (first, last))
                spans[inode] = (min(first, known[0]), max(last, known[1]))
    return sum(last - first for first, last in spans.values())


class Devices:
    """Which devices hold files and which hold shared memory, by what is mounted; the others may hold either."""

    def __init__(self, root: int) -> None:
        self.files: set[bytes] = set()
        self.memory: set[bytes] = set()
        with open(f"/proc/{root}/mountinfo", "rb", buffering=0) as stream:  # noqa: PTH123 - starts faster
            lines = stream.readall().splitlines()
        for line in lines:
            before, _, after = line.partition(b" - ")
            major, _, minor = before.split()[2].partition(b":")
            device = b"%02x:%02x" % (int(major), int(minor))
            in_memory = after.split(None, 1)[0] in {b"tmpfs", b"devtmpfs", b"ramfs"}
            (self.memory if in_memory else self.files).add(device)
        with contextlib.suppress(OSError):
            self.memory.add(_anonymous_device())
        self.files -= self.memory


def _anonymous_device() -> bytes:
    """The device of shared memory that no mount names: anonymous, System V, and memfd."""
    descriptor = os.memfd_create("membudget", os.MFD_CLOEXEC)
    device = os.fstat(descriptor).st_dev
    os.close(descriptor)
    return b"%02x:%02x" % (os.major(device), os.minor(device))


SPLIT_STEP_BYTES = 256 * 1024
"""Shared pages are split into files and shared memory again when they have changed by this much."""

ENDED = {b"Z", b"X"}
STATUS_BYTES = 16384
"""A user in hundreds of groups has a long `status`, and sizes come behind the groups."""
PART_BYTES = 32768
"""Of /proc/vmstat; the kernel gives 4 KiB at a time."""
_LAST_OF_HUGE_PAGES = b"\nthp_collapse_alloc "
TRIES = 3
LATE_FAULTS = 64
"""A reading during which its process faulted in more pages than this is taken again."""

MAPPINGS_STEP_BYTES = 1024 * 1024
MAPPINGS_PART = 32
MAPPINGS_REST_BYTES = 128 * 1024
"""Mappings are looked up again when what is resident of them has changed by the first or by one part in so many,
and once a process stands still by the last."""


class Process:
    """One process of the tree. Every method raises `OSError` once it is gone."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.name = ""
        self.parent = 0
        self.ended = False
        """Whether it has ended and waits for its parent to hear of that."""
        self.is_clearing = False
        """Whether it is about to end: its memory shows nowhere, but others may still share it."""
        self.statm = b""
        self._fds: list[int] = []
        try:
            for name in ("stat", "statm", "status"):
                self._fds.append(os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self.close()
            raise
        self._split: tuple[int, int, int] | None = None
        self._before: Reading | None = None
        self._named_fork_group: object = None
        self._statm_before = b""
        self._maps_at: Reading | None = None
        self._maps_faults = -1
        self._maps: Mappings = {}

    def close(self) -> None:
        """Gives the descriptors back."""
        for descriptor in self._fds:
            os.close(descriptor)
        self._fds = []

    def read(self) -> Reading:
        """Takes one reading; a process that has ended and waits for its parent holds nothing more.

        Faults are read first and sizes afterwards. One that faults in much meanwhile, because this process had to wait
        for its turn, is read again.

        Raises:
            OSError: the process is gone.
        """
        for _ in range(TRIES):
            reading = self._read_once()
            if reading.late_faults <= LATE_FAULTS:
                break
        self._before = reading
        self._statm_before = self.statm
        return reading

    def _read_once(self) -> Reading:
        fields = self._stat()
        faults = int(fields[7]) + int(fields[9])
        reaped_faults = int(fields[8]) + int(fields[10])
        self.parent = int(fields[1])
        # The place of the stack is drawn again by exec and inherited by fork. It is 0 once the memory is gone.
        fork_group: object = (fields[25], fields[24])
        if fields[25] == b"0":
            fork_group = self._before.fork_group if self._before else self.pid
        if fields[0] in ENDED:
            return self._gone(fields, fork_group)
        self.statm = os.pread(self._fds[1], 128, 0)
        sizes = self.statm.split()
        resident, shared = int(sizes[1]) * PAGE, int(sizes[2]) * PAGE
        if not resident:
            # It has ended since its faults were read: the later ones belong to them, all in one scan.
            return self._gone(self._stat(), fork_group, faults)
        file, shmem = self._split_shared(shared, fork_group)
        anon = max(0, resident - shared)
        mark = self._mark(anon, faults)
        late_faults = 0
        if self._before is None or faults != self._before.faults or self.statm != self._statm_before:
            fields = self._stat()
            late_faults = max(0, int(fields[7]) + int(fields[9]) - faults)
        return Reading(
            self.pid,
            anon,
            file=file,
            shmem=shmem,
            faults=faults,
            late_faults=late_faults,
            reaped_faults=reaped_faults,
            fork_group=fork_group,
            mark=mark,
            parent=self.parent,
        )

    def _gone(self, fields: list[bytes], fork_group: object, before: int = 0) -> Reading:
        """A process that holds nothing more, and had so many faults `before`."""
        self.ended = fields[0] in ENDED
        self.is_clearing = not self.ended
        faults = int(fields[7]) + int(fields[9])
        reaped_faults = int(fields[8]) + int(fields[10])
        if faults < before:  # its parent is about to have them all on its account
            faults = reaped_faults = 0
        return Reading(
            self.pid, 0, faults=faults, reaped_faults=reaped_faults, fork_group=fork_group, parent=self.parent
        )

    def _stat(self) -> list[bytes]:
        """The fields of `stat` after the name, which may hold blanks and parentheses."""
        stat = os.pread(self._fds[0], 1024, 0)
        return stat[stat.rindex(b")") + 2 :].split()

    def mappings(self, reading: Reading) -> Mappings:
        """Mapped files and shared memory as inode → (first, last) byte offset, as of when they were last looked up.

        Notes in the reading how much of its shared memory may be other than before.
        """
        at, still = self._maps_at, reading.faults == self._maps_faults
        self._maps_faults = reading.faults
        if at is not None:
            refilled = self._refilled(reading)
            changed = max(abs(reading.file - at.file), abs(reading.shmem - at.shmem), refilled)
            step = max(MAPPINGS_STEP_BYTES, (at.file + at.shmem) // MAPPINGS_PART)
        if at is None or changed >= (min(step, MAPPINGS_REST_BYTES) if still else step):
            self._maps_at = reading
            before, self._maps = self._maps, read_mappings(self.pid)
            if at is not None and self._maps != before:
                reading.swapped = refilled
        return self._maps

    def mapped_since(self, reading: Reading) -> tuple[int, int]:
        """By how much resident pages of files and of shared memory have grown since the mappings were looked up."""
        at = self._maps_at or Reading(self.pid, 0)
        return max(0, reading.file - at.file), max(0, reading.shmem - at.shmem, self._refilled(reading))

    def _refilled(self, reading: Reading) -> int:
        """What of its shared memory may have been faulted in since the mappings were looked up."""
        before = self._maps_at.faults if self._maps_at else 0
        return min(reading.shmem, (reading.faults + reading.late_faults - before) * PAGE)

    def proportional(self) -> dict[bytes, int]:
        """Fields of `smaps_rollup` in bytes. Opened each time: an open one keeps the address space from before an exec."""
        descriptor = os.open(f"/proc/{self.pid}/smaps_rollup", os.O_RDONLY | os.O_CLOEXEC)
        try:
            lines = os.read(descriptor, 4096).splitlines()[1:]
        finally:
            os.close(descriptor)
        return {
            name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(b":") for line in lines)
        }

    def high_water(self) -> int:
        """The process's own high-water mark of resident memory."""
        return _number(os.pread(self._fds[2], STATUS_BYTES, 0), b"VmHWM:") * 1024

    def _split_shared(self, shared: int, fork_group: object) -> tuple[int, int]:
        if fork_group != self._named_fork_group:
            self._named_fork_group = fork_group
            self.name = _name(self.pid)
            self._split = None
            self._maps_at = None
        if self._split is None or abs(shared - self._split[0]) >= SPLIT_STEP_BYTES:
            status = os.pread(self._fds[2], STATUS_BYTES, 0)
            self._split = (shared, _number(status, b"RssFile:") * 1024, _number(status, b"RssShmem:") * 1024)
        at, file, shmem = self._split
        # A small change since the split goes to the larger part.
        return (file, max(0, shmem + shared - at)) if shmem > file else (max(0, file + shared - at), shmem)

    def _mark(self, anon: int, faults: int) -> int | None:
        """The high-water mark, read only where far more was faulted in than is there: it bounds such a churn."""
        before = self._before
        if before is None or (faults - before.faults) * PAGE < max(0, anon - before.anon) + SPLIT_STEP_BYTES:
            return None
        return self.high_water() or None  # a process that is about to end has none any more


class Identity(NamedTuple):
    """A process, its parent, its process group and its session."""

    pid: int
    parent: int
    group: int
    session: int


def identity(pid: int) -> Identity | None:
    """What is known of the process that a number belongs to; a thread's number leads to its process."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as stream:  # noqa: PTH123 - hot path
            status = stream.read(STATUS_BYTES)
    except OSError:
        return None
    numbers = (_number(status, name, -1) for name in (b"\nTgid:", b"\nPPid:", b"\nNSpgid:", b"\nNSsid:"))
    return Identity(*numbers)


def started_ticks(pid: int) -> int:
    """When it started, in ticks since the machine did; 0 where that is not known."""
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else 0


def has_memory(pid: int) -> bool:
    """Whether it lives, and is not only waited for."""
    fields = _stat_fields(pid)
    return bool(fields) and fields[0] not in ENDED


def _stat_fields(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb", buffering=0) as stream:  # noqa: PTH123 - likewise
        return stream.read(1024).rpartition(b")")[2].split()
    return []


def huge_pages() -> int:
    """Huge pages that this machine has handed out so far; 0 where it has none, or where they are hidden."""
    try:
        with open("/proc/vmstat", "rb", buffering=0) as stream:  # noqa: PTH123 - hot path
            text = stream.read(PART_BYTES)
            while _LAST_OF_HUGE_PAGES not in text and (more := stream.read(PART_BYTES)):
                text += more
    except OSError:
        return 0
    return sum(_number(text, name) for name in (b"\nthp_fault_alloc ", _LAST_OF_HUGE_PAGES))


def huge_pages_are_hidden() -> bool:
    """Whether this machine may hand out huge pages and does not show how many."""
    if os.access("/proc/vmstat", os.R_OK):
        return False
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled", "rb", buffering=0) as stream:  # noqa: PTH123 - starts faster
            return b"[never]" not in stream.read(128)
    except OSError:
        return False


def shared_outside(root: int) -> bool:
    """Whether the root was forked, without exec, from a process that lives: that one shares memory with the tree."""
    try:
        own = Process(root)
        own_fork_group = own.read().fork_group
        own.close()
        parent = Process(own.parent)
        fork_group = parent.read().fork_group
        parent.close()
    except OSError:
        return False
    return own_fork_group == fork_group


def _number(text: bytes, name: bytes, missing: int = 0) -> int:
    at = text.find(name)
    return int(text[at + len(name) :].split(None, 1)[0]) if at >= 0 else missing


def _name(pid: int) -> str:
    """The program, and for an interpreter the script or module it runs; arguments may hold secrets and stay out.

    A process names itself, so the name is made fit to be shown.
    """
    return printable(_own_name(pid))


def printable(name: str) -> str:
    """`name` with the signs that a terminal obeys as their escapes."""
    return name if name.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def _own_name(pid: int) -> str:
    with open(f"/proc/{pid}/comm", "rb", buffering=0) as stream:  # noqa: PTH123 - likewise
        name = stream.read(64).strip().decode(errors="replace")
    with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as stream:  # noqa: PTH123 - likewise
        words = stream.read(4096).split(b"\0")
    if len(words) > 2 and words[1] == b"-m":
        return f"{name} -m {words[2].decode(errors='replace')[:40]}"
    if name.startswith("python") and len(words) > 1 and words[1] and not words[1].startswith(b"-"):
        return f"{name} {os.path.basename(words[1]).decode(errors='replace')[:40]}"  # noqa: PTH119 - bytes
    return name
