"""Memory of several processes without counting shared pages twice: each one's proportional share.

The kernel's own figure (PSS) is right but dear: 0.1 ms for a small process, 9 ms for a gigabyte. `SharedPages` reads
it now and then and keeps the difference to the cheap figure, resident pages that are private, for the time between.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pytest_membudget.measurement.process.high_water import PAGE_BYTES, resident_bytes
from pytest_membudget.originals import sys, time

_SHARE_OF_TIME = 0.06


class SharedPages:
    """What each process holds, in bytes, shared pages counted once among those that share them."""

    def __init__(self) -> None:
        self._correction: dict[int, int] = {}
        self._began_s = time.perf_counter()
        self._spent_s = 0.0

    def holdings(self, pids: Iterable[int]) -> dict[int, int]:
        """Cheap: private pages now, and each one's part in shared pages as it was when last read."""
        found: dict[int, int] = {}
        for pid in pids:
            figures = _resident_and_shared(pid)
            if figures is None:
                continue
            if pid not in self._correction:
                self._read(pid)
            found[pid] = max(0, figures.resident_bytes - figures.shared_bytes + self._correction.get(pid, 0))
        return found

    def exact_holdings(self, pids: Iterable[int]) -> dict[int, int]:
        """Dear: each one's part read now, unless 6% of the time has gone into that already."""
        for pid in pids:
            if self._spent_s <= _SHARE_OF_TIME * (time.perf_counter() - self._began_s):
                self._read(pid)
        return self.holdings(pids)

    @staticmethod
    def shared_bytes(pid: int) -> int:
        """Resident pages of files and shared memory, in full."""
        figures = _resident_and_shared(pid)
        return 0 if figures is None else figures.shared_bytes

    def _read(self, pid: int) -> None:
        began_s = time.perf_counter()
        share_bytes = proportional_bytes(pid)
        figures = _resident_and_shared(pid)
        if figures is not None:
            private_bytes = figures.resident_bytes - figures.shared_bytes
            self._correction[pid] = (
                figures.shared_bytes if share_bytes is None else share_bytes - private_bytes
            )
        self._spent_s += time.perf_counter() - began_s


def proportional_bytes(pid: int) -> int | None:
    """The process's proportional share (PSS) in bytes; `None` where the kernel does not tell."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None


class _Figures(NamedTuple):
    resident_bytes: int
    shared_bytes: int


def _resident_and_shared(pid: int) -> _Figures | None:
    if sys.platform != "linux":
        size_bytes = resident_bytes(pid)
        return _Figures(size_bytes, 0) if size_bytes else None
    try:
        fields = Path(f"/proc/{pid}/statm").read_bytes().split()
        return _Figures(int(fields[1]) * PAGE_BYTES, int(fields[2]) * PAGE_BYTES)
    except (OSError, ValueError, IndexError):
        return None
