"""One open measurement: where it started, how high the tree has been since, who held the most, and the way there.

What the kernel's own high-water marks of children prove, however short their peaks were.

A mark is the most that one address space held, at some instant of its life. When that life began within the block, the tree
held at least as much then: the mark is proven, less the start. A program that was started by exec shares no anonymous
memory with the root, so what the root held of it throughout, the `floor`, is proven beside the mark. A forked child may share
all of that: then it is not.

The mark of a child that has ended is known as the largest of all that were waited for, and not whose it was. It is taken for
a program's only where no fork can have had it: none was seen, and one that no scan saw had what the root had at most,
and what was faulted in out of sight (`hidden`).
"""

from __future__ import annotations

from .messages import Start, Summary
from .records import PAGE, PAGES_MAPPED_AT_ONCE, Interval, Reading
from .shared_memory import SharedGrowth, SharedReading
from .tree_bounds import Upper


class ChildMarks:
    """Takes every scan of one measurement. All figures are bytes."""

    def __init__(self) -> None:
        self.floor = 0
        self.hidden = 0
        self.kin = False
        """Whether a fork of the root was seen: a process that may share the root's anonymous memory."""
        self._before: set[int] = set()

    def begin(self, readings: list[Reading], faulted: int, reaped_faults: int) -> None:
        """Takes the first scan. The root is the first of the readings.

        Args:
            readings: one of each living process.
            faulted: bytes that the root has faulted in since the block began.
            reaped_faults: faults of dead children that were on the root's account when the block began.
        """
        root = readings[0]
        self._before = {reading.pid for reading in readings}
        self.floor = max(0, root.anon - faulted)
        self._hide((root.reaped_faults - reaped_faults) * PAGE)

    def update(self, interval: Interval, readings: list[Reading]) -> int:
        """Takes one scan; what the tree is proven to have held by the marks that were read in it."""
        root = readings[0]
        self.floor = min(self.floor, interval.settled.get(root.pid, 0))
        self._hide(interval.unseen + sum(interval.born.values()))
        proven = 0
        for reading in readings[1:]:
            related = reading.fork_group == root.fork_group
            self.kin |= related and reading.resident > 0
            if reading.mark is not None and reading.pid not in self._before:
                proven = max(proven, reading.mark + (0 if related else self.floor))
        return proven

    def _hide(self, faulted: int) -> None:
        self.hidden += max(0, faulted) * PAGES_MAPPED_AT_ONCE  # as if all of it had been pages of files


LONGEST_TIMELINE = 64
WORTHWHILE_BYTES = 256 * 1024
WORTHWHILE_PART = 100
FILE_GAP_BYTES = 256 * 1024
FILE_GAP_PART = 8


class Session:
    """Takes every scan between begin and end. All figures are bytes, times are seconds."""

    def __init__(
        self, start_s: float, root: int, limit: int | None = None, total_limit: int | None = None
    ) -> None:
        self.start_s = start_s
        self.shared = SharedGrowth(SharedReading(), 0, 0)
        self.root = root
        self.limit = limit  # proven growth above which the watchdog speaks
        self.total_limit = total_limit  # and the same for the whole tree
        self.warned_s: float | None = None  # when the root was to stop
        self.killed: set[int] = set()  # the children that the watchdog killed
        self.root_start = 0
        self.last_low = 0
        self.peak_low = 0
        self.total_low = 0
        self.marks = ChildMarks()
        self.by_marks = 0  # what the kernel's marks of children prove of the peak
        self.end_low = 0
        self.others_floor: int | None = None  # what the other processes held throughout
        self.missed = 0  # what processes that no scan saw have faulted in
        self.seen: dict[int, int] = {}  # the highest resident size of each process
        self.timeline = Timeline()
        self._upper = Upper()
        self._start_low = self._start_high = self._start_file = self._file_added = 0
        self._leaving: dict[int, tuple[int, int]] = {}
        self._ended_before: set[int] = set()

    def begin_alone(self, interval: Interval, readings: list[Reading], start: int) -> None:
        """Begins where the tree was its root alone and held `start` bytes; the readings may be a little later."""
        self._ended_before = {reading.pid for reading in readings if not reading.resident}
        file = readings[0].file
        self.root_start = start
        self._start_low = self._start_high = start - file
        self._start_file = file
        self._file_added = interval.file_added

    def begin_among(self, interval: Interval, readings: list[Reading]) -> None:
        """Begins where there were other processes; the readings are those of this moment."""
        self._start_low, self._start_high = interval.held.low, interval.held.high
        self._start_file = interval.file.low
        self._file_added = interval.file_added
        self._ended_before = {reading.pid for reading in readings if not reading.resident}
        self._leaving = {pid: size for pid, size in interval.leaving.items() if pid != self.root}
        self.others_floor = self._others(readings)
        self.root_start = next((r.resident for r in readings if r.pid == self.root), 0)

    def missed_before(self, root: Reading, start: Start) -> None:
        """Adds the children that came and went between the block's begin, when `start` was read of the root, and now."""
        reaped, own = root.reaped_faults - start.reaped_faults, root.faults - start.own_faults
        if reaped > 0:
            self.missed += reaped * PAGE
            self._upper.raise_to((reaped + max(0, own)) * PAGE)

    @property
    def peak_high(self) -> int:
        """The peak's upper figure, the root's own mark apart."""
        return max(self.peak_low, self._upper.value)

    @property
    def start_bytes(self) -> int:
        """The start, less the processes that were there and have ended."""
        return self._start_high + self._start_file

    def update(self, at_s: float, interval: Interval, readings: list[Reading]) -> None:
        """Takes one scan."""
        living = {reading.pid for reading in readings}
        for pid in [pid for pid in self._leaving if pid not in living]:
            least, most = self._leaving.pop(pid)
            self._start_high = max(0, self._start_high - least)
            self._start_low = max(0, self._start_low - most)
        file_added = interval.file_added - self._file_added
        low = interval.held.low - self._start_high + min(interval.file.low - self._start_file, file_added)
        self.last_low = low
        self.peak_low = max(self.peak_low, low)
        self.total_low = max(self.total_low, interval.low)
        marked = self.marks.update(interval, readings)
        if marked:
            self.by_marks = max(self.by_marks, marked - self.start_bytes)
            self.total_low = max(self.total_low, marked)
            self.peak_low = max(self.peak_low, self.by_marks)
        self.end_low = interval.low
        self.missed += interval.missed
        self._upper.add(interval, self._start_low, self._start_file, file_added)
        if self.others_floor is not None:
            self.others_floor = min(self.others_floor, self._others(readings))
        for reading in (each for each in readings if each.resident or each.pid not in self._ended_before):
            self.seen[reading.pid] = max(self.seen.get(reading.pid, 0), reading.resident)
        self.timeline.add(at_s - self.start_s, low)

    def update_shared(self, reading: SharedReading, readings: list[Reading]) -> None:
        """Takes what the machine has of shared memory now; the readings are those of the last scan."""
        mapped = [each.shmem for each in readings]
        self.shared.update(reading, max(mapped, default=0), sum(mapped), self.last_low)

    def begin_shared(self, start: SharedReading, readings: list[Reading]) -> None:
        """The start of the shared memory that the tree may add."""
        mapped = [each.shmem for each in readings]
        self.shared = SharedGrowth(start, max(mapped, default=0), sum(mapped))

    def over_limit(self) -> bool:
        """Whether a watchdog's limit is proven to be exceeded."""
        above = self.limit is not None and self.peak_low > self.limit
        return above or (self.total_limit is not None and self.total_low >= self.total_limit)

    def grown(self, reading: Reading) -> int:
        """What a process other than the root holds above the start."""
        return max(0, reading.resident - self._leaving.get(reading.pid, (0, 0))[1])

    def still_over(self, interval: Interval) -> bool:
        """Whether the tree is above a limit at this moment."""
        above = self.limit is not None and self.last_low > self.limit
        return above or (self.total_limit is not None and interval.low >= self.total_limit)

    def could_rise(self, interval: Interval) -> bool:
        """Whether a sample of proportional sizes may raise the proven peak by as much as matters."""
        file = min(interval.file.low - self._start_file, interval.file_added - self._file_added)
        most = interval.held.high - self._start_high + file
        return most > self.peak_low + max(WORTHWHILE_BYTES, self.peak_low // WORTHWHILE_PART)

    def files_blur(self, interval: Interval) -> bool:
        """Whether counting file pages one by one may lower the upper figure by as much as matters."""
        gap = interval.file.high - max(interval.file.low, self._start_file)
        return gap > max(FILE_GAP_BYTES, self.peak_high // FILE_GAP_PART)

    def summary(self) -> Summary:
        """The answer to the measured process."""
        return Summary(
            peak_low_bytes=self.peak_low,
            peak_high_bytes=self.peak_high,
            total_low_bytes=self.total_low,
            start_bytes=self.start_bytes,
            start_file_bytes=self._start_file,
            end_bytes=self.end_low,
            others_floor_bytes=self.others_floor,
            missed_bytes=self.missed,
            by_marks_bytes=self.by_marks,
            floor_bytes=0 if self.marks.kin else self.marks.floor,
            hidden_bytes=self.marks.hidden,
            seen=list(self.seen.items()),
            timeline=self.timeline.points(),
            shared_high_bytes=self.shared.high_bytes,
            shared_total_low_bytes=self.shared.total_low_bytes,
        )

    def _others(self, readings: list[Reading]) -> int:
        """What the other processes hold by themselves; those that share anonymous memory are left out."""
        fork_groups = [reading.fork_group for reading in readings]
        return sum(r.anon for r in readings if r.pid != self.root and fork_groups.count(r.fork_group) == 1)


class Timeline:
    """At most 64 points; where there are more, neighbours merge and the higher one stays."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []
        self._stride_s = 0.0

    def add(self, at_s: float, tree: int) -> None:
        """Adds a point, in seconds and bytes after the start."""
        points = self._points
        if points and at_s - points[-1][0] < self._stride_s:
            points[-1] = (points[-1][0], max(points[-1][1], tree))
            return
        points.append((at_s, tree))
        if len(points) > LONGEST_TIMELINE:
            merged = [
                (first[0], max(first[1], second[1]))
                for first, second in zip(points[::2], [*points[1::2], points[-1]], strict=False)
            ]
            self._points = merged
            self._stride_s = 2 * (merged[-1][0] - merged[0][0]) / LONGEST_TIMELINE

    def points(self) -> list[tuple[float, int]]:
        """The points so far, oldest first."""
        return list(self._points)
