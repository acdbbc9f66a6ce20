"""Two reports side by side: one row a test, and what all of them together did."""

from __future__ import annotations

from typing import Literal

import msgspec


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Some samples of a peak, in bytes. `low_bytes` to `high_bytes` holds the true median with 95% confidence.

    Both are absent where the samples are too few for that.
    """

    median_bytes: float
    samples: int
    low_bytes: float | None = None
    high_bytes: float | None = None

    @property
    def spread(self) -> float | None:
        """The farther end of the interval from the median, as a fraction of it."""
        if self.low_bytes is None or self.high_bytes is None or not self.median_bytes:
            return None
        return (
            max(self.high_bytes - self.median_bytes, self.median_bytes - self.low_bytes) / self.median_bytes
        )


class TestChange(msgspec.Struct, frozen=True, kw_only=True):
    """One test in both reports. `p` is two-sided, absent where the samples are too few for any finding."""

    __test__ = False

    nodeid: str
    base: Summary
    new: Summary
    allowed_bytes: int
    finding: Literal["same", "regressed", "improved"]
    p: float | None = None
    renamed_from: str = ""

    @property
    def change(self) -> float | None:
        """Relative change of the median; None where the base is zero."""
        if not self.base.median_bytes:
            return None
        return (self.new.median_bytes - self.base.median_bytes) / self.base.median_bytes


class ReportComparison(msgspec.Struct, frozen=True, kw_only=True):
    """All tests that two reports share, and those they do not."""

    base_path: str
    new_path: str
    tolerance: str
    rows: tuple[TestChange, ...]
    geomean_ratio: float | None = None
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()

    def count(self, finding: str) -> int:
        """How many tests have this finding."""
        return sum(row.finding == finding for row in self.rows)
