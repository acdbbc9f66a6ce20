"""From readings of single processes to an interval for the memory of the whole tree, each page counted once.

All figures are bytes. A reading of several processes is never atomic, so no sum of it is taken at its word. Two
consecutive rounds are compared through page faults: memory that a process holds now and did not hold a moment ago was
faulted in meanwhile. With `f` bytes faulted in between two readings of a process,

- it held at least `now - f` at every moment between them (the lower figure, valid for one common instant), and
- it held at most `before + f` at any moment between them (the upper figure, spikes between the readings included).

Three kinds of memory are kept apart:

*anonymous*: shared only between a process and those forked from it without exec, here called a family. Copying on
write shows in faults, not in resident sizes. A family of one needs nothing more. For larger ones a reading of
proportional set sizes (`Proportional`) tells what is counted more than once; until one is there, the largest member
is the lower figure.

*shared memory* (`shmem`) and *file pages*: anybody may map them. Lower figure: the largest member, or the last
proportional reading less what was given up since. Upper figure: the sum, or the last upper figure plus what was added.
"""

from __future__ import annotations

from .anonymous_bounds import Families
from .mapped import Mapped
from .page_faults import Change
from .records import FilePages, Interval, Proportional, Reading


class Bounds:
    """Keeps what consecutive rounds have in common.

    Args:
        shared_outside: the root shares anonymous memory with a process outside the tree, so that proportional sizes
            are too small to bound it from above.
        adoptive: a process of the tree that becomes the parent of orphans, so that a parent is not who forked.
    """

    def __init__(self, *, shared_outside: bool = False, adoptive: int = 0) -> None:
        self._before: dict[int, Reading] = {}
        self._families = Families(shared_outside=shared_outside, adoptive=adoptive)
        self._shmem = Mapped("shmem")
        self._file = Mapped("file")
        self._private: dict[int, int] = {}
        self._credit = 0
        self._skew: dict[int, int] = {}

    def update(
        self,
        readings: list[Reading],
        *,
        huge_pages: int = 0,
        proportional: Proportional | None = None,
        file_limit: int | None = None,
        shmem_limit: int | None = None,
        file_pages: FilePages | None = None,
    ) -> Interval:
        """Takes one round.

        Args:
            readings: one of each living process.
            huge_pages: how many the machine handed out since the round before.
            proportional: what was read of shared memory since the round before; dropped where the tree changed.
            file_limit: the most file pages that all processes together can have mapped.
            shmem_limit: likewise for shared memory.
            file_pages: what was counted of files, page by page, since the round before.
        """
        change = Change(self._before, readings, huge_pages, self._credit, self._skew)
        overdue = change.unseen if self._credit else 0
        self._credit, self._skew = change.credit, change.skew
        if proportional and (proportional.forking or change.born or change.ended or change.unseen):
            proportional = None
        families = self._families
        anon = families.update(change, proportional)
        shmem = self._shmem.update(change, proportional, shmem_limit)
        file = self._file.update(change, proportional, file_limit, file_pages)
        if proportional:
            self._private.update(proportional.private)
        held = anon + shmem
        held.peak += 0 if families.with_unseen else change.unseen
        self._before = {reading.pid: reading for reading in readings}
        return Interval(
            held,
            file,
            file_added=self._file.added,
            alone=change.lonely(),
            moving=sum(change.growth.values()) + change.unseen,
            forked=bool(change.born),
            counted_twice=families.resident_peak - families.together,
            excess=families.excess,
            excess_left=families.excess_left,
            overdue=overdue,
            missed=0 if change.ended or overdue else change.unseen,
            leaving={reading.pid: self._leaving(reading, readings) for reading in readings},
            settled={
                r.pid: max(0, r.anon - change.growth[r.pid]) for r in readings if r.pid not in change.born
            },
            born={pid: change.growth[pid] for pid in change.born},
            unseen=change.unseen,
            file_counted=file_pages is not None,
            file_fallen=self._file.fallen,
        )

    def _leaving(self, reading: Reading, readings: list[Reading]) -> tuple[int, int]:
        alone = not reading.shmem and all(
            other is reading or other.family != reading.family for other in readings
        )
        least = reading.anon if alone else min(self._private.get(reading.pid, 0), reading.anon)
        return least, reading.anon + reading.shmem
