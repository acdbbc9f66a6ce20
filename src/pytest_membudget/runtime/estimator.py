"""What will this file take? A line through the file's size, corrected by what finished tasks really took."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from typing import Literal

from pytest_membudget.errors import UsageError
from pytest_membudget.measurement import memory_limit
from pytest_membudget.runtime.parameters import count_of, factor_of, share_of, size_of
from pytest_membudget.units import Size

_PRESETS: dict[str, tuple[float, Size]] = {
    # Starting points from two real pipelines; measured ones (see calibration) replace them.
    "document": (12.0, "500 MB"),  # nested markup into an object tree, then a language model over it
    "dataframe": (3.0, "50 MB"),  # text tables into columns
}


class MemoryEstimator:
    """Predicts the memory that a task adds to its worker: `gamma` times the file's size, plus `overhead`.

    `base` is what is held before any task begins. It is in no file's estimate. `estimate_batch_memory` counts it
    once, as the formula does; an executor charges it for every worker that it starts.
    """

    def __init__(self, gamma: float = 3.0, overhead: Size = "50 MB", base: Size | None = None) -> None:
        self.gamma = factor_of("gamma", gamma)
        self.overhead_bytes = size_of("overhead", overhead)
        self.base_bytes = 0 if base is None else size_of("base", base)
        self._observed = _LargestPeaks()

    @classmethod
    def preset(cls, name: Literal["document", "dataframe"] | str) -> MemoryEstimator:  # noqa: PYI051 - names the choices
        """A starting point by name: "document" (γ 12, 500 MB) or "dataframe" (γ 3, 50 MB).

        Raises:
            UsageError: there is no such preset.
        """
        if name not in _PRESETS:
            raise UsageError(f"preset {name!r} is unknown; choose one of {', '.join(sorted(_PRESETS))}")
        gamma, overhead = _PRESETS[name]
        return cls(gamma, overhead)

    def __repr__(self) -> str:
        return (
            f"MemoryEstimator(gamma={self.gamma:g}, overhead={self.overhead_bytes}, base={self.base_bytes}; "
            f"{len(self._observed)} peaks seen)"
        )

    def estimate_file_memory(self, size: Size) -> int:
        """Bytes that the task for a file of `size` adds: γ·size + overhead, or a larger peak that was seen.

        Never below the largest peak observed at that size or a smaller one.
        """
        size_bytes = size_of("size", size)
        return max(math.ceil(self.gamma * size_bytes) + self.overhead_bytes, self._observed.up_to(size_bytes))

    def estimate_batch_memory(self, sizes: Iterable[Size], workers: int) -> int:
        """Bytes at the worst moment, the `workers` largest files together: `M_base + Σ(γ·size(r_i) + M_overhead)`."""
        count_of("workers", workers)
        return self.base_bytes + sum(self._largest_first(sizes)[:workers])

    def optimal_workers(self, sizes: Iterable[Size], limit: Size | None = None, eta: float = 0.75) -> int:
        """The most workers whose worst moment stays within `eta` of `limit`: `P_opt = max p : M(p) ≤ η·M_RAM`.

        At least 1, also where even one does not fit; at most one a file. Without a `limit` the real one counts.
        """
        share = share_of("eta", eta)
        limit_bytes = memory_limit().bytes if limit is None else size_of("limit", limit)
        total_bytes, workers = self.base_bytes, 0
        for estimate_bytes in self._largest_first(sizes):
            total_bytes += estimate_bytes
            if total_bytes > share * limit_bytes:
                break
            workers += 1
        return max(1, workers)

    def observe(self, size_bytes: Size, peak_bytes: Size) -> None:
        """Learns from a finished task: what was seen once is expected from then on."""
        self._observed.add(size_of("size_bytes", size_bytes), size_of("peak_bytes", peak_bytes))

    def retry_bytes(self, size: Size, failed_bytes: Size) -> int:
        """What to allocate after an attempt with `failed_bytes` ran out: the estimate, at least twice as much."""
        failed = size_of("failed_bytes", failed_bytes)
        return max(self.estimate_file_memory(size), 2 * failed, failed + 1)

    def _largest_first(self, sizes: Iterable[Size]) -> list[int]:
        return sorted((self.estimate_file_memory(size) for size in sizes), reverse=True)


class _LargestPeaks:
    """The largest peak seen at a size or any smaller one: stairs that only go up."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._peaks: list[int] = []

    def __len__(self) -> int:
        return len(self._sizes)

    def up_to(self, size_bytes: int) -> int:
        place = bisect.bisect_right(self._sizes, size_bytes)
        return self._peaks[place - 1] if place else 0

    def add(self, size_bytes: int, peak_bytes: int) -> None:
        if peak_bytes <= self.up_to(size_bytes):
            return
        place = bisect.bisect_left(self._sizes, size_bytes)
        last = place
        while last < len(self._sizes) and self._peaks[last] <= peak_bytes:
            last += 1
        self._sizes[place:last] = [size_bytes]
        self._peaks[place:last] = [peak_bytes]
