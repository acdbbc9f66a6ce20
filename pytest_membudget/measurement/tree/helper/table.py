"""One round of readings of everybody in the tree, and what they can have mapped together."""

from __future__ import annotations

from .mappings import Devices, Mappings, mapped_limit
from .proc_reader import Process
from .records import Reading
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
                    self._members.drop(pid)  # nobody in the tree will ever wait for it
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
        """Of file pages and of shared memory; computed anew only when somebody's mappings were looked up again."""
        key = [id(mapping) for mapping in mappings]
        if key != self._mappings_key:
            self._mappings_key = key
            self._mappings = mappings  # kept alive, so that no other comes to have the same id
            self._limits = (
                mapped_limit(mappings, without=self.devices.memory),
                mapped_limit(mappings, without=self.devices.files),
            )
        return self._limits
