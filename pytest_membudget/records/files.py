"""What is known of a file before it is processed, and the synthetic files made to order."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Literal

import msgspec


class FileCategory(enum.StrEnum):
    """Small, medium or large: decides a file's time limit and whether it runs alone in a worker."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class ResourceEstimate(msgspec.Struct, frozen=True):
    """What one file is expected to need: bytes of memory, seconds, and the pool it should run in."""

    size_bytes: int
    category: FileCategory
    memory_bytes: int
    timeout_s: float
    pool: Literal["shared", "isolated"]


class BatchPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch will ask for: files by category, the longest time limit, memory of its large files together."""

    small: int
    medium: int
    large: int
    timeout_s: float
    large_memory_bytes: int
    unclassified: int = 0

    @property
    def files(self) -> int:
        """All files of the batch."""
        return self.small + self.medium + self.large + self.unclassified


class SyntheticFile(msgspec.Struct, frozen=True):
    """A generated file of exactly `size_bytes` with `rows` records of its kind."""

    path: Path
    size_bytes: int
    rows: int
    kind: str

    def __fspath__(self) -> str:
        """Lets `open(file)` and `Path(file)` take the record itself."""
        return str(self.path)
