"""Two sides compared, one row a test: two reports, or two revisions with the stacks that grew between them."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_membudget.records.quantities import Bytes, Count, Seconds, SignedBytes


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
