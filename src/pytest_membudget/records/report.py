"""A test session's figures: one record a test, the tables beside them, and where they were taken."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_membudget.records.growth import Growth
from pytest_membudget.records.measurement import ProcessShare, Source, TimelinePoint
from pytest_membudget.records.scale import CurvePoint, InFlightTable, ScaleTable

Outcome = Literal["passed", "failed", "skipped", "xfailed", "xpassed", "error"]
Verdict = Literal[
    "within",
    "over",
    "over_upper",
    "killed",
    "crashed",
    "leak",
    "clean",
    "inconclusive",
    "regressed",
    "none",
]


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What may change a figure from one machine to another."""

    system: str = ""
    kernel: str = ""
    machine: str = ""
    python: str = ""
    libc: str = ""
    allocator: str = ""
    page_size_bytes: int = 0
    transparent_hugepages: str = ""
    cores: int = 0
    limit_bytes: int = 0
    limit_source: str = ""
    packages: dict[str, str] = {}


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A test against its baseline; `change` is relative, `p` is absent where no rank test was possible."""

    base_bytes: int
    new_bytes: int
    allowed_bytes: int
    finding: Literal["same", "regressed", "improved", "new", "gone"]
    samples_bytes: tuple[int, ...] = ()
    p: float | None = None
    caveats: tuple[str, ...] = ()

    @property
    def change(self) -> float:
        """Relative change of the median; zero where the base is zero."""
        return (self.new_bytes - self.base_bytes) / self.base_bytes if self.base_bytes else 0.0


class AllocationSite(msgspec.Struct, frozen=True):
    """A call stack that held memory at the peak, innermost frame first, in bytes of heap."""

    stack: tuple[str, ...]
    heap_bytes: int
    allocations: int


class TestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One measured test. Sizes are bytes; `None` where the figure was not taken."""

    __test__ = False

    nodeid: str
    outcome: Outcome
    verdict: Verdict = "none"
    peak_bytes: int | None = None
    peak_upper_bytes: int | None = None
    total_peak_bytes: int | None = None
    retained_bytes: int | None = None
    duration_s: float | None = None
    processes: int | None = None
    source: Source | None = None
    interval_s: float | None = None
    budget_bytes: int | None = None
    budget_total_bytes: int | None = None
    budget_retained_bytes: int | None = None
    isolated: bool = False
    samples_bytes: tuple[int, ...] = ()
    shares: tuple[ProcessShare, ...] = ()
    timeline: tuple[TimelinePoint, ...] = ()
    growth: Growth | None = None
    comparison: Comparison | None = None
    allocations: tuple[AllocationSite, ...] = ()
    message: str = ""
    caveats: tuple[str, ...] = ()


class CalibrationPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A calibration as a reader sees it: measured points as (size, peak) in bytes, and the fitted curve."""

    name: str
    gamma: float
    overhead_bytes: int
    base_bytes: int
    curved: bool
    points: tuple[tuple[int, int], ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    caveats: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a renderer shows, and what is kept as JSON. A baseline is a report of its own kind."""

    format: Literal["membudget-report"] = "membudget-report"
    version: Literal[1] = 1
    kind: Literal["report", "baseline"] = "report"
    environment: Environment = Environment()
    tests: tuple[TestRecord, ...] = ()
    scales: tuple[ScaleTable, ...] = ()
    in_flight: tuple[InFlightTable, ...] = ()
    calibrations: tuple[CalibrationPicture, ...] = ()
    created: str = ""
    caveats: tuple[str, ...] = ()
