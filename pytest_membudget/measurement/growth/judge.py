"""The verdict: goes on calling until the samples decide, or the time or what may pile up is used up, and says what is in doubt."""

from __future__ import annotations

from typing import NamedTuple

from pytest_membudget.measurement.growth.explanations import Explanations
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
    PAGED_ALLOWANCE_BYTES,
    PAGED_BYTES,
    Figures,
)
from pytest_membudget.measurement.process.children import descendants
from pytest_membudget.measurement.system.machine import memory_reading
from pytest_membudget.originals import resource, restored, sys
from pytest_membudget.records.judgement import GrowthVerdict
from pytest_membudget.stats.growth import (
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
_SEEN_IN_PAGES_BYTES = 64 << 10
_MOST_NOISE_BYTES_PER_CALL = 512
"""Beside more than that a leak of as much may not show in few calls: *clean* waits for half of the time."""
_NOISE_BYTES_PER_CALL = 32
_FEWEST_FALLS = 5
"""What falls back by more than 32 bytes a call is to have done so five times: the least of its figures is known by these."""


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
        self._explanations = Explanations(rounds, allowed_bytes, timeout_s)
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
                return Finding(verdict, trends, (*doubts, *self._explanations.found.caveats(verdict)))

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
        explanations = self._explanations
        patience = self._patience._replace(
            caches_bytes=LITTLE_BYTES + explanations.kept_for_other_threads_bytes
        )
        verdict = decide(list(trends.values()), effort, patience)
        if verdict in ("leak", "inconclusive") and explanations.pages_of_databases(trends):
            trends |= self._rounds.trends(self._allowed_bytes)
            verdict = decide(list(trends.values()), effort, patience)
        if verdict and explanations.files_of_others(trends):
            self._piled_up = ""
            return None
        if verdict == "leak" and explanations.instead_of_a_leak(trends, effort):
            return "inconclusive" if effort.exhausted else None
        if (
            verdict == "inconclusive"
            and not self._piled_up
            and explanations.of_what_has_ended(trends, effort)
        ):
            verdict = "clean"
        if verdict == "clean" and (self._piled_up or explanations.found.origin_of_files == "unknown"):
            return "inconclusive"
        if verdict != "clean" or effort.exhausted:
            return verdict
        waits = self._may_hide_growth(trends, effort) and effort.elapsed_s < self._timeout_s / 2
        return None if self._children_take_pages() or waits else verdict

    def _children_take_pages(self) -> bool:
        """Whether children make more pages their own: what was free in their parent when they were forked hides what they keep."""
        if not self._rounds.last.children:
            return False
        private_bytes = sum(private_bytes_of(pid) for pid in descendants())
        if not self._children_private_bytes:
            self._children_private_bytes = private_bytes
            return bool(private_bytes)
        return private_bytes - self._children_private_bytes > _SEEN_IN_PAGES_BYTES

    def _knows_the_floor(self, figure: Trend) -> bool:
        """Whether it fell back often, or because databases were emptied on purpose."""
        return figure.falls >= _FEWEST_FALLS or self._explanations.found.databases

    def _may_hide_growth(self, trends: dict[str, Trend], effort: Effort) -> bool:
        """Whether few calls may have left a leak within what is let pass: noise, whole pages, next to nothing in all."""
        if self._rounds.may_hide_growth:
            return True
        allowed_bytes = self._allowed_bytes * effort.calls
        exact = [trends[name] for name in EXACT_BYTES]
        is_noisy = any(
            each.fallback
            > effort.calls
            * (_MOST_NOISE_BYTES_PER_CALL if self._knows_the_floor(each) else _NOISE_BYTES_PER_CALL)
            for each in exact
        )
        seems_to_grow = any(
            each.low > self._allowed_bytes + RESOLUTION_BYTES_PER_CALL for each in exact
        ) or any(trends[name].grown > allowed_bytes + _SEEN_IN_PAGES_BYTES for name in PAGED_BYTES)
        return is_noisy or (seems_to_grow and effort.calls < CALLS_BEYOND_DOUBT)


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
