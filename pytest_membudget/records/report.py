"""A test session's figures: one record a test, the tables beside them, and where they were taken."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from pytest_membudget.records.growth import Growth, RetainedByTest
from pytest_membudget.records.judgement import Verdict
from pytest_membudget.records.measurement import ProcessShare, Source, TimelinePoint
from pytest_membudget.records.monitor import MonitorReport
from pytest_membudget.records.quantities import Bytes, Count, Seconds, SignedBytes
from pytest_membudget.records.run import BatchSummary
from pytest_membudget.records.scale import CurvePoint, InFlightTable, ScaleTable

Outcome = Literal["passed", "failed", "skipped", "xfailed", "xpassed", "error"]


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What may change a figure from one machine to another. `hosts` are named where it was measured elsewhere."""

    system: str = ""
    kernel: str = ""
    machine: str = ""
    python: str = ""
    libc: str = ""
    allocator: str = ""
    page_size_bytes: Bytes = 0
    transparent_hugepages: str = ""
    cores: Count = 0
    limit_bytes: Bytes = 0
    limit_source: str = ""
    packages: dict[str, str] = {}
    hosts: tuple[str, ...] = ()


Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A test against its baseline; `change` is relative, `p` is absent where no rank test was possible.

    `tolerance` says in words where the allowed size comes from, where it is not the session's own tolerance.
    """

    base_bytes: Bytes
    new_bytes: Bytes
    allowed_bytes: Bytes
    finding: Literal["same", "regressed", "improved", "new", "gone"]
    samples_bytes: tuple[Bytes, ...] = ()
    base_samples_bytes: tuple[Bytes, ...] = ()
    p: Share | None = None
    tolerance: str = ""
    caveats: tuple[str, ...] = ()

    @property
    def change(self) -> float:
        """Relative change of the median; zero where the base is zero."""
        return (self.new_bytes - self.base_bytes) / self.base_bytes if self.base_bytes else 0.0


class AllocationSite(msgspec.Struct, frozen=True):
    """A call stack that held memory at the peak, innermost frame first, in bytes of heap."""

    stack: tuple[str, ...]
    heap_bytes: Bytes
    allocations: Count


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """Who held the heap at its peak: the largest call stacks first, and where the whole story is kept.

    `heap_bytes` is all of the heap at that moment. `note` tells how heap and resident memory differ.
    """

    sites: tuple[AllocationSite, ...] = ()
    heap_bytes: int = 0
    capture: str = ""
    flame_graph: str = ""
    note: str = ""
    caveats: tuple[str, ...] = ()


class TestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One measured test. Sizes are bytes; `None` where the figure was not taken.

    `file` (as pytest shows it, with `line` from 1) is where the test stands. `samples_bytes` are peaks of
    the same test in fresh processes, where it was run again.
    """

    __test__ = False

    nodeid: str
    outcome: Outcome
    verdict: Verdict = "none"
    file: str = ""
    line: Count | None = None
    peak_bytes: Bytes | None = None
    peak_upper_bytes: Bytes | None = None
    total_peak_bytes: Bytes | None = None
    retained_bytes: SignedBytes | None = None
    duration_s: Seconds | None = None
    processes: Count | None = None
    source: Source | None = None
    interval_s: Seconds | None = None
    budget_bytes: Bytes | None = None
    budget_total_bytes: Bytes | None = None
    budget_retained_bytes: Bytes | None = None
    isolated: bool = False
    samples_bytes: tuple[Bytes, ...] = ()
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
    overhead_bytes: Bytes
    base_bytes: Bytes
    curved: bool
    points: tuple[tuple[Bytes, Bytes], ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    caveats: tuple[str, ...] = ()


class BaselineCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How a session compares with its baseline as a whole; each test's own comparison is in its record.

    `foreign` says in words how the two environments differ; `renamed` holds pairs of old and new node id;
    `not_run` are tests that were not asked for. `accept_command` makes the present figures the baseline.
    """

    path: str
    tolerance: str
    accept_command: str
    foreign: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = ()
    not_run: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a renderer shows, and what is kept as JSON. A baseline is a report of its own kind.

    `revision` is the commit that was measured, empty where it is not known.
    """

    format: Literal["membudget-report"] = "membudget-report"
    version: Literal[1] = 1
    kind: Literal["report", "baseline"] = "report"
    environment: Environment = Environment()
    tests: tuple[TestRecord, ...] = ()
    scales: tuple[ScaleTable, ...] = ()
    in_flight: tuple[InFlightTable, ...] = ()
    batches: tuple[BatchSummary, ...] = ()
    monitors: tuple[MonitorReport, ...] = ()
    calibrations: tuple[CalibrationPicture, ...] = ()
    baseline: BaselineCheck | None = None
    left_behind: tuple[RetainedByTest, ...] = ()
    created: str = ""
    revision: str = ""
    caveats: tuple[str, ...] = ()
