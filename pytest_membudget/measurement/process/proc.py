"""The one reader of /proc: what the kernel's files say of a process, parsed. Linux alone has them.

A process may end at any instant, and a sandbox may hide its files. Then there is nothing to report, and each function says what it
returns for that. `pid` is a process's number, or "self".

Two others read by themselves, and say why: the tree helper (`tree.helper.proc_reader`) keeps the files of each process open through
thousands of scans, and the guard of a command (`fresh.guard`) is one file that needs the standard library alone.
"""

from __future__ import annotations

from typing import NamedTuple

from pytest_membudget.originals import contextlib, os, re

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

_ENDED = frozenset({b"Z", b"X"})
_PF_EXITING = 0x00000004
_PF_FORKNOEXEC = 0x00000040
_PF_KTHREAD = 0x00200000
_CHUNK_BYTES = 65536
_OCTAL = re.compile(r"\\([0-7]{3})")


class KeptOpen:
    """A file of /proc/self that stays open, since to open one costs several times what it costs to read it.

    Code under test may close descriptors that it does not know. A number that came to mean another file must never be read
    as ours, let alone written to, so each use asks what the number means now (1 µs).
    """

    def __init__(self, name: str, flags: int = os.O_RDONLY) -> None:
        self._path = f"/proc/self/{name}"
        self._flags = flags
        self._descriptor = -1
        self._identity: tuple[int, int] | None = None

    def descriptor(self) -> int:
        """The open file, opened when first asked for, and again where the descriptor is no longer ours.

        Raises:
            OSError: it cannot be opened.
        """
        if self._identity is not None:
            try:
                status = os.fstat(self._descriptor)
            except OSError:
                pass
            else:
                if (status.st_dev, status.st_ino) == self._identity:
                    return self._descriptor
        self._descriptor = os.open(self._path, self._flags | os.O_CLOEXEC)
        self._identity = identity(self._descriptor)
        return self._descriptor

    def close(self) -> None:
        """Closes it until it is asked for again: in a forked child, for one, where it is still its parent's."""
        if self._identity is not None and identity(self._descriptor) == self._identity:
            os.close(self._descriptor)
        self._identity = None


def identity(descriptor: int) -> tuple[int, int] | None:
    """The file that the number means, by its device and inode; `None` where it is closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def read(pid: int | str, name: str) -> bytes:
    """A whole file of a process; empty for one that is gone or hidden. A stream would take twice as many system calls."""
    try:
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    found = []
    try:
        with contextlib.suppress(OSError):  # it ended while it was read
            while chunk := os.read(descriptor, _CHUNK_BYTES):
                found.append(chunk)
    finally:
        os.close(descriptor)
    return b"".join(found)


class Sizes(NamedTuple):
    """A process's memory in bytes: mapped, resident, and of that in files and shared memory."""

    mapped_bytes: int
    resident_bytes: int
    shared_bytes: int

    @property
    def anonymous_bytes(self) -> int:
        """Resident memory that belongs to no file."""
        return self.resident_bytes - self.shared_bytes


def sizes(pid: int | str) -> Sizes | None:
    """By `statm`, which is cheap (5 µs); `None` for a process that is gone."""
    return parse_sizes(read(pid, "statm"))


def parse_sizes(statm: bytes) -> Sizes | None:
    """The content of a file `statm`; `None` where there is none."""
    fields = statm.split(None, 3)
    if len(fields) < 3:
        return None
    mapped, resident, shared = fields[:3]
    return Sizes(int(mapped) * PAGE_BYTES, int(resident) * PAGE_BYTES, int(shared) * PAGE_BYTES)


def field_bytes(content: bytes, field: bytes) -> int:
    """A line such as `VmHWM:  1234 kB` of `status` or `smaps_rollup`, in bytes; 0 where there is none."""
    words = content.partition(b"\n" + field + b":")[2].split(None, 1)
    return int(words[0]) * 1024 if words else 0


def proportional_bytes(pid: int | str) -> int | None:
    """The proportional share (PSS): 0.1 ms for a small process, 9 ms for a gigabyte; `None` where the kernel does not say."""
    content = read(pid, "smaps_rollup")
    return field_bytes(content, b"Pss") if content else None


class Shares(NamedTuple):
    """What a process holds, in bytes: with its part in pages that others have as well, without them, and in pages of no file."""

    proportional_bytes: int
    private_bytes: int
    anonymous_bytes: int


def shares(pid: int | str) -> Shares | None:
    """As expensive as `proportional_bytes`; `None` where the kernel does not say."""
    content = read(pid, "smaps_rollup")
    if not content:
        return None
    private_bytes = field_bytes(content, b"Private_Clean") + field_bytes(content, b"Private_Dirty")
    return Shares(field_bytes(content, b"Pss"), private_bytes, field_bytes(content, b"Anonymous"))


class Stat(NamedTuple):
    """What `stat` says of a process. `started` is in clock ticks after the boot."""

    state: bytes
    parent: int
    group: int
    session: int
    flags: int
    threads: int
    started: int
    #: page faults of all its threads
    faults: int
    #: where its environment lies; 0 where that is not ours to know
    environment_at: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether it waits for its parent to hear of its end. The first thread may have ended before the others."""
        return self.state in _ENDED and self.threads <= 1

    @property
    def is_ending(self) -> bool:
        """Whether it has come to its end; its parent may not hear of that yet."""
        return self.has_ended or bool(self.flags & _PF_EXITING)

    @property
    def has_called_exec(self) -> bool:
        """Whether it has an address space of its own for sure."""
        return not self.flags & _PF_FORKNOEXEC

    @property
    def is_of_the_kernel(self) -> bool:
        """Whether it is a thread of the kernel's."""
        return bool(self.flags & _PF_KTHREAD)


def stat(pid: int | str) -> Stat | None:
    """`None` for a process that is gone."""
    # The second field is the program's name in brackets, with whatever characters it has.
    fields = read(pid, "stat").rpartition(b")")[2].split()
    if not fields:
        return None
    faults = int(fields[7]) + int(fields[9])
    parent, group, session, flags, threads, started = (int(fields[column]) for column in (1, 2, 3, 6, 17, 19))
    environment_at = int(fields[47])
    return Stat(fields[0], parent, group, session, flags, threads, started, faults, environment_at)


def processes() -> list[int]:
    """The numbers of all processes that can be seen."""
    return _numbers_in("/proc")


def children_of(pid: int | str) -> list[int]:
    """The children of all its threads, those that ended and were not waited for included (20 µs)."""
    lists = (read(pid, f"task/{thread}/children") for thread in threads(pid))
    return [int(child) for children in lists for child in children.split()]


def threads(pid: int | str = "self") -> list[int]:
    """The numbers of its threads; none for a process that is gone."""
    return _numbers_in(f"/proc/{pid}/task")


def thread_names(pid: int | str = "self") -> dict[int, str]:
    """Its threads, native ones included, and what the kernel calls them."""
    names = ((thread, read(pid, f"task/{thread}/comm")) for thread in threads(pid))
    return {thread: name.decode(errors="replace").strip() for thread, name in names if name}


def descriptors(pid: int | str = "self") -> list[int]:
    """The numbers of its open files; of this process without that of the listing itself."""
    return _numbers_in(f"/proc/{pid}/fd")


def open_files(pid: int | str = "self") -> dict[int, str]:
    """Its open files by descriptor: a path, or what has none, such as `pipe:[1234]`."""
    found = {}
    for descriptor in descriptors(pid):
        with contextlib.suppress(OSError):  # closed meanwhile, as that of the listing is
            found[descriptor] = os.readlink(f"/proc/{pid}/fd/{descriptor}")
    return found


def mapped_files(pid: int | str = "self") -> set[str]:
    """The paths of all files that it maps, such as libraries."""
    lines = (line.split(None, 5) for line in read(pid, "maps").splitlines())
    return {os.fsdecode(fields[5]) for fields in lines if len(fields) == 6 and fields[5].startswith(b"/")}


class Mount(NamedTuple):
    """One line of `mountinfo`: proc_pid_mountinfo(5)."""

    device: int
    root: str
    """Which part of the file system is mounted."""
    point: str
    kind: str
    options: str
    """Of the file system."""


def parse_mounts(mountinfo: str) -> list[Mount]:
    """The content of a file `mountinfo`; lines that are none are left out."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kinds) < 3:
            continue
        major, _, minor = fields[2].partition(":")
        device = os.makedev(int(major), int(minor)) if major.isdigit() and minor.isdigit() else 0
        found.append(Mount(device, _unescaped(fields[3]), _unescaped(fields[4]), kinds[0], kinds[2]))
    return found


def mounts() -> list[Mount]:
    """What is mounted where, as this process sees it."""
    return parse_mounts(os.fsdecode(read("self", "mountinfo")))


def _unescaped(field: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


def _numbers_in(folder: str) -> list[int]:
    try:
        return [int(name) for name in os.listdir(folder) if name.isdigit()]
    except OSError:
        return []
