"""What will this file take? A line through the file's size, corrected by what finished tasks really took."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from pytest_membudget.errors import UsageError, count_of, factor_of, share_of, size_of
from pytest_membudget.measurement.system.machine import memory_limit
from pytest_membudget.records.calibration import Coverage
from pytest_membudget.runtime.prediction.predictors import size_of_item
from pytest_membudget.stats.bounds import ExcessDetector, anytime_rate_interval
from pytest_membudget.stats.fitting import RUN_TO_RUN_BYTES
from pytest_membudget.stats.learning import PeakStairs
from pytest_membudget.units import Size, format_count

if TYPE_CHECKING:
    from pytest_membudget.stats.learning import Learner


class PredictorLaw(Protocol):
    """What an item takes by several predictors; a calibration answers."""

    def features(self, item: Any) -> int | dict[str, float]:
        """Its predictors by name."""

    def expect(self, item: Any) -> int:
        """The central estimate in bytes, of an item or of its features."""


logger = logging.getLogger("pytest_membudget.runtime")

PRESETS: dict[str, tuple[float, Size]] = {
    # Starting points from two real pipelines; measured ones (see calibration) replace them.
    "document": (12.0, "500 MB"),  # nested markup into an object tree, then a language model over it
    "dataframe": (3.0, "50 MB"),  # text tables into columns
}

_EVIDENCE_TASKS = 8
"""Finished tasks before an estimate may go below the formula."""

_DOUBT_SHARE = 0.10
_DOUBT_BYTES = 1024 * 1024
"""A peak is known when its upper figure lies at most 10% and 1 MiB above what is proven."""

_SAFE_EXCESS = 0.01
"""Of tasks, at most, that take more than the aim "safe" estimates."""

_ALARM_CONFIDENCE = 0.99  # one task alone above its estimate is no alarm yet, two of two are
_MOST_OPEN = 4096
"""Estimates remembered until their tasks are seen."""

_NEAR = 1.25
"""Up to this multiple of the largest size seen, what was seen holds for other sizes too."""


class MemoryEstimator:
    """Predicts the memory that a task adds to its worker: `gamma` times the file's size, plus `overhead`.

    It learns from finished tasks. A peak above its estimate raises the estimate at once, for files of that size and
    above. Below the formula it goes only with evidence: after 8 tasks, and for sizes near those that were seen. It
    never goes below the largest peak seen near a size, unless its learner has the aim "cheap". Threads may share one.

    Args:
        gamma: bytes of memory per byte of file.
        overhead: what any task takes, however small its file.
        base: what is held before any task begins. It is in no file's estimate. A batch counts it once, as the
            formula does, or with `processes=True` once a worker, as an executor and `membudget workers` do.
        learner: answers instead of the formula, from the first file on; what a calibration gives.
        predictors: reduces an item to one figure, its central estimate; the learner goes by that in place of a size.
        first_call_bytes: what the first call in a process takes beyond its estimate; it is in no estimate.

    Wherever a size is asked for, a path, a folder or a tuple of paths will do; with `predictors` the item itself or a
    mapping of predictors, and no size.
    """

    def __init__(
        self,
        gamma: float = 3.0,
        overhead: Size = "50 MB",
        base: Size | None = None,
        *,
        learner: Learner | None = None,
        predictors: PredictorLaw | None = None,
        first_call_bytes: int = 0,
    ) -> None:
        self.gamma = factor_of("gamma", gamma)
        self.overhead_bytes = size_of("overhead", overhead)
        self.base_bytes = 0 if base is None else size_of("base", base)
        self._observed = PeakStairs()
        self.first_call_bytes = first_call_bytes
        self._predictors = predictors
        self._learner = learner
        self._begins_with_learner = learner is not None
        self._largest_size_bytes = 0
        self._learned = 0
        self._news: list[tuple[int, int, float | None]] = []
        self._lock = threading.RLock()
        self._coverage = _RealizedCoverage()
        self._is_alarmed = False

    @classmethod
    def preset(cls, name: Literal["document", "dataframe"] | str) -> MemoryEstimator:  # noqa: PYI051 - names the choices
        """A starting point by name: "document" (γ 12, 500 MB) or "dataframe" (γ 3, 50 MB).

        Raises:
            UsageError: there is no such preset.
        """
        if name not in PRESETS:
            raise UsageError(f"preset {name!r} is unknown; choose one of {', '.join(sorted(PRESETS))}")
        gamma, overhead = PRESETS[name]
        return cls(gamma, overhead)

    def __repr__(self) -> str:
        return (
            f"MemoryEstimator(gamma={self.gamma:g}, overhead={self.overhead_bytes}, base={self.base_bytes}; "
            f"{format_count(self._learned + len(self._news), 'task')} seen)"
        )

    @property
    def goes_by_predictors(self) -> bool:
        """Whether it wants the item, or a mapping of predictors, in place of a size."""
        return self._predictors is not None

    def features(self, item: Any) -> int | dict[str, float]:
        """What this estimator goes by of an item: its size in bytes, or its predictors by name.

        They are taken wherever an item is: keep them where the item itself, or its file, will be gone.

        Raises:
            UsageError: the item has no size, or a predictor fails on it.
        """
        return size_of_item(item) if self._predictors is None else self._predictors.features(item)

    def estimate_file_memory(self, size: Size | Any) -> int:
        """Bytes that the task for a file of `size` adds: γ·size + overhead, corrected by what was seen."""
        size_bytes = self._reduced("size", size)
        with self._lock:
            estimate_bytes = self._estimated(size_bytes)
            self._coverage.estimated(size_bytes, estimate_bytes)
            return estimate_bytes

    def _estimated(self, size_bytes: int) -> int:
        if self._begins_with_learner and self._learner is not None:
            return self._learner.allocate(size_bytes)
        by_formula = math.ceil(self.gamma * size_bytes) + self.overhead_bytes
        seen = self._observed.up_to(size_bytes)
        if self._learner is None or self._learned < _EVIDENCE_TASKS:
            return max(by_formula, seen)
        learned = max(self._learner.allocate(size_bytes), seen)
        return learned if size_bytes <= _NEAR * self._largest_size_bytes else max(by_formula, learned)

    @property
    def coverage(self) -> Coverage:
        """How many of the tasks that were estimated took more, beside what is promised; see `Coverage.is_broken`."""
        with self._lock:
            return self._coverage.record(self._promised)

    @property
    def _promised(self) -> float | None:
        """The share of tasks that may exceed their estimates: the aim "safe" of a calibration covers 99%."""
        is_safe = self._begins_with_learner and getattr(self._learner, "aim", "") == "safe"
        return _SAFE_EXCESS if is_safe else None

    def estimate_batch_memory(
        self, sizes: Iterable[Size | Any], workers: int, *, processes: bool = False
    ) -> int:
        """Bytes at the worst moment, the `workers` largest files together: `M_base + Σ(γ·size(r_i) + M_overhead)`.

        The base counts once, as for threads of one process. With `processes` each worker has one of its own:
        `Σ(M_base + γ·size(r_i) + M_overhead)`, which is what an executor charges.
        """
        count_of("workers", workers)
        shared_bytes, worker_bytes = self._bases(processes)
        tasks = self._largest_first(sizes)[:workers]
        return shared_bytes + worker_bytes * len(tasks) + sum(tasks)

    def optimal_workers(
        self,
        sizes: Iterable[Size | Any],
        limit: Size | None = None,
        eta: float = 0.75,
        *,
        processes: bool = False,
    ) -> int:
        """The most workers whose worst moment stays within `eta` of `limit`: `P_opt = max p : M(p) ≤ η·M_RAM`.

        At least 1, also where even one does not fit; at most one a file. Without a `limit` the real one counts.
        `processes` as in `estimate_batch_memory`.
        """
        share = share_of("eta", eta)
        limit_bytes = memory_limit().bytes if limit is None else size_of("limit", limit)
        shared_bytes, worker_bytes = self._bases(processes)
        fit = fit_workers(
            self._largest_first(sizes),
            share * limit_bytes,
            shared_bytes=shared_bytes,
            worker_bytes=worker_bytes,
        )
        return max(1, fit.workers)

    def observe(
        self,
        size_bytes: Size | Any,
        peak_bytes: Size,
        duration_s: float | None = None,
        *,
        peak_upper_bytes: Size | None = None,
    ) -> None:
        """Learns from a finished task.

        Args:
            size_bytes: of its input, or the item.
            peak_bytes: what it took, proven. 0 without an upper figure means that its memory was not seen: nothing
                is learned from that.
            duration_s: how long it ran.
            peak_upper_bytes: the most that it may have taken. More than 10% and 1 MiB above `peak_bytes` the peak is
                not known: the estimate is raised where it is below `peak_bytes`, and nothing else is learned.
        """
        size, proven = self._reduced("size_bytes", size_bytes), size_of("peak_bytes", peak_bytes)
        upper = proven if peak_upper_bytes is None else size_of("peak_upper_bytes", peak_upper_bytes)
        if peak_upper_bytes is None and proven == 0:
            return
        with self._lock:
            if not is_known(proven, upper):
                # It may still run, and hold what its worker has just imported: it counts when its peak is known.
                self._observe_at_least(size, proven)
            else:
                self._check_coverage(size, proven)
                self._observe(size, max(proven, upper), duration_s)

    def retry_bytes(self, size: Size | Any, failed_bytes: Size) -> int:
        """What to allocate after an attempt with `failed_bytes` ran out: always more, and at least the estimate."""
        size_now, failed = self._reduced("size", size), size_of("failed_bytes", failed_bytes)
        with self._lock:
            if self._learner is not None and (self._begins_with_learner or self._learned >= _EVIDENCE_TASKS):
                chosen = self._learner.retry(size_now, failed)
            else:
                chosen = 2 * failed
            return max(chosen, failed + 1, self._estimated(size_now))

    def _reduced(self, name: str, size: Size | Any) -> int:
        """The one figure that the learner goes by."""
        if self._predictors is not None:
            return self._predictors.expect(size)
        try:
            return size_of_item(size)
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None

    def _observe(self, size: int, peak: int, duration_s: float | None) -> None:
        if self._begins_with_learner and self._learner is not None:
            self._learner.observe(size, peak, duration_s)
            self._learned += 1
            return
        too_low = peak > self._estimated(size)
        self._observed.add(size, peak)
        self._news.append((size, peak, duration_s))
        # A learner refits all that it remembers, so tasks that fit are handed over in batches.
        if too_low or len(self._news) > self._learned // 8:
            self._learn()

    def _check_coverage(self, size: int, proven: int) -> None:
        """Counts the task, and says once when the promise is broken."""
        exceeded = self._coverage.seen(size, proven)
        if not exceeded or self._is_alarmed or self._promised is None:
            return
        found = self._coverage.record(self._promised)
        if found.is_broken:
            self._is_alarmed = True
            logger.warning("the estimates of this calibration are too low: %s", found)

    def _observe_at_least(self, size: int, peak: int) -> None:
        if self._begins_with_learner and self._learner is not None:
            self._learner.observe_at_least(size, peak)
        else:
            self._observed.add(size, peak)

    def _learn(self) -> None:
        if self._learner is None:
            from pytest_membudget.stats.learning import AllocationLearner

            self._learner = AllocationLearner(aim="safe")
        for size, peak, duration_s in self._news:
            self._learner.observe(size, peak, duration_s)
            self._largest_size_bytes = max(self._largest_size_bytes, size)
        self._learned += len(self._news)
        self._news.clear()

    def _bases(self, processes: bool) -> tuple[int, int]:
        """What is held once, and what each worker holds, in bytes."""
        return (0, self.base_bytes) if processes else (self.base_bytes, 0)

    def _largest_first(self, sizes: Iterable[Size | Any]) -> list[int]:
        return sorted((self.estimate_file_memory(size) for size in sizes), reverse=True)


class _RealizedCoverage:
    """Counts how many tasks took more than their last estimate. A task that was never estimated does not count.

    Nor does an excess that two runs of the same input may differ by: an estimate that is exact would be exceeded half of the
    time, by some pages.
    """

    def __init__(self) -> None:
        self._exceeded = 0
        self._tasks = 0
        self._detector = ExcessDetector(_SAFE_EXCESS, _ALARM_CONFIDENCE)
        self._open: dict[int, int] = {}

    def estimated(self, size: int, estimate_bytes: int) -> None:
        self._open[size] = estimate_bytes
        if len(self._open) > _MOST_OPEN:
            del self._open[next(iter(self._open))]

    def seen(self, size: int, peak_bytes: int) -> bool:
        """Whether the task took more than its estimate."""
        estimate_bytes = self._open.get(size)
        if estimate_bytes is None:
            return False
        exceeded = peak_bytes > estimate_bytes + RUN_TO_RUN_BYTES
        self._tasks += 1
        self._exceeded += exceeded
        self._detector.add(exceeded)
        return exceeded

    def record(self, promised: float | None) -> Coverage:
        low, high = anytime_rate_interval(self._exceeded, self._tasks, _ALARM_CONFIDENCE)
        return Coverage(
            tasks=self._tasks,
            exceeded=self._exceeded,
            low=low,
            high=high,
            promised=promised,
            breach=None if promised is None else self._detector.breach,
        )


def is_known(peak_bytes: int, peak_upper_bytes: int | None) -> bool:
    """Whether a peak is known well enough to learn from it: its upper figure is at most 10% and 1 MiB higher."""
    return peak_upper_bytes is None or peak_upper_bytes <= peak_bytes * (1 + _DOUBT_SHARE) + _DOUBT_BYTES


class Fit(NamedTuple):
    """The most workers that fit, what they take together, and what one more would; `None` where no task is left."""

    workers: int
    taken_bytes: int
    next_bytes: int | None


def fit_workers(
    largest_first: Iterable[int], allowed_bytes: float, *, shared_bytes: int = 0, worker_bytes: int = 0
) -> Fit:
    """As many workers as stay within `allowed_bytes`, with one of the tasks each.

    Args:
        largest_first: the bytes that each task adds, falling.
        allowed_bytes: what all may take.
        shared_bytes: what is held once however many there are: threads share one base.
        worker_bytes: what each worker holds besides its task: processes have a base each.
    """
    taken_bytes, workers = shared_bytes, 0
    for task_bytes in largest_first:
        more_bytes = taken_bytes + worker_bytes + task_bytes
        if more_bytes > allowed_bytes:
            return Fit(workers, taken_bytes, more_bytes)
        taken_bytes, workers = more_bytes, workers + 1
    return Fit(workers, taken_bytes, None)
