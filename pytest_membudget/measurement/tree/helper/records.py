"""What the helper reads of one process, and what follows for the whole tree. All figures are bytes."""

from __future__ import annotations

from typing import NamedTuple


class Reading:
    """One process in one round.

    `faults` are pages it faulted in until its sizes were read, `late_faults` those that came while they were read, and
    `reaped_faults` those of its dead children. `swapped` is how much of its shared memory may have taken the place of
    other shared memory since its mappings were looked up before.
    """

    __slots__ = (
        "anon",
        "family",
        "faults",
        "file",
        "late_faults",
        "mark",
        "parent",
        "pid",
        "reaped_faults",
        "shmem",
        "swapped",
    )

    def __init__(
        self,
        pid: int,
        anon: int,
        *,
        file: int = 0,
        shmem: int = 0,
        faults: int = 0,
        late_faults: int = 0,
        reaped_faults: int = 0,
        family: object = None,
        mark: int | None = None,
        parent: int = 0,
        swapped: int = 0,
    ) -> None:
        self.pid = pid
        self.parent = parent
        self.swapped = swapped
        self.anon = anon
        self.file = file
        self.shmem = shmem
        self.faults = faults
        self.late_faults = late_faults
        self.reaped_faults = reaped_faults
        self.family = pid if family is None else family
        self.mark = mark  # its own high-water mark, shared pages included, where that was read

    @property
    def resident(self) -> int:
        """All that the process maps, shared pages included."""
        return self.anon + self.file + self.shmem


class Proportional:
    """What a sample of proportional sizes between the round before and this one found, by process.

    It tells nothing while a fork is under way (`forking`): what is shared with a child that shows nowhere else yet. No more does it while
    a process clears its memory, which shows nowhere else any more.

    `correction` is the proportional less the resident size of anonymous memory, never above zero: what a sum of
    resident sizes counts too often. `shmem` and `file` are proportional sizes, `private` is not shared.
    """

    __slots__ = ("correction", "file", "forking", "private", "shmem")

    def __init__(
        self,
        correction: dict[int, int],
        shmem: dict[int, int] | None = None,
        file: dict[int, int] | None = None,
        private: dict[int, int] | None = None,
        *,
        forking: bool = False,
    ) -> None:
        self.forking = forking
        self.correction = correction
        self.shmem = shmem or {}
        self.file = file or {}
        self.private = private or {}


class FilePages(NamedTuple):
    """What is mapped of files, in bytes: `union` with each page once, and `resident` as the kernel's counts go."""

    union: int
    resident: int


class Span:
    """At least `low` at one instant, at most `high` now, at most `peak` at any moment since the round before."""

    __slots__ = ("high", "low", "peak")

    def __init__(self, low: int, high: int, peak: int) -> None:
        self.high = high
        self.low = min(low, max(high, peak))
        self.peak = max(high, peak)

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.high + other.high, self.peak + other.peak)


class Interval:
    """The tree in one round: what its processes hold, the file pages they map, and what is known of each of them."""

    __slots__ = (
        "alone",
        "born",
        "counted_twice",
        "excess",
        "excess_left",
        "file",
        "file_added",
        "file_counted",
        "file_fallen",
        "forked",
        "held",
        "leaving",
        "missed",
        "moving",
        "overdue",
        "settled",
        "unseen",
    )

    def __init__(
        self,
        held: Span,
        file: Span,
        *,
        file_added: int,
        alone: bool,
        missed: int,
        moving: int,
        leaving: dict[int, tuple[int, int]],
        forked: bool = False,
        counted_twice: int = 0,
        excess: int | None = None,
        excess_left: int = 0,
        overdue: int = 0,
        settled: dict[int, int] | None = None,
        born: dict[int, int] | None = None,
        unseen: int = 0,
        file_counted: bool = False,
        file_fallen: int = 0,
    ) -> None:
        self.held = held
        self.file = file
        self.file_added = file_added  # all file pages that anybody has added since the first round
        self.alone = alone  # one process, and no trace of another since the round before
        self.forked = forked  # a process was born since the round before
        self.counted_twice = counted_twice  # how much higher the peak is as a sum of resident sizes
        self.excess = excess  # what such a sum counted more than once where it was sampled in this round
        self.excess_left = excess_left  # and at the round's end, at least
        self.missed = missed  # faulted in by processes that ended before they could be read
        self.overdue = overdue  # faulted in by who was gone in the round before, and counted in this one
        self.moving = moving  # faulted in by everybody since the round before
        self.leaving = leaving  # by process: what the tree loses when it ends, at least and at most
        self.settled = (
            settled or {}
        )  # by process: anonymous memory that it held throughout since the round before
        self.born = born or {}  # by process that was born since the round before: faulted in by it
        self.file_counted = file_counted  # whether file pages were counted one by one in this round
        self.file_fallen = file_fallen  # file pages that anybody has given up since the round before
        self.unseen = unseen  # faulted in by who died since, after the last reading

    @property
    def low(self) -> int:
        """The whole tree's lower figure."""
        return self.held.low + self.file.low

    @property
    def high(self) -> int:
        """The whole tree's upper figure at this moment."""
        return self.held.high + self.file.high
