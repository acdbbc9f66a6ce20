"""A history of runs, and what became of each test over it: series, changes and verdicts."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_membudget.records.quantities import Bytes, Count
from pytest_membudget.records.report import Environment, Outcome

TrendVerdict = Literal["steady", "jumped", "crept", "unknown"]
ChangeKind = Literal["jump", "creep", "drop", "environment"]


class HistoryRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run as the history keeps it. `revision` is empty where it is not known, `created` is ISO 8601 or empty."""

    revision: str = ""
    created: str = ""
    environment: Environment = Environment()
    tests: Count = 0

    @property
    def label(self) -> str:
        """The revision; without one the time, so that a reader can tell runs apart."""
        return self.revision or self.created or "unknown"


class HistoryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One test in one run; `samples_bytes` are its peaks in fresh processes, where it was run again."""

    revision: str
    created: str
    outcome: Outcome
    peak_bytes: Bytes
    peak_upper_bytes: Bytes | None = None
    samples_bytes: tuple[Bytes, ...] = ()


class TestHistory(msgspec.Struct, frozen=True, kw_only=True):
    """One test over all runs that measured it, the oldest first."""

    __test__ = False

    nodeid: str
    points: tuple[HistoryPoint, ...]


class RevisionPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A place on the time axis: all runs of one revision in one environment."""

    revision: str
    created: str
    #: Index into the environments of the report.
    environment: int = 0

    @property
    def label(self) -> str:
        """The revision; without one the time."""
        return self.revision or self.created or "unknown"


class TrendChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a test's level.

    A jump, drop or environment step is told at the first revision of the new level. A creep begins at
    `revision` and ends at `until_revision`. Levels are medians of the measured peaks on both sides.
    """

    kind: ChangeKind
    revision: str
    index: Count
    before_bytes: Bytes
    after_bytes: Bytes
    until_revision: str = ""
    until_index: Count | None = None
    #: Whether the test is still above the level before this change.
    in_force: bool = False
    #: How two environments differ, in words; for steps of kind "environment" only.
    differences: tuple[str, ...] = ()

    @property
    def change(self) -> float:
        """Relative change of the level; zero where the level before was zero."""
        return (self.after_bytes - self.before_bytes) / self.before_bytes if self.before_bytes else 0.0


class TestTrend(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one test.

    `revision` is where it jumped, or since when it creeps, and `change` by how much; both absent for the other
    verdicts. `anchor_bytes` is the level at the start, which never moves with the test, `level_bytes` the one now.
    """

    __test__ = False

    nodeid: str
    verdict: TrendVerdict
    revision: str | None = None
    until_revision: str | None = None
    change: float | None = None
    before_bytes: Bytes | None = None
    after_bytes: Bytes | None = None
    anchor_bytes: Bytes
    level_bytes: Bytes
    #: Typical distance of a point from its level, relative.
    noise: float
    revisions: Count
    changes: tuple[TrendChange, ...] = ()
    #: Index into the revisions of the report for each peak.
    positions: tuple[Count, ...] = ()
    peaks_bytes: tuple[Bytes, ...] = ()
    caveats: tuple[str, ...] = ()


class TrendReport(msgspec.Struct, frozen=True, kw_only=True):
    """Every test of a history: those that got worse first, the newest change first among them."""

    path: str
    tolerance: str
    since: str = ""
    #: Index of the first revision of the last 30 days; of the last 30 revisions where times are not known.
    month_index: Count = 0
    revisions: tuple[RevisionPoint, ...] = ()
    environments: tuple[Environment, ...] = ()
    tests: tuple[TestTrend, ...] = ()

    def count(self, verdict: TrendVerdict) -> int:
        """How many tests have this verdict."""
        return sum(test.verdict == verdict for test in self.tests)
