"""Two sides compared, one row a test: two reports, two revisions with the stacks that grew between them, or a history of runs."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_membudget.records import Bytes, Count, Seconds, SignedBytes
from pytest_membudget.records.report import Environment, Outcome


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


RevisionVerdict = Literal["regressed", "improved", "equivalent", "inconclusive"]
#: Where the memory was allocated: by Python code, inside a native library that it called, or in a child process.
StackKind = Literal["python", "native", "child"]


class StackGrowth(msgspec.Struct, frozen=True, kw_only=True):
    """A call stack whose bytes at the peak differ between two revisions.

    `function` is the innermost frame of the project's own code, where there is one. `stack` begins with it and goes
    outwards; `inner` is what it called, the innermost first. Frames are written "function (file:line)".
    """

    function: str
    file: str
    line: Count
    kind: StackKind
    base_bytes: Bytes
    head_bytes: Bytes
    stack: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()
    process: str = ""

    @property
    def grew_bytes(self) -> int:
        """More at the head than at the base."""
        return self.head_bytes - self.base_bytes


class FlameFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A frame of the differential flame graph, with what was allocated in and below it, at the peak of either revision."""

    name: str
    base_bytes: Bytes
    head_bytes: Bytes
    children: tuple[FlameFrame, ...] = ()


class StackComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Both peaks of one test by call stack, those that grew most first."""

    stacks: tuple[StackGrowth, ...] = ()
    flame: FlameFrame | None = None
    caveats: tuple[str, ...] = ()


class RevisionTest(msgspec.Struct, frozen=True, kw_only=True):
    """One test at both revisions; samples are peaks of single runs, in the order in which they were taken."""

    nodeid: str
    verdict: RevisionVerdict
    base_bytes: Bytes | None = None
    head_bytes: Bytes | None = None
    allowed_bytes: Bytes | None = None
    base_samples_bytes: tuple[Bytes, ...] = ()
    head_samples_bytes: tuple[Bytes, ...] = ()
    #: Runs of this test at both revisions together.
    runs: Count = 0
    stacks: tuple[StackGrowth, ...] = ()
    flame: FlameFrame | None = None
    caveats: tuple[str, ...] = ()

    @property
    def change_bytes(self) -> SignedBytes | None:
        """Head less base."""
        return (
            None if self.head_bytes is None or self.base_bytes is None else self.head_bytes - self.base_bytes
        )

    @property
    def change(self) -> float | None:
        """Relative change of the median; None where the base is zero or unknown."""
        return (
            self.change_bytes / self.base_bytes if self.base_bytes and self.change_bytes is not None else None
        )


class RevisionComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Both revisions by their commits and as they were asked for; regressed tests first.

    `error_rate` bounds the probability that any test of the suite is called although it did not change.
    """

    base: str
    head: str
    base_name: str
    head_name: str
    tolerance: str
    error_rate: float
    tests: tuple[RevisionTest, ...] = ()
    only_base: tuple[str, ...] = ()
    only_head: tuple[str, ...] = ()
    #: How many tests the screening suspected, over which the error rate was shared.
    suspected: Count = 0
    #: Sessions of pytest at both revisions together.
    sessions: Count = 0
    duration_s: Seconds = 0.0
    caveats: tuple[str, ...] = ()

    def count(self, verdict: RevisionVerdict) -> int:
        """How many tests have this verdict."""
        return sum(test.verdict == verdict for test in self.tests)


class BisectStep(msgspec.Struct, frozen=True, kw_only=True):
    """One commit that was run: good, bad, or skipped because the test did not pass there."""

    commit: str
    answer: str
    peaks_bytes: tuple[Bytes, ...] = ()


class Bisection(msgspec.Struct, frozen=True, kw_only=True):
    """The first commit at which a test uses more, with the levels before it and at it.

    `suspects` are more than this one where the test does not pass at commits before it.
    """

    commit: str
    suspects: tuple[str, ...]
    before_bytes: Bytes
    after_bytes: Bytes
    runs: Count
    steps: tuple[BisectStep, ...] = ()
    nodeid: str = ""
    subject: str = ""
    caveats: tuple[str, ...] = ()


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
        """The revision; without one the time, so that a reader can distinguish runs."""
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

    A jump, drop or environment step is reported at the first revision of the new level. A creep begins at
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
