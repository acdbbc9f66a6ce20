"""Learns from finished tasks how much memory to allocate for the next one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

from pytest_membudget.stats.fitting import fit_peaks

Aim = Literal["safe", "cheap"]

_MOST_REMEMBERED = 400


class Learner(Protocol):
    """What a learner answers. Sizes and peaks are bytes."""

    def expect(self, size_bytes: float) -> float:
        """The central estimate of the peak."""

    def allocate(self, size_bytes: float) -> int:
        """What to allocate for a task of this size."""

    def observe(self, size_bytes: float, peak_bytes: float, duration_s: float = 1.0) -> None:
        """Learns from a finished task."""

    def retry(self, size_bytes: float, failed_bytes: float) -> int:
        """What to allocate after an attempt with `failed_bytes` ran out: always more."""


class AllocationLearner:
    """A line through what was seen, raised so that it covers what it would have missed."""

    def __init__(self, points: Iterable[tuple[float, float]] = (), *, aim: Aim = "safe") -> None:
        self.aim = aim
        self._points: list[tuple[float, float]] = []
        for size_bytes, peak_bytes in points:
            self.observe(size_bytes, peak_bytes)

    def expect(self, size_bytes: float) -> float:
        """The central estimate; the mean of what was seen while that is fewer than three tasks."""
        if len(self._points) < 3:
            return sum(peak for _, peak in self._points) / max(1, len(self._points))
        return fit_peaks(self._points).expect(size_bytes)

    def allocate(self, size_bytes: float) -> int:
        """The estimate times the largest excess of what was seen over its own estimate."""
        if len(self._points) < 3:
            return round(max((peak for _, peak in self._points), default=0.0))
        fit = fit_peaks(self._points)
        excess = sorted(peak / max(1.0, fit.expect(size)) for size, peak in self._points)
        place = len(excess) - 1 if self.aim == "safe" else round(0.95 * (len(excess) - 1))
        return round(fit.expect(size_bytes) * max(1.0, excess[place]))

    def observe(self, size_bytes: float, peak_bytes: float, duration_s: float = 1.0) -> None:
        """Remembers the task and forgets the oldest beyond a few hundred."""
        self._points.append((float(size_bytes), float(peak_bytes)))
        del self._points[:-_MOST_REMEMBERED]

    def retry(self, size_bytes: float, failed_bytes: float) -> int:
        """Twice the failed allocation, or the largest peak seen where that is more."""
        return round(max(2 * failed_bytes, failed_bytes + 1, *(peak for _, peak in self._points)))
