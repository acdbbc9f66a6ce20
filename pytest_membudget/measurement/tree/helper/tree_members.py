"""Who belongs to the tree: the root, its descendants, and orphans that it left to the reaper.

Every new process and thread shows as a change of the last field of /proc/loadavg, the last number given out: only new
numbers are looked at. Where /proc is mounted without that file (`subset=pid`), the processes are listed instead. A process whose parent has already ended is known by four marks together: its foster parent, who is
also the helper's own; its session and its process group, which are the root's or bear the number of a member; and its
start, which is later than the root's.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from .proc_reader import Process

TRIES = 3
"""A number is given out shortly before its process can be seen; it is searched for in this many rounds."""

LARGEST_STEP = 3000
"""More new numbers than this are not read one by one: the whole table is."""


class Identity(NamedTuple):
    """A process and who it belongs to."""

    pid: int
    parent: int
    group: int
    session: int


class Members:
    """The processes of the tree, the helper itself left out."""

    def __init__(self, root: int, own: int, reaper: int) -> None:
        self.root = root
        self.processes: dict[int, Process] = {root: Process(root)}
        self._strangers = {own, reaper}
        self.reaper = reaper
        self._bands = {os.getsid(root), os.getpgid(root)}
        self._root_start = _started(root)
        try:
            self._loadavg = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._loadavg = -1
        self._last = self._last_number()
        self._listed: set[int] = set()
        self._pending: dict[int, int] = {}
        self.scan()

    def scan(self) -> None:
        """PssSampling at the whole process table."""
        parents = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                found = _identity(int(name))
                if found:
                    parents[int(name)] = found
        grown = True
        while grown:
            grown = False
            for pid, found in parents.items():
                grown |= pid not in self.processes and self._consider(pid, found)

    def refresh(self) -> bool:
        """PssSampling at the numbers given out since the last call; whether anybody joined."""
        if self._loadavg < 0:
            listed = {int(name) for name in os.listdir("/proc") if name.isdigit()}
            self._pending.update(dict.fromkeys(listed - self._listed, TRIES))
            self._listed = listed
        last = self._last_number()
        if last != self._last:
            step = last - self._last
            if not 0 < step <= LARGEST_STEP:
                self._last = last
                before = len(self.processes)
                self.scan()
                return len(self.processes) != before
            self._pending.update(dict.fromkeys(range(self._last + 1, last + 1), TRIES))
            self._last = last
        joined = False
        for pid, tries in list(self._pending.items()):
            found = _identity(pid)
            if found:
                joined |= found.pid == pid and pid not in self.processes and self._consider(pid, found)
            if found or tries == 1:
                del self._pending[pid]
            else:
                self._pending[pid] = tries - 1
        return joined

    def drop(self, pid: int) -> None:
        """Forgets a process that is gone."""
        self.processes.pop(pid).close()

    def _consider(self, pid: int, found: Identity) -> bool:
        mine = found.parent in self.processes or self._is_orphan(pid, found)
        if not mine or pid in self._strangers:
            return False
        try:
            self.processes[pid] = Process(pid)
        except OSError:
            return False
        self._bands.add(pid)  # its orphans are known by the session and the group that bear its number
        return True

    def _is_orphan(self, pid: int, found: Identity) -> bool:
        adopted = found.parent == self.reaper and {found.session, found.group} <= self._bands
        return adopted and _started(pid) > self._root_start

    def _last_number(self) -> int:
        return int(os.pread(self._loadavg, 128, 0).rsplit(None, 1)[1]) if self._loadavg >= 0 else 0


def _identity(pid: int) -> Identity | None:
    """What is known of the process that a number belongs to; a thread's number leads to its process."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as stream:  # noqa: PTH123 - hot path
            status = stream.read(4096)
        return Identity(
            *(_field(status, name) for name in (b"\nTgid:", b"\nPPid:", b"\nNSpgid:", b"\nNSsid:"))
        )
    except (OSError, IndexError):
        return None


def _field(status: bytes, name: bytes) -> int:
    at = status.find(name)
    return int(status[at + len(name) :].split(None, 1)[0]) if at >= 0 else -1


def _started(pid: int) -> int:
    """When it started, in ticks since the machine did; 0 where that is not known."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as stream:  # noqa: PTH123 - likewise
            return int(stream.read(1024).rsplit(b")", 1)[1].split()[19])
    except (OSError, IndexError):
        return 0
