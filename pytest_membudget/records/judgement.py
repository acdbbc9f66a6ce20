"""What a test may use, what comparing its measurement with that showed, and what repeating a function showed."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_membudget.records import Count, Seconds
from pytest_membudget.units import format_count, format_size

_NO_BOUND = 2.0**60
"""An end of an interval as far off as this is not known."""


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


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What a test may add (`peak_bytes`), reach in all (`total_bytes`) and keep (`retained_bytes`), in bytes."""

    peak_bytes: int | None = None
    total_bytes: int | None = None
    retained_bytes: int | None = None


class Advice(msgspec.Struct, frozen=True):
    """What to do about a failure: find out who allocates, or permit it.

    `permit` is the marker or the command that permits what was measured, `nodeid` the test where the message is not about
    the one that runs.
    """

    permit: str = ""
    nodeid: str = ""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict and its reasons.

    `finding` is empty where there is nothing to say; its first line holds both numbers and stands alone, the
    lines below it explain. `trace` is where the test was stopped. `failed`: the test has to fail for it.
    """

    verdict: Verdict
    failed: bool = False
    finding: str = ""
    advice: Advice | None = None
    trace: str = ""
    caveats: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """All that it says."""
        return self.worded()

    def worded(self, *, was_stopped: bool = False, is_explained: bool = False) -> str:
        """All that it says of a test that was stopped before its end, or whose allocations are listed below the message."""
        lines = [self.finding]
        if self.advice is not None:
            named = f' "{self.advice.nodeid}"' if self.advice.nodeid else ""
            run = "listed below" if is_explained else f"run this test with --membudget-memray{named}"
            lines.append(f"  next      see who allocated it: {run}")
            if was_stopped:
                lines.append("            what it would have used is not known, since it was stopped")
            elif self.advice.permit:
                lines.append(f"            or, if it may use that much: {self.advice.permit}")
        if self.trace:
            lines += ["", self.trace]
        return "\n".join(lines)


GrowthVerdict = Literal["leak", "clean", "inconclusive"]


class Culprit(msgspec.Struct, frozen=True):
    """An allocation site or an object type that grows: what it is and how much it adds per call."""

    kind: Literal["site", "type"]
    name: str
    bytes_per_call: float
    count_per_call: float = 0.0


class ResourceGrowth(msgspec.Struct, frozen=True):
    """Descriptors, threads, children or segments of shared memory that pile up: which, and how many per call."""

    kind: Literal["descriptors", "threads", "children", "segments"]
    per_call: float
    examples: tuple[str, ...] = ()


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """The judged growth per call. The interval holds the true slope with the stated confidence."""

    verdict: GrowthVerdict
    bytes_per_call: float
    low_bytes_per_call: float
    high_bytes_per_call: float
    allowed_bytes_per_call: float
    calls: Count
    duration_s: Seconds
    confidence: float = 0.99
    label: str = ""
    culprits: tuple[Culprit, ...] = ()
    resources: tuple[ResourceGrowth, ...] = ()
    caveats: tuple[str, ...] = ()

    @property
    def is_bounded(self) -> bool:
        """Whether the ends of the interval are known; after a few calls they are not, and lie absurdly far off."""
        return max(abs(self.low_bytes_per_call), abs(self.high_bytes_per_call)) < _NO_BOUND

    def __str__(self) -> str:
        return self.in_words()

    def in_words(self, unit: str = "call") -> str:
        """Verdict, slope, interval and effort in one line; `unit` says what was counted."""
        counted = format_count(self.calls, unit)
        doubts = "".join(f"; {caveat}" for caveat in self.caveats)
        if not self.is_bounded:
            return f"{self.verdict}, after {counted}{doubts}"
        return (
            f"{self.verdict}, {format_size(self.bytes_per_call)} a {unit} ({format_size(self.low_bytes_per_call)} to "
            f"{format_size(self.high_bytes_per_call)} at {self.confidence:.0%}), after {counted}{doubts}"
        )


class HeldByFixture(msgspec.Struct, frozen=True):
    """What the setup of a fixture of a wider scope than one test added to its process; `nodeid` is the test that it was set up for."""

    name: str
    scope: str
    held_bytes: int
    nodeid: str


class RetainedByTest(msgspec.Struct, frozen=True):
    """What one test of a session left behind, in bytes and as a fraction of what all of them did."""

    nodeid: str
    retained_bytes: int
    share: float
