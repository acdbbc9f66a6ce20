"""Closer readings that are expensive, and when they are worth their cost: proportional sizes, and pages of files. All figures are bytes.

Proportional sizes (PSS) show what several processes share. `pagemap` says of every page of an address space whether it is there
and whether it is a file's, so that what several processes map of a file counts once. What it costs goes with the number of
mappings: 0.1 ms for a small program, 1 ms for a large one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping

from .proc_reader import Process
from .records import PAGE, FilePages, Interval, Proportional, Reading

SHARE, ACCOUNT_S, REST = 0.04, 0.15, 25
FILES_SHARE, FILES_ACCOUNT_S, FILES_REST = 0.02, 0.08, 8
"""Of samples of proportional sizes, and of counts of file pages: see `Account`."""

PAUSE_S = 0.02
"""Between two of a kind at least."""

GAP_BYTES = 128 * 1024
FILE_GAP_BYTES = 8 * 1024 * 1024
"""The two figures of what processes hold, or of what they map of files, lie apart where they differ by more."""

ENTRY_BYTES = 8
PRESENT = bytes(1 if (top & 0xA0) == 0xA0 else 0 for top in range(256))
"""By the highest byte of an entry: bit 63 is "in memory", bit 61 is "of a file or shared memory"."""


class Account:
    """Time that samples may take: a share of all that passes, saved up to a limit, and `rest` times its cost between two."""

    def __init__(self, share: float, most_s: float, rest: int) -> None:
        self._share = share
        self._rest = rest
        self._most_s = self._saved_s = most_s
        self._at_s = time.monotonic()
        self._paused_until_s = 0.0

    def is_open(self) -> bool:
        """Whether something is saved and the last sample is long enough ago."""
        now_s = time.monotonic()
        self._saved_s = min(self._most_s, self._saved_s + (now_s - self._at_s) * self._share)
        self._at_s = now_s
        return self._saved_s > 0 and now_s >= self._paused_until_s

    @contextlib.contextmanager
    def charged(self) -> Iterator[None]:
        """Pays for what the block costs."""
        began_s = time.thread_time()
        try:
            yield
        finally:
            cost_s = time.thread_time() - began_s
            self._saved_s -= cost_s
            self._paused_until_s = time.monotonic() + max(PAUSE_S, cost_s * self._rest)


class PssSampling:
    """The accounts that samples and counts of file pages are paid from, and what the last ones were of."""

    def __init__(self) -> None:
        self._account = Account(SHARE, ACCOUNT_S, REST)
        self._seen: object = None
        self._files_account = Account(FILES_SHARE, FILES_ACCOUNT_S, FILES_REST)
        self._files_seen: object = None
        self._files_before: object = None

    def worthwhile(self, interval: Interval, readings: list[Reading], *, could_rise: bool) -> bool:
        """Each sample of a tree that stands still raises what is proven, so these are few; the others have an account."""
        is_open = self._account.is_open()
        if could_rise and blurred(interval, readings) and interval.moving <= GAP_BYTES:
            return True
        files = interval.file.high - interval.file.low > FILE_GAP_BYTES
        return (could_rise or files) and is_open

    @contextlib.contextmanager
    def charged(self, readings: list[Reading]) -> Iterator[bool]:
        """Takes the block's cost from the account; whether a sample may show anything new."""
        if _signature(readings) == self._seen:
            yield False
            return
        with self._account.charged():
            yield True

    @contextlib.contextmanager
    def counting(self, readings: list[Reading], *, force: bool = False) -> Iterator[bool]:
        """Likewise for a count of file pages, once no process has mapped more since the scan before: it betters all before it."""
        files = [(reading.pid, reading.fork_group, reading.file) for reading in readings]
        still, self._files_before = files == self._files_before, files
        is_open = force or (still and self._files_account.is_open())
        if files == self._files_seen or not is_open:
            yield False
            return
        self._files_seen = files
        with self._files_account.charged():
            yield True

    def taken(self, found: Proportional, interval: Interval | None, readings: list[Reading]) -> None:
        """Remembers a sample of a tree that stood still: another one would show nothing new."""
        still = interval is not None and not interval.moving and not found.forking
        self._seen = _signature(readings) if still else None

    def forget(self) -> None:
        """The next sample shows something new, whatever it is of."""
        self._seen = self._files_seen = self._files_before = None


def blurred(interval: Interval, readings: list[Reading]) -> bool:
    """Whether the two figures for what the processes hold lie apart."""
    return len(readings) > 1 and interval.held.high - interval.held.low > GAP_BYTES


def sample_proportional(readings: list[Reading], processes: Mapping[int, Process]) -> Proportional | None:
    """Reads the proportional sizes of all processes that may share something; `None` where one of them is gone."""
    fork_groups = [reading.fork_group for reading in readings]
    correction: dict[int, int] = {}
    shmem: dict[int, int] = {}
    file: dict[int, int] = {}
    private: dict[int, int] = {}
    forking = False
    for reading in readings:
        pid, siblings = reading.pid, fork_groups.count(reading.fork_group)
        if not reading.resident:
            forking |= pid in processes and processes[pid].is_clearing
            correction[pid] = shmem[pid] = 0
            continue
        if siblings == 1 and not reading.shmem and reading.file < FILE_GAP_BYTES:
            continue
        try:
            fields = processes[pid].proportional()
        except (OSError, KeyError):
            return None
        # The stack alone makes for a page of one's own, but not between a fork's copy and its return.
        forking |= siblings > 1 and not fields.get(b"Private_Dirty", 0)
        anonymous = fields.get(b"Pss_Anon", 0)
        correction[pid] = min(0, anonymous - fields.get(b"Anonymous", 0))
        shmem[pid] = fields.get(b"Pss_Shmem", 0)
        file[pid] = fields.get(b"Pss_File", 0)
        private[pid] = min(anonymous, fields.get(b"Private_Clean", 0) + fields.get(b"Private_Dirty", 0))
    return Proportional(correction, shmem, file, private, forking)


def _signature(readings: list[Reading]) -> object:
    return [(r.pid, r.anon, r.shmem, r.faults) for r in readings]


class FilePageCounter:
    """Counts file pages of several processes; one that has not changed since is not read again.

    Args:
        memory: the devices whose inodes are shared memory and not files.
    """

    def __init__(self, memory: set[bytes]) -> None:
        self._memory = memory
        self._known: dict[int, tuple[object, dict[bytes, int], int]] = {}

    def take(self, readings: Iterable[Reading]) -> FilePages:
        """Everybody's file pages together.

        `resident` is `union` and what a process maps twice by itself or in ways unknown here: those count as often as they do in its
        own resident size.

        Raises:
            OSError: a process is gone, or may not be read.
        """
        living = [reading for reading in readings if reading.resident]
        self._known = {
            reading.pid: known
            for reading in living
            if (known := self._known.get(reading.pid)) and known[0] == _file_signature(reading)
        }
        pages: dict[bytes, int] = {}
        twice = 0
        for reading in living:
            if reading.pid not in self._known:
                self._known[reading.pid] = (_file_signature(reading), *_present(reading.pid, self._memory))
            _, mapped, count = self._known[reading.pid]
            distinct = sum(bits.bit_count() for bits in mapped.values())
            twice += max(0, max(count * PAGE, reading.file) - distinct * PAGE)
            for inode, bits in mapped.items():
                pages[inode] = pages.get(inode, 0) | bits
        union = sum(bits.bit_count() for bits in pages.values()) * PAGE
        return FilePages(union, union + twice)


def _file_signature(reading: Reading) -> object:
    return reading.fork_group, reading.faults, reading.file


def _present(pid: int, memory: set[bytes]) -> tuple[dict[bytes, int], int]:
    """By inode: a byte that is 1 for each page that is there, as one number; and how many were there in all."""
    with open(f"/proc/{pid}/maps", "rb", buffering=0) as stream:  # noqa: PTH123 - hot path
        lines = stream.readall().splitlines()
    found: dict[bytes, int] = {}
    count = 0
    descriptor = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for addresses, offset, inode in _file_mappings(lines, memory):
            low, _, high = addresses.partition(b"-")
            first, last = int(low, 16) // PAGE, int(high, 16) // PAGE
            entries = os.pread(descriptor, (last - first) * ENTRY_BYTES, first * ENTRY_BYTES)
            there = entries[ENTRY_BYTES - 1 :: ENTRY_BYTES].translate(PRESENT)
            count += there.count(1)
            bits = int.from_bytes(there, "little") << (int(offset, 16) // PAGE * 8)
            found[inode] = found.get(inode, 0) | bits
    finally:
        os.close(descriptor)
    return found, count


def _file_mappings(lines: Iterable[bytes], memory: set[bytes]) -> Iterable[tuple[bytes, bytes, bytes]]:
    for line in lines:
        addresses, _, offset, device, inode = line.split(None, 5)[:5]
        if inode != b"0" and device not in memory:
            yield addresses, offset, device + b" " + inode
