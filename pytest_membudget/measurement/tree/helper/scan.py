"""Scans of readings of the whole tree, one after the other, and samples of proportional sizes between them.

A round answers whether anything changed; its interval and readings go to the callback `told`.

One round of readings of everybody in the tree, and what they can have mapped together.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from .page_faults import faulted
from .pagemap import FileLook
from .proc_reader import Devices, Mappings, Process, huge_pages, mapped_limit, shared_outside
from .pss_sampling import PssSampling, blurred, sample_proportional
from .records import FilePages, Interval, Proportional, Reading
from .shared_note import Start
from .tree_bounds import Bounds
from .tree_members import Members

BORROWER_FAULTS = 64


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


CHANGE_BYTES = 64 * 1024


class RootGoneError(Exception):
    """The measured process has ended."""


class Scans:
    """The tree below `root`, as of the last round. Every method that reads it raises `RootGoneError`."""

    def __init__(self, root: int, told: Callable[[float, Interval, list[Reading]], None]) -> None:
        self._told = told
        self.members = Members(root, os.getpid(), os.getppid())
        self.table = Table(self.members)
        self._shared_outside = shared_outside(root)
        self._looks = PssSampling()
        self._file_look = FileLook(self.table.devices.memory)
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
        """Two rounds after a pause: the first one only tells where the second starts from."""
        self._forget()
        self.take()
        self.take()
        assert self.interval is not None
        return self.interval

    def restart_alone(self, start: Start) -> Interval:
        """The root alone, as it was when the block began.

        What it has added since, and processes that came or ended, show in the next round.
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
            family=root.family,
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
        self._told(self.read_s, self.interval, readings)
        return changed

    def look_closer(self, could_rise: Callable[[Interval], bool] | None = None) -> None:
        """Reads proportional sizes where they tell more: where they are worth their cost, or at any cost without a question."""
        interval = self.interval
        if interval is None:
            return
        if not (
            blurred(interval, self.readings)
            if could_rise is None
            else self._looks.worthwhile(interval, self.readings, could_rise=could_rise(interval))
        ):
            return
        with self._looks.charged(self.readings) as may_tell:
            proportional = sample_proportional(self.readings, self.members.processes) if may_tell else None
            if proportional:
                self.take(proportional)
                self._looks.taken(proportional, self.interval, self.readings)

    def count_files(self, *, force: bool = False) -> None:
        """Counts file pages one by one, where that tells anything new and is worth its cost, or at any cost."""
        found = None
        # A process may be gone meanwhile, or this kernel may not show pages.
        with contextlib.suppress(OSError), self._looks.counting(self.readings, force=force) as may_tell:
            found = self._file_look.take(self.readings) if may_tell else None
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
        self._looks.forget()
