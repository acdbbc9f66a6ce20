"""What the monitor saw: snapshots, cleanups, and what it recommends."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


class MemorySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """This process's memory at one instant, in bytes; `at_s` is on the monitor's clock."""

    at_s: float
    #: Resident, shared pages included.
    rss_bytes: int
    #: Unique: what would be freed if the process ended.
    uss_bytes: int
    #: The address space, most of which may never have been touched.
    vms_bytes: int
    #: Under all limits of this process together.
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


class CleanupResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a check did. True where a cleanup ran; unpacks as (ran, before_bytes, after_bytes)."""

    ran: bool
    before_bytes: int
    after_bytes: int
    reason: str = ""
    emergency: bool = False
    failures: tuple[str, ...] = ()

    @property
    def freed_bytes(self) -> int:
        """Bytes given back; zero where nothing ran or memory rose meanwhile."""
        return max(0, self.before_bytes - self.after_bytes) if self.ran else 0

    def __bool__(self) -> bool:
        return self.ran

    def __iter__(self) -> Iterator[int]:
        return iter((self.ran, self.before_bytes, self.after_bytes))

    def __getitem__(self, position: int) -> int:
        return tuple(self)[position]


class CollectionEvent(msgspec.Struct, frozen=True):
    """One run of Python's cyclic collector."""

    at_s: float
    #: The oldest that was collected, 0 to 2.
    generation: int
    #: Objects that were freed.
    collected: int


class ChunkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk of work: its rows, the most it added while it ran, and what it left behind, in bytes."""

    rows: int
    peak_bytes: int
    retained_bytes: int
    duration_s: float
    #: Free memory that the heap kept when it began: it may have used that without a trace in its peak.
    kept_bytes: int = 0

    @property
    def bytes_per_row(self) -> float:
        """The most a row of this chunk took."""
        return self.peak_bytes / self.rows if self.rows else 0.0


class Recommendation(msgspec.Struct, frozen=True):
    """Advice and the figures it follows from."""

    advice: str
    because: str


class MonitorReport(msgspec.Struct, frozen=True, kw_only=True):
    """All a monitor learned. The growth rate's interval holds the true rate with 95% confidence."""

    label: str = ""
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
    chunks: tuple[ChunkRecord, ...] = ()
    #: Steps that were reported as done.
    progress: int = 0
    #: What the C library's heap had given out at the end, and what it kept free.
    heap_used_bytes: int = 0
    heap_kept_bytes: int = 0
    caveats: tuple[str, ...] = ()

    @property
    def growth_mb_per_min(self) -> float:
        """The growth rate in the unit of the reference: 1 MB is 1,000,000 bytes."""
        return self.growth_bytes_per_min / 1e6

    @property
    def peak_share(self) -> float:
        """The peak as a fraction of the limit."""
        return self.peak_bytes / self.limit_bytes if self.limit_bytes else 0.0
