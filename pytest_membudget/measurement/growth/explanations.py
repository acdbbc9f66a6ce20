"""What explains growth beside a leak: caches that fill up, malloc's memory for other threads, pages of databases, files of other programs.

Each answer costs milliseconds or further calls, so it is asked for only where it would decide the verdict.
"""

from __future__ import annotations

from typing import NamedTuple

from pytest_membudget.measurement.growth.caches import FilledCache
from pytest_membudget.measurement.growth.culprits import python_allocates
from pytest_membudget.measurement.growth.repeat import Rounds
from pytest_membudget.measurement.growth.samples import EXACT_BYTES, OF_SHARED_FILES
from pytest_membudget.measurement.growth.shared_files import Origin
from pytest_membudget.records.judgement import GrowthVerdict
from pytest_membudget.stats.growth import CACHES_BYTES, RESOLUTION_BYTES_PER_CALL, Effort, Patience, Trend
from pytest_membudget.units import format_size

_LEAST_EXPLAINED = 0.5
_MOST_CACHES_SHOWN = 3
_MOST_THREADS_CREDITED = 16
_SHARE_FOR_FILES = 0.15


class Explanation(NamedTuple):
    """What explains growth, or a part of it; empty where nothing does."""

    #: Caches that state a capacity and whose entries hold what has grown.
    caches: tuple[FilledCache, ...] = ()
    #: malloc may keep freed memory for the threads beside this one.
    other_threads: bool = False
    #: sqlite gave back pages that it had kept; the samples are without them.
    databases: bool = False
    #: Whose the new files in shared memory are, where that was asked; unless the calls', the samples are without them.
    origin_of_files: Origin | None = None

    def caveats(self, verdict: GrowthVerdict) -> tuple[str, ...]:
        """What the reader of the verdict should know of it."""
        doubts = []
        if verdict != "leak" and self.caches:
            shown = ", ".join(str(each) for each in self.caches[:_MOST_CACHES_SHOWN])
            doubts.append(f"a cache that is being filled explains the growth: {shown}")
        if verdict != "leak" and self.other_threads:
            doubts.append(
                f"malloc keeps up to {format_size(CACHES_BYTES)} for each other thread, which grows like a leak until it is full"
            )
        if self.databases:
            doubts.append(
                "sqlite kept pages of its files, 2 MB a connection unless told otherwise: not counted as growth"
            )
        if verdict != "leak" and self.origin_of_files == "others":
            doubts.append(
                "files appeared in shared memory that another program may have made, as they did not come with the calls alone: they were not judged"
            )
        if verdict != "leak" and self.origin_of_files == "unknown":
            doubts.append(
                "files appeared in shared memory with the calls, too few to be certain that no other program made them; a larger timeout_s allows more"
            )
        return tuple(doubts)


class Explanations:
    """Looks for what explains the growth of one check; `found` is what was found last."""

    def __init__(self, rounds: Rounds, allowed_bytes: int, timeout_s: float) -> None:
        self.found = Explanation()
        self._rounds = rounds
        self._allowed_bytes = allowed_bytes
        self._timeout_s = timeout_s
        self._calls_before_next_scan = 0
        self._calls_before_next_trace = 0

    @property
    def kept_for_other_threads_bytes(self) -> int:
        """Freed memory that malloc may keep for the threads beside this one, and counts as in use."""
        return CACHES_BYTES * (min(_MOST_THREADS_CREDITED, max(1, self._rounds.last.threads)) - 1)

    def pages_of_databases(self, trends: dict[str, Trend]) -> bool:
        """Whether half of what has grown was given back when databases emptied their caches; the last sample is without it then."""
        heap = trends["heap_bytes"]
        explain = heap.direction != "flat" and self._rounds.shrink_databases(_LEAST_EXPLAINED * heap.grown)
        if explain:
            self.found = self.found._replace(databases=True)
        return explain

    def files_of_others(self, trends: dict[str, Trend]) -> bool:
        """Asks once whose the files in shared memory are that grow. Whether they may be another program's: they are left out from then on."""
        grow = any(trends[name].direction != "flat" for name in OF_SHARED_FILES)
        if not (self._rounds.has_new_files and grow) or self.found.origin_of_files is not None:
            return False
        origin = self._rounds.origin_of_files(_SHARE_FOR_FILES * self._timeout_s)
        self.found = self.found._replace(origin_of_files=origin)
        return origin != "calls"

    def instead_of_a_leak(self, trends: dict[str, Trend], effort: Effort) -> bool:
        """Whether what goes on growing may be bounded all the same."""
        return self._other_threads(trends, effort) or self._caches_not_full(trends, effort)

    def of_what_has_ended(self, trends: dict[str, Trend], effort: Effort) -> bool:
        """Whether all that is not flat has an end that was reached: caches are full, or malloc keeps little for other threads."""
        undecided = {name: trend for name, trend in trends.items() if trend.direction != "flat"}
        if self._full_caches(undecided):
            return True
        is_heap_alone = undecided.keys() == {"heap_bytes"} and trends["heap_bytes"].direction != "growing"
        return is_heap_alone and self._other_threads(trends, effort)

    def _other_threads(self, trends: dict[str, Trend], effort: Effort) -> bool:
        """Whether the heap may grow because malloc keeps freed memory for other threads; asked again when the calls have doubled.

        Their caches are out of reach. What Python's allocators handed out is none of it.
        """
        is_little = trends["heap_bytes"].grown <= self.kept_for_other_threads_bytes
        grows_elsewhere = any(
            trend.direction == "growing" for name, trend in trends.items() if name != "heap_bytes"
        )
        may_keep = is_little and not grows_elsewhere and not self._rounds.small_blocks_grow
        if may_keep and (effort.exhausted or effort.calls >= self._calls_before_next_trace):
            may_keep = not python_allocates(self._rounds, trends)
            self._calls_before_next_trace = 2 * effort.calls
        self.found = self.found._replace(other_threads=may_keep)
        return may_keep

    def _caches_not_full(self, trends: dict[str, Trend], effort: Effort) -> bool:
        """Whether what grows may be caches that are not full yet; asked again when there are a quarter more calls."""
        growing = {name for name, trend in trends.items() if trend.direction == "growing"}
        if effort.calls >= Patience().leak_calls or not growing.issubset(EXACT_BYTES):
            return False
        if effort.calls < self._calls_before_next_scan and not effort.exhausted:
            return True
        explain = self._entries()
        self._calls_before_next_scan = effort.calls * 5 // 4 if explain else 0
        return explain

    def _full_caches(self, undecided: dict[str, Trend]) -> bool:
        """Whether what grew, and has slowed down or may have ended, are caches that are full by now."""
        bound = self._allowed_bytes + RESOLUTION_BYTES_PER_CALL
        may_have_ended = all(
            each.direction == "slowing" or (each.direction == "unclear" and each.low <= bound)
            for each in undecided.values()
        )
        if not may_have_ended or not undecided.keys() <= set(EXACT_BYTES):
            return False
        return self._entries() and all(each.entries >= each.capacity for each in self.found.caches)

    def _entries(self) -> bool:
        """Whether entries of caches that state a capacity hold what has grown, or half of it."""
        explained, filled = self._rounds.filled_caches()
        explain = bool(filled) and explained >= _LEAST_EXPLAINED
        self.found = self.found._replace(caches=filled if explain else ())
        return explain
