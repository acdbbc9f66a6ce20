"""A memory control group of our own, where one can be made: the kernel then holds a limit, however fast a tree grows.

- Version 1, as root: the kernel may be told not to kill. A process that would exceed the limit stands still instead, until the
  group is ended as a whole (`has_reached_limit`, `kill`); a system call that would exceed it fails with ENOMEM. Otherwise the
  kernel ends the largest process.
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

from pytest_membudget.measurement.system.cgroups import UNLIMITED_BYTES, Group, groups, used_bytes

_PREFIX = "membudget-"
_REMOVE_S = 2.0


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
    """A new group below this process's own with that limit; `None` where this process may not make one.

    Args:
        limit_bytes: the most that its processes may be charged together; None for no limit yet.
        stands_still: whether, in version 1, processes are stopped at the limit rather than ended by the kernel.
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
        if version in own:
            made = _make(version, own[version].directory, limit_bytes, stands_still=stands_still)
            if made is not None:
                return made
    return None


def _make(version: int, parent: Path, limit_bytes: int | None, *, stands_still: bool) -> ControlGroup | None:
    if version == 2 and "memory" not in _words(parent / "cgroup.subtree_control"):
        return None
    directory = parent / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
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
    with contextlib.suppress(
        OSError
    ):  # a rise: the limit with swap has to come first; or swap is not counted
        with_swap.write_text(text, encoding="ascii")
    memory.write_text(text, encoding="ascii")
    with contextlib.suppress(OSError):  # a fall
        with_swap.write_text(text, encoding="ascii")


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
