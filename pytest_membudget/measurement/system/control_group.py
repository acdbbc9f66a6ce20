"""A memory control group of our own, where one can be made: the kernel then holds a limit, however fast a tree grows.

- Version 1, as root: the kernel is told not to kill. A process that would exceed the limit stands still instead, until the
  group is ended as a whole (`has_reached_limit`, `kill`).
- Version 2, where a part of the tree is delegated to this user with its memory controller switched on: the kernel ends the
  group as a whole.

What counts is what the kernel charges to the group: resident and swapped memory, shared memory and files in tmpfs, page cache that
cannot be given up, and the kernel's own for these processes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import time
from pathlib import Path

from pytest_membudget.measurement.system.cgroups import Group, groups

_PREFIX = "membudget-"
_REMOVE_S = 2.0


class ControlGroup:
    """Made by `make_control_group`, and removed by `close`."""

    def __init__(self, version: int, directory: Path) -> None:
        self._version = version
        self._directory = directory

    @property
    def entrance(self) -> Path:
        """A process that writes its number there is in the group, with all that it starts from then on."""
        return self._directory / "cgroup.procs"

    def has_reached_limit(self) -> bool:
        """Whether the group is at its limit: held there (version 1) or ended (version 2)."""
        if self._version == 1:
            return _fields(self._directory / "memory.oom_control").get("under_oom") == 1
        return _fields(self._directory / "memory.events").get("oom_kill", 0) > 0

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


def make_control_group(limit_bytes: int, root: Path = Path("/")) -> ControlGroup | None:
    """A new group below this process's own with that limit; `None` where this process may not make one.

    Args:
        limit_bytes: the most that its processes may be charged together.
        root: where `proc` and the control groups are found; a recorded tree in tests.
    """
    if sys.platform != "linux":
        return None
    own: dict[int, Group] = {}
    for group in groups(root):  # the innermost first
        own.setdefault(group.version, group)
    for version in (2, 1):
        if version in own:
            _remove_abandoned(own[version].directory, root)
        if version in own and (made := _make(version, own[version].directory, limit_bytes)) is not None:
            return made
    return None


def _make(version: int, parent: Path, limit_bytes: int) -> ControlGroup | None:
    if version == 2 and "memory" not in _words(parent / "cgroup.subtree_control"):
        return None
    directory = parent / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        directory.mkdir()
    except OSError:
        return None
    settings = (
        {"memory.limit_in_bytes": limit_bytes, "memory.oom_control": 1}
        if version == 1
        else {"memory.max": limit_bytes, "memory.oom.group": 1}
    )
    try:
        for name, value in settings.items():
            (directory / name).write_text(str(value), encoding="ascii")
        swap = "memory.memsw.limit_in_bytes" if version == 1 else "memory.swap.max"
        with contextlib.suppress(OSError):  # a kernel that does not count swap
            (directory / swap).write_text(str(limit_bytes if version == 1 else 0), encoding="ascii")
    except OSError:
        with contextlib.suppress(OSError):
            directory.rmdir()
        return None
    return ControlGroup(version, directory)


def _remove_abandoned(parent: Path, root: Path) -> None:
    """Groups of programs that were killed; one that still has processes cannot be removed, and stays."""
    for directory in parent.glob(f"{_PREFIX}*-*"):
        pid = directory.name.removeprefix(_PREFIX).partition("-")[0]
        if not (root / "proc" / pid).exists():
            with contextlib.suppress(OSError):
                directory.rmdir()


def _words(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="ascii").split()
    return []


def _fields(path: Path) -> dict[str, int]:
    words = _words(path)
    return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=False) if value.isdigit()}
