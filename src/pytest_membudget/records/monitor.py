"""What the monitor saw: snapshots, cleanups, and what it recommends."""

from __future__ import annotations

import msgspec


class MemorySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """This process's memory at one instant, in bytes; `at_s` is on the monitor's clock."""

    at_s: float
    rss_bytes: int
    uss_bytes: int
    vms_bytes: int
    available_bytes: int
    limit_bytes: int

    @property
    def limit_share(self) -> float:
        """Resident memory as a fraction of the limit."""
        return self.rss_bytes / self.limit_bytes if self.limit_bytes else 0.0


class CleanupEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One cleanup: why it ran, what it freed, and which callbacks raised."""

    at_s: float
    reason: str
    emergency: bool
    before_bytes: int
    after_bytes: int
    failures: tuple[str, ...] = ()

    @property
    def freed_bytes(self) -> int:
        """Bytes given back; zero where memory rose meanwhile."""
        return max(0, self.before_bytes - self.after_bytes)


class CollectionEvent(msgspec.Struct, frozen=True):
    """One run of Python's cyclic collector."""

    at_s: float
    generation: int
    collected: int


class Recommendation(msgspec.Struct, frozen=True):
    """Advice and the figures it follows from."""

    advice: str
    because: str


class MonitorReport(msgspec.Struct, frozen=True, kw_only=True):
    """All a monitor learned. The growth rate's interval holds the true rate with 95% confidence."""

    duration_s: float
    peak_bytes: int
    limit_bytes: int
    growth_bytes_per_min: float
    growth_low_bytes_per_min: float
    growth_high_bytes_per_min: float
    snapshots: tuple[MemorySnapshot, ...] = ()
    cleanups: tuple[CleanupEvent, ...] = ()
    collections: tuple[CollectionEvent, ...] = ()
    alerts: tuple[str, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()
