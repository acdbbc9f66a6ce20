"""What each of several processes holds, where they share pages: these count once among those that have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.process.high_water import resident_bytes
from pytest_membudget.originals import sys, time

_LINUX = sys.platform.startswith("linux")

_SHARE_OF_TIME = 0.1
"""Of one core, for the kernel's own figures."""


class SharedPages:
    """What each process holds, in bytes, shared pages counted once among those that share them.

    The kernel's own figure (PSS) is right but expensive. It is read now and then, and the difference to the cheap figure, resident pages
    that are private, is kept for the time between.
    """

    def __init__(self) -> None:
        self._correction: dict[int, int] = {}
        self._read_at_faults: dict[int, int] = {}
        self._began_s = time.perf_counter()
        self._spent_s = 0.0

    def holdings(self, pids: Iterable[int]) -> dict[int, int]:
        """Cheap: private pages now, and each one's part in shared pages as it was when last read."""
        found: dict[int, int] = {}
        for pid in pids:
            figures = _sizes(pid)
            if figures is None:
                continue
            if pid not in self._correction:
                self._read(pid)
            found[pid] = self.with_shared_part(pid, figures.anonymous_bytes)
        return found

    def with_shared_part(self, pid: int, anonymous_bytes: int) -> int:
        """What a process with so many private pages holds with its part in shared pages, as that was when last read."""
        return max(0, anonymous_bytes + self._correction.get(pid, 0))

    def exact_holdings(self, pids: Iterable[int]) -> dict[int, int]:
        """Dear: each one's part read now, unless nothing has changed or that has taken a tenth of the time already.

        Never more together than they held. All are read or none: what one process maps of another's pages lowers the part of
        that one as well. So a process that is new counts as nothing until then. Where one has shrunk or ended
        meanwhile, those that were read after that have a larger part in pages that were counted before: then pages count that
        one process alone has.
        """
        found = _address_spaces(pids)
        faults = {pid: seen.faults for pid, seen in found.items()}
        has_time = self._spent_s <= _SHARE_OF_TIME * (time.perf_counter() - self._began_s)
        sizes = {pid: seen.sizes for pid, seen in found.items()}
        if has_time and (faults != self._read_at_faults or not _LINUX):
            sizes = self._read_all(sizes, is_steady=not any(seen.is_ending for seen in found.values()))
            self._read_at_faults = faults
        return {
            pid: self.with_shared_part(pid, each.anonymous_bytes) if pid in self._correction else 0
            for pid, each in sizes.items()
        }

    def _read_all(self, before: dict[int, proc.Sizes], *, is_steady: bool) -> dict[int, proc.Sizes]:
        """Reads the part of each; what each held just after that."""
        began_s = time.thread_time()  # on a busy machine a reading may take four times as long
        shares = {pid: proc.shares(pid) if _LINUX else None for pid in before}
        after = {pid: sizes for pid in before if (sizes := _sizes(pid)) is not None}
        is_steady = is_steady and after.keys() == before.keys()
        is_steady = is_steady and all(
            after[pid].resident_bytes >= before[pid].resident_bytes for pid in before
        )
        for pid, sizes in after.items():
            self._correct(pid, sizes, shares[pid], is_steady=is_steady)
        self._spent_s += time.thread_time() - began_s
        return after

    @staticmethod
    def shared_bytes(pid: int) -> int:
        """Resident pages of files and shared memory, in full."""
        figures = _sizes(pid)
        return 0 if figures is None else figures.shared_bytes

    def _read(self, pid: int) -> None:
        began_s = time.thread_time()
        share = proc.shares(pid) if _LINUX else None
        sizes = _sizes(pid)
        if sizes is not None:
            self._correct(pid, sizes, share, is_steady=True)
        self._spent_s += time.thread_time() - began_s

    def _correct(self, pid: int, sizes: proc.Sizes, share: proc.Shares | None, *, is_steady: bool) -> None:
        if share is None:
            self._correction[pid] = sizes.shared_bytes
            return
        own_bytes = share.proportional_bytes if is_steady else share.private_bytes
        # Both of one walk through its pages: a process that grows meanwhile would have as much less.
        self._correction[pid] = own_bytes - share.anonymous_bytes


class _Seen(NamedTuple):
    sizes: proc.Sizes
    faults: int  # without a new one neither it nor its forks hold more
    is_ending: bool  # it shows no pages, and others share them still


def _address_spaces(pids: Iterable[int]) -> dict[int, _Seen]:
    """Those that are there; a child of vfork has its parent's address space until it calls exec, and is left out."""
    found: dict[int, _Seen] = {}
    for pid in pids:
        sizes = _sizes(pid)
        status = proc.stat(pid) if _LINUX else None
        if sizes is None or (_LINUX and status is None):
            continue
        if status is not None and not status.has_called_exec and status.parent in found:
            parent = found[status.parent].sizes
            if parent == sizes:
                continue
        if status is None:
            found[pid] = _Seen(sizes, 0, is_ending=False)
        else:
            found[pid] = _Seen(sizes, status.faults, is_ending=status.is_ending and not status.has_ended)
    return found


def _sizes(pid: int) -> proc.Sizes | None:
    if _LINUX:
        return proc.sizes(pid)
    size_bytes = resident_bytes(pid)
    return proc.Sizes(size_bytes, size_bytes, 0) if size_bytes else None
