"""Files in shared memory that appear while a function is called: how many, how large, and whose they are.

A file in `/dev/shm` does not say which process made it. One that another program has open or mapped is that program's. The others
are taken for the function's only if they come with its calls: calls and pauses as long alternate, and were the files another
program's, as many would come in the one as in the other. So by chance the calls have more of them in half of the pairs: the sign test.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import comb
from typing import Protocol

from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.process.children import descendants
from pytest_membudget.originals import contextlib, os, sys, time

_LINUX = sys.platform.startswith("linux")
_MOST_PAIRS = 40
_LEAST_WINDOW_S = 0.005
_MOST_CALLS = 1000
_BY_CHANCE = 0.01


class SharedFiles:
    """Files in shared memory that appeared since this was made and are this user's: what is not mapped is in no process."""

    folder = "/dev/shm"  # noqa: S108 - where the system has them

    def __init__(self) -> None:
        self._before = self._names()
        self.are_counted = True

    def read(self) -> tuple[int, int]:
        """Their number and the bytes that they hold."""
        count = size_bytes = 0
        for name in self.names():
            with contextlib.suppress(OSError):
                status = os.stat(f"{self.folder}/{name}", follow_symlinks=False)
                if status.st_uid == os.getuid():
                    count += 1
                    size_bytes += status.st_blocks * 512
        return count, size_bytes

    def names(self) -> frozenset[str]:
        """The names that have appeared since."""
        return self._names() - self._before if self.are_counted else frozenset()

    def held_elsewhere(self, names: Iterable[str]) -> frozenset[str]:
        """Those that a process which is none of this one's tree has open or mapped, as far as this user may see that."""
        ours = {os.getpid(), *descendants()}
        wanted = {f"{self.folder}/{name}": name for name in names}
        found: set[str] = set()
        for pid in proc.processes():
            if pid not in ours:
                paths = {*proc.open_files(pid).values(), *proc.mapped_files(pid)}
                found.update(wanted[path] for path in paths if path in wanted)
        return frozenset(found)

    def _names(self) -> frozenset[str]:
        try:
            return frozenset(os.listdir(self.folder)) if _LINUX else frozenset()
        except OSError:
            return frozenset()


class Repeated(Protocol):
    """What can call the function again."""

    def make_calls(self, count: int, for_s: float) -> int:
        """Calls up to `count` times, and begins no call after `for_s` seconds."""


def appear_with_calls(repeated: Repeated, files: SharedFiles, for_s: float) -> bool:
    """Whether more files come with calls than in pauses between them; takes `for_s` seconds at most, and a call."""
    end_at = time.perf_counter() + for_s
    pairs: list[tuple[frozenset[str], frozenset[str]]] = []
    before = files.names()
    while len(pairs) < _MOST_PAIRS and time.perf_counter() <= end_at:
        begun = time.perf_counter()
        repeated.make_calls(_MOST_CALLS, _LEAST_WINDOW_S)
        called = files.names()
        time.sleep(time.perf_counter() - begun)
        paused = files.names()
        pairs.append((called - before, paused - called))
        if _is_proven(pairs):
            return True
        before = paused
    others = files.held_elsewhere(frozenset().union(*(came for pair in pairs for came in pair)))
    return bool(others) and _is_proven(
        [(in_calls - others, in_pause - others) for in_calls, in_pause in pairs]
    )


def _is_proven(pairs: list[tuple[frozenset[str], frozenset[str]]]) -> bool:
    """Whether so many pairs with more files in the calls would hardly come by chance; equal ones say nothing."""
    more = sum(len(in_calls) > len(in_pause) for in_calls, in_pause in pairs)
    trials = sum(len(in_calls) != len(in_pause) for in_calls, in_pause in pairs)
    as_good = sum(comb(trials, count) for count in range(more, trials + 1))
    return as_good < _BY_CHANCE * 2.0**trials
