"""How many workers fit? The reference documents' `ResourceManager`, a thin face over estimator and reading."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterable

from pytest_membudget.measurement.system.limit import host_memory, memory_reading
from pytest_membudget.records.files import BatchPreview
from pytest_membudget.records.run import MemoryStatus
from pytest_membudget.runtime.admission.available_budget import ReadMemory
from pytest_membudget.runtime.parameters import count_of, share_of
from pytest_membudget.runtime.prediction.estimator import MemoryEstimator
from pytest_membudget.runtime.prediction.files import FilePath, each_path, file_size_bytes, preview_batch
from pytest_membudget.units import Size, format_size

logger = logging.getLogger("pytest_membudget.runtime")


class ResourceManager:
    """Recommends a number of workers, and says what it is based on.

    With files: the most workers whose largest files fit together into `eta` of the limit and into what is available
    now. Without: as many as there are cores and as their overhead fits. Always between `min_workers` and
    `max_workers`; at most `fallback_workers` where psutil is missing and the memory is only assumed.

    Args:
        eta: share of the limit that the workers may use together.
        gamma, overhead: what a file takes, see `MemoryEstimator`.
        safety_enabled: False ignores memory: the number of cores, or `fallback_workers` where that is unknown.
        reading: replaced by tests.
    """

    def __init__(
        self,
        eta: float = 0.75,
        gamma: float = 3.0,
        overhead: Size = "50 MB",
        safety_enabled: bool = True,
        *,
        min_workers: int = 1,
        max_workers: int = 16,
        fallback_workers: int = 4,
        reading: ReadMemory = memory_reading,
    ) -> None:
        self.eta = share_of("eta", eta)
        self.estimator = MemoryEstimator(gamma, overhead)
        self.safety_enabled = safety_enabled
        self.min_workers = count_of("min_workers", min_workers)
        self.max_workers = count_of("max_workers", max_workers, least=self.min_workers)
        self.fallback_workers = count_of("fallback_workers", fallback_workers)
        self._reading = reading

    def get_optimal_workers(self, file_paths: Iterable[FilePath] | None = None) -> int:
        """The recommended number of workers for these files, or for tasks without files.

        Raises:
            FileNotFoundError: one of the files does not exist.
            UsageError: `file_paths` is one path, or not of files.
        """
        sizes = (
            None
            if file_paths is None
            else [file_size_bytes(path) for path in each_path("file_paths", file_paths)]
        )
        if not self.safety_enabled:
            workers = os.cpu_count() or self.fallback_workers
            logger.warning(
                "safety is off: %d workers whatever the memory; a large batch may exhaust it (safety_enabled=True)",
                workers,
            )
            return workers
        most = self.max_workers if _has_psutil() else min(self.fallback_workers, self.max_workers)
        if sizes is None:
            sizes = [0] * (
                os.cpu_count() or self.fallback_workers if _has_psutil() else self.fallback_workers
            )
        return max(self.min_workers, min(most, self._fitting(sizes)))

    def preview_batch(self, file_paths: Iterable[FilePath]) -> BatchPreview:
        """Counts the files by category and logs what they will ask for."""
        return preview_batch(file_paths, self.estimator)

    def get_memory_status(self) -> MemoryStatus:
        """The machine's memory, what is available under the real limit, and the workers recommended without files."""
        reading = self._reading()
        return MemoryStatus(
            total_bytes=host_memory().limit_bytes,
            available_bytes=reading.available_bytes,
            limit_bytes=reading.limit.bytes,
            limit_source=reading.limit.source,
            recommended_workers=self.get_optimal_workers(),
        )

    def log_status(self) -> None:
        """The memory status as one line of the log."""
        status = self.get_memory_status()
        logger.info(
            "memory: %s available of %s (%s; the machine has %s); %d workers recommended",
            format_size(status.available_bytes),
            format_size(status.limit_bytes),
            status.limit_source,
            format_size(status.total_bytes),
            status.recommended_workers,
        )

    def _fitting(self, sizes: list[int]) -> int:
        reading = self._reading()
        usable_bytes = min(int(self.eta * reading.limit.bytes), reading.available_bytes)
        workers = self.estimator.optimal_workers(sizes, limit=usable_bytes, eta=1.0)
        least_bytes = self.estimator.estimate_batch_memory(sizes, 1) if sizes else 0
        if least_bytes > usable_bytes:
            logger.warning(
                "the largest file alone is expected to take %s, but %s may be used; process it by itself, or on a "
                "larger machine",
                format_size(least_bytes),
                format_size(usable_bytes),
            )
        return workers


def get_optimal_workers(file_paths: Iterable[FilePath] | None = None, safety_enabled: bool = True) -> int:
    """How many workers fit into memory for these files: `ResourceManager` with its defaults.

    Raises:
        FileNotFoundError: one of the files does not exist.
    """
    return ResourceManager(safety_enabled=safety_enabled).get_optimal_workers(file_paths)


def _has_psutil() -> bool:
    try:
        return importlib.util.find_spec("psutil") is not None
    except ValueError:  # a test or a program put None in its place
        return False
