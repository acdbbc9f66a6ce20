"""What a file, or a batch of them, is expected to need before anything is run; and how many workers fit."""

from __future__ import annotations

import importlib.util
import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from pytest_membudget.errors import UsageError, count_of, share_of
from pytest_membudget.measurement.system.machine import host_memory, memory_reading
from pytest_membudget.records.measurement import MemoryReading
from pytest_membudget.records.run import BatchPreview, FileCategory, MemoryStatus, ResourceEstimate
from pytest_membudget.runtime.prediction.estimator import MemoryEstimator
from pytest_membudget.units import Size, format_size

logger = logging.getLogger("pytest_membudget.runtime")

FilePath = str | os.PathLike[str]

UNCLASSIFIED_TIMEOUT_S = 1200.0
"""Seconds for a batch with a file that could not be looked at."""


class FileClasses(msgspec.Struct, frozen=True, kw_only=True):
    """Where small ends and large begins, in bytes, and the seconds each category may take.

    Medium includes both of its ends: with the defaults 20 MB and 50 MB are medium.
    """

    medium_from_bytes: int = 20_000_000
    large_above_bytes: int = 50_000_000
    small_timeout_s: float = 600.0
    medium_timeout_s: float = 1200.0
    large_timeout_s: float = 2400.0

    def __post_init__(self) -> None:
        if not 0 <= self.medium_from_bytes <= self.large_above_bytes:
            raise UsageError(
                f"medium_from_bytes is {self.medium_from_bytes} and large_above_bytes {self.large_above_bytes}; "
                "give them in rising order, 0 or more"
            )
        for name in ("small_timeout_s", "medium_timeout_s", "large_timeout_s"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)!r}; give seconds above 0")

    def category(self, size_bytes: int) -> FileCategory:
        """The category of a file of that size."""
        if size_bytes < self.medium_from_bytes:
            return FileCategory.SMALL
        return FileCategory.LARGE if size_bytes > self.large_above_bytes else FileCategory.MEDIUM

    def timeout_s(self, category: FileCategory) -> float:
        """The seconds a file of that category may take."""
        return {
            FileCategory.SMALL: self.small_timeout_s,
            FileCategory.MEDIUM: self.medium_timeout_s,
            FileCategory.LARGE: self.large_timeout_s,
        }[category]


DEFAULT_CLASSES = FileClasses()


def classify_file(path: FilePath, classes: FileClasses = DEFAULT_CLASSES) -> FileCategory:
    """Small (below 20 MB), medium, or large (above 50 MB).

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: it is not a file.
    """
    return classes.category(file_size_bytes(path))


def get_file_estimate(
    path: FilePath, estimator: MemoryEstimator | None = None, classes: FileClasses = DEFAULT_CLASSES
) -> ResourceEstimate:
    """What the file will take: memory by `estimator` (the preset "document" where none is given), time and pool by size.

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: it is not a file.
    """
    return estimate_for_size(file_size_bytes(path), estimator, classes)


def estimate_for_size(
    size_bytes: int, estimator: MemoryEstimator | None = None, classes: FileClasses = DEFAULT_CLASSES
) -> ResourceEstimate:
    """The same for a file whose size is known."""
    category = classes.category(size_bytes)
    return ResourceEstimate(
        size_bytes=size_bytes,
        category=category,
        memory_bytes=(estimator or MemoryEstimator.preset("document")).estimate_file_memory(size_bytes),
        timeout_s=classes.timeout_s(category),
        pool="isolated" if category is FileCategory.LARGE else "shared",
    )


def preview_batch(
    paths: Iterable[FilePath],
    estimator: MemoryEstimator | None = None,
    classes: FileClasses = DEFAULT_CLASSES,
) -> BatchPreview:
    """Counts the files of a batch by category, logs that, and returns it.

    The batch's timeout is its largest file's. A file that cannot be looked at is counted as unclassified and
    stands for 1200 s: the batch goes on, and that file's own task will say what is wrong with it.
    """
    estimates: list[ResourceEstimate] = []
    unclassified = 0
    for path in each_path("paths", paths):
        try:
            estimates.append(get_file_estimate(path, estimator, classes))
        except (OSError, UsageError):
            unclassified += 1
    counts = Counter(estimate.category for estimate in estimates)
    timeouts_s = [estimate.timeout_s for estimate in estimates]
    if unclassified or not estimates:
        timeouts_s.append(UNCLASSIFIED_TIMEOUT_S)
    preview = BatchPreview(
        small=counts[FileCategory.SMALL],
        medium=counts[FileCategory.MEDIUM],
        large=counts[FileCategory.LARGE],
        unclassified=unclassified,
        timeout_s=max(timeouts_s),
        large_memory_bytes=sum(
            each.memory_bytes for each in estimates if each.category is FileCategory.LARGE
        ),
    )
    _log(preview)
    return preview


def file_size_bytes(path: FilePath) -> int:
    """Bytes of the file at `path`.

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: `path` is not a path, or not of a file.
    """
    try:
        found = Path(path).stat()
    except TypeError:
        raise UsageError(f"path is {path!r}; give a path as text or as a pathlib.Path") from None
    if stat.S_ISDIR(found.st_mode):
        raise UsageError(f"path is the directory {str(path)!r}; give the files in it")
    return found.st_size


def each_path(name: str, paths: Iterable[FilePath]) -> Iterable[FilePath]:
    """The paths themselves; a `UsageError` that begins with `name` where they are one path, or nothing to go through."""
    if isinstance(paths, str | bytes | os.PathLike) or not isinstance(paths, Iterable):
        raise UsageError(f"{name} is {paths!r}; give a list of paths")
    return paths


def _log(preview: BatchPreview) -> None:
    logger.info(
        "%d files: %d small, %d medium, %d large; up to %g s a file",
        preview.files,
        preview.small,
        preview.medium,
        preview.large,
        preview.timeout_s,
    )
    if preview.large:
        logger.info(
            "%d large files: estimated peak %s (%s MB) were all of them open at once",
            preview.large,
            format_size(preview.large_memory_bytes),
            f"{preview.large_memory_bytes / 1_000_000:,.0f}",
        )
    if preview.unclassified:
        logger.warning(
            "files that could not be looked at: %d; the batch's timeout is at least %g s for their sake",
            preview.unclassified,
            UNCLASSIFIED_TIMEOUT_S,
        )


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
        reading: Callable[[], MemoryReading] = memory_reading,
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
