"""Scans of a whole tree: who belongs to it, one reading of each, and samples of proportional sizes between two scans.

The tree is the root, its descendants, and orphans that it left to the reaper. Every new process and thread shows as a change of
the last field of /proc/loadavg, the last number given out: only new numbers are read. Where /proc is mounted without that
file (`subset=pid`), the processes are listed instead. A process whose parent has already ended is known by four marks together:
its foster parent, which is also the helper's own; its session and its process group, which are the root's or bear the number of a
member; and its start, which is later than the root's.

A scan (`Scans.take`) answers whether anything changed; its interval and readings go to the callback `on_scan`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from .messages import Start
from .proc_reader import (
    Devices,
    Identity,
    Mappings,
    Process,
    huge_pages,
    identity,
    mapped_limit,
    shared_outside,
    started_ticks,
)
from .records import FilePages, Interval, Proportional, Reading, faulted
from .sampling import FilePageCounter, PssSampling, blurred, sample_proportional
from .tree_bounds import Bounds

BORROWER_FAULTS = 64
CHANGE_BYTES = 64 * 1024
TRIES = 3
"""A number is given out shortly before its process can be seen; it is searched for in this many scans."""
LARGEST_STEP = 3000
"""More new numbers than this are not read one by one: the whole table is."""


class Members:
    """The processes of the tree, the helper itself left out."""

    def __init__(self, root: int, own: int, reaper: int) -> None:
        self.root = root
        self.processes: dict[int, Process] = {root: Process(root)}
        self._strangers = {own, reaper}
        self.reaper = reaper
        self._bands = {os.getsid(root), os.getpgid(root)}
        self._root_start = started_ticks(root)
        try:
            self._loadavg = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._loadavg = -1
        self._last = self._last_number()
        self._listed: set[int] = set()
        self._pending: dict[int, int] = {}
        self.scan()

    def scan(self) -> None:
        """Reads the whole process table, and adds what belongs to the tree."""
        parents = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                found = identity(int(name))
                if found:
                    parents[int(name)] = found
        grown = True
        while grown:
            grown = False
            for pid, found in parents.items():
                grown |= pid not in self.processes and self._consider(pid, found)

    def refresh(self) -> bool:
        """Adds those of the processes started since the last call that belong to the tree; whether there were any."""
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
            found = identity(pid)
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
        return adopted and started_ticks(pid) > self._root_start

    def _last_number(self) -> int:
        return int(os.pread(self._loadavg, 128, 0).rsplit(None, 1)[1]) if self._loadavg >= 0 else 0


class Table:
    """Reads the members; keeps their names and what is mapped."""

    def __init__(self, members: Members) -> None:
        self.names: dict[int, str] = {}
        self._members = members
        self.devices = Devices(members.root)
        self._mappings: list[Mappings] = []
        self._mappings_key: list[int] = []
        self._limits = (0, 0)

    def read(self) -> tuple[list[Reading], int | None, int | None]:
        """Everybody who lives, and the most file pages and shared memory that they can have together."""
        readings: list[Reading] = []
        mappings: list[Mappings] = []
        file_since = shmem_since = 0
        for pid, process in list(self._members.processes.items()):
            try:
                reading = process.read()
                if process.ended and process.parent not in self._members.processes:
                    self._members.drop(pid)  # no process of the tree will ever wait for it
                    continue
                if len(self._members.processes) > 1:
                    mappings.append(process.mappings(reading))
                    since = process.mapped_since(reading)
                    file_since += since[0]
                    shmem_since += since[1]
            except OSError:
                self._members.drop(pid)
                continue
            if self._borrows(process, reading):
                reading.anon = reading.file = reading.shmem = 0
                reading.mark = None
            self.names[pid] = process.name
            readings.append(reading)
        if len(mappings) < 2:
            return readings, None, None
        file_limit, shmem_limit = self._mapped_limits(mappings)
        return readings, file_limit + file_since, shmem_limit + shmem_since

    def _borrows(self, process: Process, reading: Reading) -> bool:
        """Until it calls exec, a child of vfork or posix_spawn runs in its parent's memory."""
        parent = self._members.processes.get(process.parent)
        return parent is not None and parent.statm == process.statm and reading.faults < BORROWER_FAULTS

    def _mapped_limits(self, mappings: list[Mappings]) -> tuple[int, int]:
        """Of file pages and of shared memory; computed again only when the mappings of a process were read again."""
        key = [id(mapping) for mapping in mappings]
        if key != self._mappings_key:
            self._mappings_key = key
            self._mappings = mappings  # kept alive, so that no other comes to have the same id
            self._limits = (
                mapped_limit(mappings, without=self.devices.memory),
                mapped_limit(mappings, without=self.devices.files),
            )
        return self._limits


class RootGoneError(Exception):
    """The measured process has ended."""


class Scans:
    """The tree below `root`, as of the last scan. Every method that reads it raises `RootGoneError`."""

    def __init__(self, root: int, on_scan: Callable[[float, Interval, list[Reading]], None]) -> None:
        self._on_scan = on_scan
        self.members = Members(root, os.getpid(), os.getppid())
        self.table = Table(self.members)
        self._shared_outside = shared_outside(root)
        self._sampling = PssSampling()
        self._file_pages = FilePageCounter(self.table.devices.memory)
        self._huge_pages = huge_pages()
        self.readings: list[Reading] = []
        self.interval: Interval | None = None
        self.read_s = 0.0
        self._forget()

    @property
    def count(self) -> int:
        """How many processes the tree has."""
        return len(self.members.processes)

    def restart(self) -> Interval:
        """Two scans after a pause: the first one only says where the second starts from."""
        self._forget()
        self.take()
        self.take()
        assert self.interval is not None
        return self.interval

    def restart_alone(self, start: Start) -> Interval:
        """The root alone, as it was when the block began.

        What it has added since, and processes that came or ended, show in the next scan.
        """
        self._forget()
        self.members.refresh()
        readings, *_ = self.table.read()
        root = next((reading for reading in readings if reading.pid == self.members.root), None)
        if root is None:
            raise RootGoneError
        file = max(0, start.shared_bytes - root.shmem)  # a change meanwhile is taken for one of files
        began = Reading(
            root.pid,
            max(0, start.resident_bytes - start.shared_bytes),
            file=file,
            shmem=start.shared_bytes - file,
            faults=start.own_faults,
            reaped_faults=start.reaped_faults,
            fork_group=root.fork_group,
        )
        self.readings = [began]
        self.interval = self._bounds.update([began])
        return self.interval

    def take(self, proportional: Proportional | None = None, file_pages: FilePages | None = None) -> bool:
        """Reads each process once and reports that and the samples; whether anything changed."""
        changed = self.members.refresh()
        readings, file_limit, shmem_limit = self.table.read()
        if not readings or readings[0].pid != self.members.root:
            raise RootGoneError
        before = {reading.pid: reading for reading in self.readings}
        changed |= len(readings) != len(before) or any(
            reading.pid not in before or abs(reading.anon - before[reading.pid].anon) > CHANGE_BYTES
            for reading in readings
        )
        pages = huge_pages() if changed or len(readings) > 1 else self._huge_pages
        self.interval = self._bounds.update(
            readings,
            huge_pages=max(0, pages - self._huge_pages),
            proportional=proportional,
            file_limit=file_limit,
            shmem_limit=shmem_limit,
            file_pages=file_pages,
        )
        self._huge_pages = pages
        self.readings = readings
        self.read_s = time.monotonic()
        self._on_scan(self.read_s, self.interval, readings)
        return changed

    def sample(self, could_rise: Callable[[Interval], bool] | None = None) -> None:
        """Reads proportional sizes where they show more: where they are worth their cost, or at any cost without a question."""
        interval = self.interval
        if interval is None:
            return
        if not (
            blurred(interval, self.readings)
            if could_rise is None
            else self._sampling.worthwhile(interval, self.readings, could_rise=could_rise(interval))
        ):
            return
        with self._sampling.charged(self.readings) as is_new:
            proportional = sample_proportional(self.readings, self.members.processes) if is_new else None
            if proportional:
                self.take(proportional)
                self._sampling.taken(proportional, self.interval, self.readings)

    def count_files(self, *, force: bool = False) -> None:
        """Counts file pages one by one, where that shows anything new and is worth its cost, or at any cost."""
        found = None
        # A process may be gone meanwhile, or this kernel may not show pages.
        with contextlib.suppress(OSError), self._sampling.counting(self.readings, force=force) as is_new:
            found = self._file_pages.take(self.readings) if is_new else None
        if found:
            self.take(file_pages=found)

    def faulted_since(self, own_faults: int) -> int:
        """The most that the root has faulted in since it had these faults on its account, in bytes."""
        root = self.readings[0]
        faults = max(0, root.faults + root.late_faults - own_faults)
        return faulted(faults, max(0, huge_pages() - self._huge_pages))

    def _forget(self) -> None:
        adoptive = self.members.root if self.members.reaper == self.members.root else 0
        self._bounds = Bounds(shared_outside=self._shared_outside, adoptive=adoptive)
        self._sampling.forget()
