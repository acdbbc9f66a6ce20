"""What repeating a function showed: its growth per call, how sure that is, and what grew."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_membudget.records.quantities import Count, Seconds

GrowthVerdict = Literal["leak", "clean", "inconclusive"]


class Culprit(msgspec.Struct, frozen=True):
    """An allocation site or an object type that grows: what it is and how much it adds per call."""

    kind: Literal["site", "type"]
    name: str
    bytes_per_call: float
    count_per_call: float = 0.0


class ResourceGrowth(msgspec.Struct, frozen=True):
    """Descriptors, threads or children that pile up: which, and how many per call."""

    kind: Literal["descriptors", "threads", "children"]
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


class RetainedByTest(msgspec.Struct, frozen=True):
    """What one test of a session left behind, in bytes and as a fraction of what all of them did."""

    nodeid: str
    retained_bytes: int
    share: float
