"""Memory limits of control groups: this process's group and every ancestor, versions 1 and 2.

Which group this is comes from `/proc/self/cgroup`, where it is mounted from `/proc/self/mountinfo`: inside a container
the two need not agree, since a bind mount or a cgroup namespace shows only part of the hierarchy.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pytest_membudget.originals import contextlib, re

UNLIMITED_BYTES = 2**62
"""Version 1 writes its "no limit" as the largest multiple of the page size below 2**63."""

_OCTAL = re.compile(r"\\([0-7]{3})")


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


class _Mount(NamedTuple):
    version: int
    root: PurePosixPath
    point: PurePosixPath


def groups(root: Path) -> list[Group]:
    """This process's memory groups, innermost first, each with its ancestors; `root` holds `proc` and the mounts."""
    paths = _paths_by_version(_text(root / "proc/self/cgroup"))
    found: dict[Path, Group] = {}
    for mount in _mounts(_text(root / "proc/self/mountinfo")):
        path = paths.get(mount.version)
        if path is None:
            continue
        top = root / mount.point.relative_to("/")
        for inner in _ancestry(path, mount.root):
            directory = top / inner
            found.setdefault(directory, Group(mount.version, directory, f"/{inner}".replace("/.", "/")))
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
    statistics = _statistics(directory)
    cache_bytes = sum(
        statistics.get(f"total_{name}", statistics.get(name, 0)) for name in ("inactive_file", "active_file")
    )
    return max(0, (_number(directory / usage) or 0) - cache_bytes)


def _paths_by_version(text: str) -> dict[int, PurePosixPath]:
    """The group's path in the version 1 memory hierarchy and in version 2, as `/proc/self/cgroup` tells."""
    paths: dict[int, PurePosixPath] = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            paths[2] = PurePosixPath(path)
        elif "memory" in controllers.split(","):
            paths[1] = PurePosixPath(path)
    return paths


def _mounts(text: str) -> Iterator[_Mount]:
    """Mounts of memory hierarchies; the format is in proc_pid_mountinfo(5)."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kinds) < 3:
            continue
        root, point = (PurePosixPath(_unescaped(field)) for field in fields[3:5])
        if kinds[0] == "cgroup2":
            yield _Mount(2, root, point)
        elif kinds[0] == "cgroup" and "memory" in kinds[2].split(","):
            yield _Mount(1, root, point)


def _ancestry(path: PurePosixPath, mounted_root: PurePosixPath) -> list[PurePosixPath]:
    """Directories below the mount point that belong to `path`, innermost first; the mount point itself is last.

    A path outside what is mounted (a namespace shows it as `/..`, a container as another's) leaves the mount point.
    """
    inside = ".." not in path.parts and path.is_relative_to(mounted_root)
    inner = path.relative_to(mounted_root) if inside else PurePosixPath()
    return [inner, *inner.parents]


def _statistics(directory: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(directory / "memory.stat").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    return ""


def _unescaped(field: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)
