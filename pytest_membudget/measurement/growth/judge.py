"""The verdict: goes on calling until the samples decide, or the time or what may pile up is used up, and says what is in doubt."""

from __future__ import annotations

from typing import NamedTuple

from pytest_membudget.measurement.growth.caches import FilledCache
from pytest_membudget.measurement.growth.culprits import python_allocates
from pytest_membudget.measurement.growth.foreign_memory import private_bytes_of
from pytest_membudget.measurement.growth.repeat import (
    CALLS_BEYOND_DOUBT,
    CallsEnded,
    CallTooLongError,
    Rounds,
    is_bytes,
)
from pytest_membudget.measurement.growth.samples import (
    EXACT_BYTES,
    OF_SHARED_FILES,
    PAGED_ALLOWANCE_BYTES,
    PAGED_BYTES,
    Figures,
)
from pytest_membudget.measurement.growth.shared_files import Origin
from pytest_membudget.measurement.process.children import descendants
from pytest_membudget.measurement.system.machine import memory_reading
from pytest_membudget.originals import resource, restored, sys
from pytest_membudget.records.judgement import GrowthVerdict
from pytest_membudget.stats.growth import (
    CACHES_BYTES,
    FEWEST_SAMPLES,
    LITTLE_BYTES,
    RESOLUTION_BYTES_PER_CALL,
    Effort,
    Patience,
    Trend,
    decide,
)
from pytest_membudget.units import format_count, format_duration, format_size

MOST_GROWN_BYTES = 512 << 20
MOST_THREADS = 200
MOST_CHILDREN = 64
MOST_SEGMENTS = 2000
FEWEST_CALLS = 8
_UNLIMITED_DESCRIPTORS = 4096


class Caps(NamedTuple):
    """The most that each figure may grow."""

    most: Figures

    @classmethod
    def for_this_machine(cls, first: Figures) -> Caps:
        """An eighth of the memory that is free and half of the descriptors that are, within fixed bounds."""
        with restored():
            grown_bytes = min(MOST_GROWN_BYTES, memory_reading().available_bytes // 8)
        return cls(
            Figures(
                heap_bytes=grown_bytes,
                small_bytes=grown_bytes,
                mapped_bytes=grown_bytes,
                resident_bytes=grown_bytes,
                children_bytes=grown_bytes,
                files_bytes=grown_bytes,
                shared_bytes=grown_bytes,
                descriptors=(_descriptor_limit() - first.descriptors) // 2,
                threads=MOST_THREADS,
                children=MOST_CHILDREN,
                segments=MOST_SEGMENTS,
            )
        )

    def reached(self, first: Figures, last: Figures, calls: int) -> str:
        """Why no more calls should be made, or nothing. A few calls are made in any case that memory allows."""
        for name, before, now, cap in zip(Figures._fields, first, last, self.most, strict=True):
            grown = now - before
            if grown >= (cap if calls >= FEWEST_CALLS else 4 * cap):
                shown = format_size(grown) if name.endswith("_bytes") else f"{grown} {name}"
                return f"{shown} had piled up by then"
        return ""

    def next_calls(self, first: Figures, last: Figures, calls: int) -> int:
        """How many calls may follow before the next sample; at least one.

        No more than reach a cap, at the mean growth so far, and on the way to it a share of these only: a verdict needs samples.
        """
        left = sys.maxsize
        for before, now, cap in zip(first, last, self.most, strict=True):
            grown = now - before
            if grown > 0 and calls:
                left = min(left, int((cap - grown) * calls / grown) + 1)
        return max(1, min(left, max(left // 16, calls // 32)))


def _descriptor_limit() -> int:
    if sys.platform == "win32":
        return _UNLIMITED_DESCRIPTORS
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(limit, _UNLIMITED_DESCRIPTORS) if limit != resource.RLIM_INFINITY else _UNLIMITED_DESCRIPTORS


FEW_CALLS = 1000
_LEAST_EXPLAINED = 0.5
_MOST_CACHES_SHOWN = 3
_MOST_THREADS_CREDITED = 16
_SHARE_FOR_FILES = 0.15
_SEEN_IN_PAGES_BYTES = 64 << 10
_MOST_NOISE_BYTES_PER_CALL = 512
"""Beside more than that a leak of as much may not show in few calls: *clean* waits for half of the time."""
_OTHERS_FILES = "files appeared in shared memory that another program may have made, as they did not come with the calls alone: they were not judged"
_TOO_FEW_FILES = "files appeared in shared memory with the calls, too few to be certain that no other program made them; a larger timeout_s allows more"


class Finding(NamedTuple):
    """The verdict, the figures that led to it, and what the reader should know besides."""

    verdict: GrowthVerdict
    trends: dict[str, Trend]
    doubts: tuple[str, ...]


class Judge:
    """Goes on until the samples decide, or time or caps are used up."""

    def __init__(self, rounds: Rounds, allowed_bytes: int, timeout_s: float) -> None:
        self._rounds = rounds
        self._allowed_bytes = allowed_bytes
        self._timeout_s = timeout_s
        self._caps = Caps.for_this_machine(rounds.first)
        self._patience = _patience(timeout_s)
        self._reason = self._piled_up = ""
        self._origin_of_files: Origin | None = None
        self._filling: tuple[FilledCache, ...] = ()
        self._calls_before_next_scan = 0
        self._calls_before_next_trace = 0
        self._others_may_keep = False
        self._has_shrunk_databases = False
        self._children_private_bytes = 0

    def run(self, *, can_interrupt: bool) -> Finding:
        """Calls the function until there is a verdict."""
        rounds = self._rounds
        while True:
            self._advance()
            effort = Effort(
                rounds.calls, rounds.elapsed_s - rounds.first_call_s, exhausted=bool(self._reason)
            )
            if rounds.last.heap_bytes - rounds.first.heap_bytes > LITTLE_BYTES:
                rounds.remember_caches()  # early: what has been filled before is not known to be filled
            if not self._patience.may_decide(effort):
                continue
            trends = rounds.trends(self._allowed_bytes)
            verdict = self._verdict(trends, effort)
            if verdict:
                doubts = _doubts(verdict, trends, rounds, self._reason, can_interrupt)
                return Finding(verdict, trends, (*doubts, *self._own_doubts(verdict)))

    def _advance(self) -> None:
        rounds, caps = self._rounds, self._caps
        try:
            rounds.advance(caps.next_calls(rounds.first, rounds.last, rounds.calls))
            self._reason = self._piled_up = caps.reached(rounds.first, rounds.last, rounds.calls)
        except CallsEnded as end:
            self._reason = str(end)
        except CallTooLongError:
            self._reason = (
                f"a call was still running after {format_duration(rounds.elapsed_s)} and was interrupted"
            )

    def _verdict(self, trends: dict[str, Trend], effort: Effort) -> GrowthVerdict | None:
        """The verdict, or None while more calls should be made."""
        patience = self._patience._replace(caches_bytes=LITTLE_BYTES + self._kept_for_other_threads_bytes)
        verdict = decide(list(trends.values()), effort, patience)
        if verdict in ("leak", "inconclusive") and self._pages_of_databases_explain(trends):
            trends |= self._rounds.trends(self._allowed_bytes)
            verdict = decide(list(trends.values()), effort, patience)
        if verdict and self._files_may_be_others(trends):
            return None
        if verdict == "leak" and (
            self._other_threads_explain(trends, effort) or self._caches_explain(trends, effort)
        ):
            return "inconclusive" if effort.exhausted else None
        if verdict == "inconclusive" and (
            self._full_caches_explain(trends) or self._other_threads_explain_all(trends, effort)
        ):
            verdict = "clean"
        if verdict == "clean" and (self._piled_up or self._origin_of_files == "unknown"):
            return "inconclusive"
        if verdict != "clean" or effort.exhausted:
            return verdict
        waits = self._may_hide_growth(trends, effort) and effort.elapsed_s < self._timeout_s / 2
        return None if self._children_take_pages() or waits else verdict

    @property
    def _kept_for_other_threads_bytes(self) -> int:
        """Freed memory that malloc may keep for the threads beside this one, and counts as in use."""
        return CACHES_BYTES * (min(_MOST_THREADS_CREDITED, max(1, self._rounds.last.threads)) - 1)

    def _children_take_pages(self) -> bool:
        """Whether children make more pages their own: what was free in their parent when they were forked hides what they keep."""
        if not self._rounds.last.children:
            return False
        private_bytes = sum(private_bytes_of(pid) for pid in descendants())
        if not self._children_private_bytes:
            self._children_private_bytes = private_bytes
            return bool(private_bytes)
        return private_bytes - self._children_private_bytes > _SEEN_IN_PAGES_BYTES

    def _may_hide_growth(self, trends: dict[str, Trend], effort: Effort) -> bool:
        """Whether few calls may have left a leak within what is let pass: noise, whole pages, next to nothing in all."""
        if self._rounds.may_hide_growth:
            return True
        allowed_bytes = self._allowed_bytes * effort.calls
        exact = [trends[name] for name in EXACT_BYTES]
        is_noisy = max(each.fallback for each in exact) > _MOST_NOISE_BYTES_PER_CALL * effort.calls
        seems_to_grow = any(
            each.low > self._allowed_bytes + RESOLUTION_BYTES_PER_CALL for each in exact
        ) or any(trends[name].grown > allowed_bytes + _SEEN_IN_PAGES_BYTES for name in PAGED_BYTES)
        return is_noisy or (seems_to_grow and effort.calls < CALLS_BEYOND_DOUBT)

    def _files_may_be_others(self, trends: dict[str, Trend]) -> bool:
        """Asks once whose the files in shared memory are, where they would decide; another program's are left out from then on."""
        grown = (trends[name].direction != "flat" for name in OF_SHARED_FILES)
        files_grow = self._rounds.has_new_files and any(grown)
        if not files_grow or self._origin_of_files is not None:
            return False
        self._origin_of_files = self._rounds.origin_of_files(_SHARE_FOR_FILES * self._timeout_s)
        if self._origin_of_files == "calls":
            return False
        self._piled_up = ""
        return True

    def _pages_of_databases_explain(self, trends: dict[str, Trend]) -> bool:
        """Whether half of what has grown was given back when databases emptied their caches."""
        heap = trends["heap_bytes"]
        explain = heap.direction != "flat" and self._rounds.shrink_databases(_LEAST_EXPLAINED * heap.grown)
        self._has_shrunk_databases |= explain
        return explain

    def _other_threads_explain(self, trends: dict[str, Trend], effort: Effort) -> bool:
        """Whether the heap may grow because malloc keeps freed memory for other threads; asked again when the calls have doubled.

        Their caches are out of reach. What Python's allocators handed out is none of it.
        """
        is_little = trends["heap_bytes"].grown <= self._kept_for_other_threads_bytes
        grows_elsewhere = any(
            trend.direction == "growing" for name, trend in trends.items() if name != "heap_bytes"
        )
        self._others_may_keep = is_little and not grows_elsewhere and not self._rounds.small_blocks_grow
        if self._others_may_keep and (effort.exhausted or effort.calls >= self._calls_before_next_trace):
            self._others_may_keep = not python_allocates(self._rounds, trends)
            self._calls_before_next_trace = 2 * effort.calls
        return self._others_may_keep

    def _other_threads_explain_all(self, trends: dict[str, Trend], effort: Effort) -> bool:
        """Whether that explains all that is not flat, and it does not go on steadily."""
        undecided = {name: trend.direction for name, trend in trends.items() if trend.direction != "flat"}
        is_heap_alone = undecided.keys() == {"heap_bytes"} and undecided["heap_bytes"] != "growing"
        return not self._piled_up and is_heap_alone and self._other_threads_explain(trends, effort)

    def _caches_explain(self, trends: dict[str, Trend], effort: Effort) -> bool:
        """Whether what grows may be caches that are not full yet; asked again when there are a quarter more calls."""
        growing = {name for name, trend in trends.items() if trend.direction == "growing"}
        if effort.calls >= self._patience.leak_calls or not growing.issubset(EXACT_BYTES):
            return False
        if effort.calls < self._calls_before_next_scan and not effort.exhausted:
            return True
        explains = self._entries_explain()
        self._calls_before_next_scan = effort.calls * 5 // 4 if explains else 0
        return explains

    def _full_caches_explain(self, trends: dict[str, Trend]) -> bool:
        """Whether what grew, and has slowed down or may have ended, are caches that are full by now."""
        bound = self._allowed_bytes + RESOLUTION_BYTES_PER_CALL
        undecided = {name: trend for name, trend in trends.items() if trend.direction != "flat"}
        may_have_ended = all(
            each.direction == "slowing" or (each.direction == "unclear" and each.low <= bound)
            for each in undecided.values()
        )
        if self._piled_up or not may_have_ended or not undecided.keys() <= set(EXACT_BYTES):
            return False
        return self._entries_explain() and all(each.entries >= each.capacity for each in self._filling)

    def _entries_explain(self) -> bool:
        """Whether entries of caches that state a capacity hold what has grown, or half of it."""
        explained, filling = self._rounds.filled_caches()
        explains = bool(filling) and explained >= _LEAST_EXPLAINED
        self._filling = filling if explains else ()
        return explains

    def _own_doubts(self, verdict: GrowthVerdict) -> tuple[str, ...]:
        doubts = []
        if verdict != "leak" and self._filling:
            shown = ", ".join(str(each) for each in self._filling[:_MOST_CACHES_SHOWN])
            doubts.append(f"a cache that is being filled explains the growth: {shown}")
        if verdict != "leak" and self._others_may_keep:
            doubts.append(
                f"malloc keeps up to {format_size(CACHES_BYTES)} for each other thread, which grows like a leak until it is full"
            )
        if self._has_shrunk_databases:
            doubts.append(
                "sqlite kept pages of its files, 2 MB a connection unless told otherwise: not counted as growth"
            )
        if self._origin_of_files in {"others", "unknown"} and verdict != "leak":
            doubts.append(_OTHERS_FILES if self._origin_of_files == "others" else _TOO_FEW_FILES)
        return tuple(doubts)


def _patience(timeout_s: float) -> Patience:
    """The usual patience, within the time there is."""
    usual = Patience()
    return usual._replace(
        clean_s=min(usual.clean_s, timeout_s / 5),
        clean_enough_s=min(usual.clean_enough_s, timeout_s / 2),
        leak_enough_s=0.6 * timeout_s,
    )


def _doubts(
    verdict: GrowthVerdict, trends: dict[str, Trend], rounds: Rounds, reason: str, can_interrupt: bool
) -> tuple[str, ...]:
    """What the reader of the verdict should know: how far the check came and why it stopped."""
    doubts = []
    calls = format_count(rounds.calls, "call")
    if reason:
        doubts.append(f"stopped after {calls}: {reason}")
    if verdict == "inconclusive" and rounds.calls < FEWEST_SAMPLES:
        doubts.append(f"too few calls to judge ({rounds.calls}); a larger timeout_s allows more")
    elif verdict == "inconclusive":
        unclear = [
            _unclear(name, it) for name, it in trends.items() if it.direction in {"slowing", "unclear"}
        ]
        doubts.append(f"not decided: {', '.join(unclear) or 'growth'}; a larger timeout_s allows more calls")
    elif rounds.calls < FEW_CALLS and verdict == "clean":
        seldom = max(1, rounds.calls // 4)
        grown_bytes = max(0.0, trends["heap_bytes"].grown)
        doubts.append(
            f"judged on {calls}, at most {format_size(grown_bytes)} of heap in all: what grows less than once in {seldom} of them "
            "would not show"
        )
    elif rounds.calls < Patience().leak_calls and verdict == "leak":
        doubts.append(f"judged on {calls}: a cache that takes more calls to fill looks the same")
    if rounds.last.children and verdict == "clean":
        doubts.append(
            f"children are judged by whole pages: growth below {format_size(PAGED_ALLOWANCE_BYTES)} in all, or into memory that they "
            "had kept, would not show there"
        )
    if rounds.slowest_call_s > 1 and not can_interrupt:
        doubts.append("a call that runs past the time limit could not have been interrupted here")
    slowing_bytes = sum(
        it.grown for name, it in trends.items() if it.direction == "slowing" and is_bytes(name)
    )
    if slowing_bytes > 0 and verdict == "clean":
        doubts.append(
            f"clean so far, {format_size(slowing_bytes)} in all: growth slowed down from window to window, as where a cache fills up"
        )
    noisiest = max(trends[name].fallback for name in EXACT_BYTES)
    if noisiest > rounds.calls:
        doubts.append(
            f"memory went up and down by {format_size(noisiest)}; what stayed below all of it was judged"
        )
    return tuple(doubts)


def _unclear(name: str, figure: Trend) -> str:
    grown = max(0.0, figure.grown)
    shown = format_size(grown) if is_bytes(name) else f"{grown:g}"
    how = "more and more slowly" if figure.direction == "slowing" else "unevenly"
    return f"{name.removesuffix('_bytes')} grew by {shown} in all, {how}"
