"""What a file, or a batch of them, is expected to need before anything is run."""

from __future__ import annotations

import logging
import os
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from pytest_membudget.errors import UsageError
from pytest_membudget.records.files import BatchPreview, FileCategory, ResourceEstimate
from pytest_membudget.runtime.prediction.estimator import MemoryEstimator
from pytest_membudget.units import format_size

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
