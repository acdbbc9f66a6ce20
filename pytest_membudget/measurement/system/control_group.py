"""Memory control groups: the limits that bind this process, and groups of our own with a limit that the kernel holds.

A process is bound by its own group and every ancestor, in versions 1 and 2. Which group it is in comes from `/proc/self/cgroup`,
where that is mounted from `/proc/self/mountinfo`: inside a container the two need not agree, since a bind mount or a cgroup
namespace shows only part of the hierarchy.

A group of our own can be made

- in version 1 by root, who may have the kernel not kill: a process that would exceed the limit stands still instead, until
  the group is ended as a whole (`has_reached_limit`, `kill`); a system call that would exceed it fails with ENOMEM. Otherwise
  the kernel ends the largest process;
- in version 2 where a part of the tree is delegated to this user: the kernel ends the group as a whole. A group that has processes
  hands no memory controller down ("no internal processes", cgroups(7)), so the new one usually stands beside this process's own:
  under the user's manager of systemd, with `DelegateSubgroup=`, or where an administrator has made the groups. Not where
  our own group sets limits, which would hold for the new one no more.

What counts is what the kernel charges to the group: resident and swapped memory, shared memory and files in tmpfs, page cache that
cannot be given up, and the kernel's own for these processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pytest_membudget.measurement.process import proc
from pytest_membudget.originals import contextlib, os, signal, sys, time

_PREFIX = "membudget-"
_REMOVE_S = 2.0
_LIMITS = ("memory.max", "memory.high", "memory.swap.max", "pids.max", "cpu.max", "cpuset.cpus")
UNLIMITED_BYTES = 2**62
"""Version 1 writes its "no limit" as the largest multiple of the page size below 2**63."""


class Constraint(NamedTuple):
    """One limit: its size, what is used under it without page cache, and its name, in bytes."""

    limit_bytes: int
    used_bytes: int
    source: str


class Group(NamedTuple):
    """A mounted control group with a memory controller: version, directory and the name it has there."""

    version: int
    directory: Path
    name: str


def groups(root: Path) -> list[Group]:
    """This process's memory groups, innermost first, each with its ancestors; `root` holds `proc` and the mounts."""
    paths = _paths_by_version(_text(root / "proc/self/cgroup"))
    found: dict[Path, Group] = {}
    for mount in proc.parse_mounts(_text(root / "proc/self/mountinfo")):
        version = _version_of(mount)
        path = paths.get(version)
        if path is None:
            continue
        top = root / mount.point.lstrip("/")
        for inner in _ancestry(path, PurePosixPath(mount.root)):
            directory = top / inner
            found.setdefault(directory, Group(version, directory, f"/{inner}".replace("/.", "/")))
    return list(found.values())


def group_statistics(root: Path = Path("/")) -> str:
    """The file `memory.stat` of this process's own memory group; empty where there is none."""
    for group in groups(root):
        file = group.directory / "memory.stat"
        if file.is_file():
            return str(file)
    return ""


def constraints(members: list[Group]) -> Iterator[Constraint]:
    """The limits that these groups set now. Groups without a limit, or without the controller, give none."""
    for group in members:
        found = _version_1(group) if group.version == 1 else _version_2(group)
        if found is not None:
            yield found


def _version_1(group: Group) -> Constraint | None:
    limit_bytes = _number(group.directory / "memory.limit_in_bytes")
    if limit_bytes is None or limit_bytes >= UNLIMITED_BYTES:
        return None
    source = f"cgroup v1 {group.name} memory.limit_in_bytes"
    return Constraint(limit_bytes, used_bytes(1, group.directory), source)


def _version_2(group: Group) -> Constraint | None:
    # Above memory.high a group is throttled until it stands still, so it binds as memory.max does.
    limits = {name: _number(group.directory / name) for name in ("memory.max", "memory.high")}
    known = {name: size for name, size in limits.items() if size is not None}
    if not known:
        return None
    name = min(known, key=lambda key: known[key])
    return Constraint(known[name], used_bytes(2, group.directory), f"cgroup v2 {group.name} {name}")


def used_bytes(version: int, directory: Path) -> int:
    """What a group holds with those below it, without the page cache that it would give up."""
    usage = "memory.usage_in_bytes" if version == 1 else "memory.current"
    statistics = _fields(directory / "memory.stat")
    cache_bytes = sum(
        statistics.get(f"total_{name}", statistics.get(name, 0)) for name in ("inactive_file", "active_file")
    )
    return max(0, (_number(directory / usage) or 0) - cache_bytes)


def _paths_by_version(text: str) -> dict[int, PurePosixPath]:
    """The group's path in the version 1 memory hierarchy and in version 2, as `/proc/self/cgroup` has it."""
    paths: dict[int, PurePosixPath] = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            paths[2] = PurePosixPath(path)
        elif "memory" in controllers.split(","):
            paths[1] = PurePosixPath(path)
    return paths


def _version_of(mount: proc.Mount) -> int:
    """Of the memory hierarchy that is mounted there; 0 for any other mount."""
    if mount.kind == "cgroup2":
        return 2
    return 1 if mount.kind == "cgroup" and "memory" in mount.options.split(",") else 0


def _ancestry(path: PurePosixPath, mounted_root: PurePosixPath) -> list[PurePosixPath]:
    """Directories below the mount point that belong to `path`, innermost first; the mount point itself is last.

    A path outside what is mounted (a namespace shows it as `/..`, a container as another's) leaves the mount point.
    """
    inside = ".." not in path.parts and path.is_relative_to(mounted_root)
    inner = path.relative_to(mounted_root) if inside else PurePosixPath()
    return [inner, *inner.parents]


def _fields(path: Path) -> dict[str, int]:
    """A file of names and numbers, such as `memory.stat`."""
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    return ""


class ControlGroup:
    """Made by `make_control_group`, and removed by `close`.

    Args:
        version: 1 or 2.
        directory: of the group.
    """

    def __init__(self, version: int, directory: str | Path) -> None:
        self._version = version
        self._directory = Path(directory)

    @property
    def address(self) -> tuple[int, str]:
        """Version and directory: by these another process refers to the same group."""
        return self._version, str(self._directory)

    @property
    def entrance(self) -> Path:
        """A process that writes its number there is in the group, with all that it starts from then on."""
        return self._directory / "cgroup.procs"

    def has_reached_limit(self) -> bool:
        """Whether the group stands still at its limit, or the kernel has ended processes there."""
        state = _fields(self._directory / ("memory.oom_control" if self._version == 1 else "memory.events"))
        return state.get("under_oom", 0) > 0 or state.get("oom_kill", 0) > 0

    def used_bytes(self) -> int:
        """What the group holds now, without page cache that it would give up (50 µs)."""
        return used_bytes(self._version, self._directory)

    def set_limit(self, limit_bytes: int | None) -> None:
        """Another limit; None for none.

        Raises:
            OSError: the group is gone, or holds more and can give up no page cache.
        """
        _write_limit(self._version, self._directory, limit_bytes)

    def kill(self) -> None:
        """Ends every process in it."""
        for pid in self.entrance.read_text(encoding="ascii").split():
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)

    def close(self) -> None:
        """Ends what still runs in it, and removes it."""
        deadline_s = time.monotonic() + _REMOVE_S
        while self._directory.exists() and time.monotonic() < deadline_s:
            with contextlib.suppress(OSError):
                self.kill()
                self._directory.rmdir()
                return
            time.sleep(0.01)  # a process that was killed takes a moment to leave


def make_control_group(
    limit_bytes: int | None, root: Path = Path("/"), *, stands_still: bool = True
) -> ControlGroup | None:
    """A new group below this process's own, or beside it, with that limit; `None` where this process may not make one.

    Args:
        limit_bytes: the most that its processes may be charged together; None for no limit yet.
        stands_still: whether, in version 1, processes are stopped at the limit rather than ended by the kernel.
        root: where `proc` and the control groups are found; a recorded tree in tests.
    """
    if sys.platform != "linux":
        return None
    for version, parent in _parents(groups(root)):
        _remove_abandoned(parent, root)
        made = _make(version, parent, limit_bytes, stands_still=stands_still)
        if made is not None:
            return made
    return None


def _parents(members: list[Group]) -> Iterator[tuple[int, Path]]:
    """Where a group may be made, the best place first; of `members` the innermost come first."""
    unified = [group.directory for group in members if group.version == 2]
    for parent in unified[:2]:
        if parent != unified[0] and _sets_limits(unified[0]):
            break
        if _hands_memory_down(parent):
            yield 2, parent
    yield from [(1, group.directory) for group in members if group.version == 1][:1]


def _sets_limits(directory: Path) -> bool:
    limits = (_text(directory / name).split()[:1] for name in _LIMITS)
    return any(limit not in ([], ["max"]) for limit in limits)


def _hands_memory_down(parent: Path) -> bool:
    """Whether groups below `parent` count memory, and this process may be moved there from its own.

    Where the controller is there, and this process may hand it down, it is handed down from now on.
    """
    if not os.access(parent / "cgroup.procs", os.W_OK):
        return False  # moves are for those to whom the common ancestor belongs
    if "memory" in _text(parent / "cgroup.subtree_control").split():
        return True
    if "memory" not in _text(parent / "cgroup.controllers").split():
        return False
    try:
        (parent / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
    except OSError:  # it has processes
        return False
    return True


def _make(version: int, parent: Path, limit_bytes: int | None, *, stands_still: bool) -> ControlGroup | None:
    directory = parent / f"{_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
    try:
        directory.mkdir()
    except OSError:
        return None
    try:
        if version == 2:
            (directory / "memory.oom.group").write_text("1", encoding="ascii")
        elif stands_still:
            (directory / "memory.oom_control").write_text("1", encoding="ascii")
        _write_limit(version, directory, limit_bytes)
    except OSError:
        with contextlib.suppress(OSError):
            directory.rmdir()
        return None
    return ControlGroup(version, directory)


def _write_limit(version: int, directory: Path, limit_bytes: int | None) -> None:
    """Of memory, and of memory and swap together, which version 1 wants to be no less at any moment."""
    if version == 2:
        (directory / "memory.max").write_text(
            "max" if limit_bytes is None else str(limit_bytes), encoding="ascii"
        )
        with contextlib.suppress(OSError):  # a kernel that does not count swap
            (directory / "memory.swap.max").write_text("0", encoding="ascii")
        return
    text = str(UNLIMITED_BYTES if limit_bytes is None else limit_bytes)
    memory, with_swap = directory / "memory.limit_in_bytes", directory / "memory.memsw.limit_in_bytes"
    # First for a rise. Fails for a fall, and where swap is not counted.
    with contextlib.suppress(OSError):
        with_swap.write_text(text, encoding="ascii")
    memory.write_text(text, encoding="ascii")
    with contextlib.suppress(OSError):  # last for a fall
        with_swap.write_text(text, encoding="ascii")


def _remove_abandoned(parent: Path, root: Path) -> None:
    """Groups of programs that were killed; one that still has processes cannot be removed, and stays."""
    for directory in parent.glob(f"{_PREFIX}*-*"):
        pid = directory.name.removeprefix(_PREFIX).partition("-")[0]
        if not (root / "proc" / pid).exists():
            with contextlib.suppress(OSError):
                directory.rmdir()
