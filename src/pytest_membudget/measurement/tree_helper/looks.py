"""Closer looks: proportional sizes, which are dear, and when they are worth their cost. All figures are bytes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

from .figures import Interval, Proportional, Reading
from .readings import Process

SHARE = 0.04
ACCOUNT_S = 0.15
PATIENCE_S = 0.02
GAP_BYTES = 512 * 1024
FILE_GAP_BYTES = 8 * 1024 * 1024


class Looks:
    """The account that looks are paid from, and what the last one was of."""

    def __init__(self) -> None:
        self._account_s = ACCOUNT_S
        self._account_at_s = time.monotonic()
        self._patient_until_s = 0.0
        self._seen: object = None

    def worthwhile(self, interval: Interval, readings: list[Reading], *, could_rise: bool) -> bool:
        """Each look at a tree that stands still raises what is proven, so these are few; the others have an account."""
        now_s = time.monotonic()
        self._account_s = min(ACCOUNT_S, self._account_s + (now_s - self._account_at_s) * SHARE)
        self._account_at_s = now_s
        if could_rise and blurred(interval, readings) and interval.moving <= GAP_BYTES:
            return True
        files = interval.file.high - interval.file.low > FILE_GAP_BYTES
        return (could_rise or files) and self._account_s > 0 and now_s >= self._patient_until_s

    @contextlib.contextmanager
    def charged(self, readings: list[Reading]) -> Iterator[bool]:
        """Takes the block's cost from the account; whether a look may tell anything new."""
        if _signature(readings) == self._seen:
            yield False
            return
        began_s = time.thread_time()
        yield True
        cost_s = time.thread_time() - began_s
        self._account_s -= cost_s
        self._patient_until_s = time.monotonic() + max(PATIENCE_S, cost_s / SHARE)

    def taken(self, found: Proportional, interval: Interval | None, readings: list[Reading]) -> None:
        """Remembers a look at a tree that stood still: another one would tell nothing new."""
        still = interval is not None and not interval.moving and not found.forking
        self._seen = _signature(readings) if still else None

    def forget(self) -> None:
        """The next look tells something new, whatever it is of."""
        self._seen = None


def blurred(interval: Interval, readings: list[Reading]) -> bool:
    """Whether the two figures for what the processes hold lie apart."""
    return len(readings) > 1 and interval.held.high - interval.held.low > GAP_BYTES


def look(readings: list[Reading], processes: Mapping[int, Process]) -> Proportional | None:
    """Reads the proportional sizes of everybody who may share something; `None` where one of them is gone."""
    families = [reading.family for reading in readings]
    found = Proportional({}, {}, {}, {})
    for reading in readings:
        if not reading.resident:
            found.correction[reading.pid] = found.shmem[reading.pid] = 0
            continue
        if families.count(reading.family) == 1 and not reading.shmem and reading.file < FILE_GAP_BYTES:
            continue
        try:
            fields = processes[reading.pid].proportional()
        except (OSError, KeyError):
            return None
        # The stack alone makes for a page of one's own, but not between a fork's copy and its return.
        found.forking |= families.count(reading.family) > 1 and not fields.get(b"Private_Dirty", 0)
        found.correction[reading.pid] = min(0, fields.get(b"Pss_Anon", 0) - fields.get(b"Anonymous", 0))
        found.shmem[reading.pid] = fields.get(b"Pss_Shmem", 0)
        found.file[reading.pid] = fields.get(b"Pss_File", 0)
        found.private[reading.pid] = min(
            fields.get(b"Pss_Anon", 0), fields.get(b"Private_Clean", 0) + fields.get(b"Private_Dirty", 0)
        )
    return found


def _signature(readings: list[Reading]) -> object:
    return [(r.pid, r.anon, r.shmem, r.faults) for r in readings]
