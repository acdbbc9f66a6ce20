"""Processes that were left behind: their parent has ended, and the reaper (pid 1, or a subreaper) has them now.

They are no descendants any more. One is known by what it has of this process: the address of its environment, which is random for each
program that is started and the same in forks of it; in a test the name of the test, which pytest sets in the environment; elsewhere its
session or its group, which tests that run side by side share.
"""

from __future__ import annotations

from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.process.children import ancestors, descendants
from pytest_membudget.originals import os, sys

_LINUX = sys.platform.startswith("linux")
_CURRENT_TEST = "PYTEST_CURRENT_TEST"


class LeftBehind:
    """Those that were started since this was made; without a daemon that called exec outside of a test, what a test gave an environment of its own, and what runs as another user."""

    def __init__(self) -> None:
        self._before = frozenset(proc.processes() if _LINUX else ())
        own = proc.stat(os.getpid()) if _LINUX else None
        self._own_bands = {own.session, own.group} if own is not None else set()
        self._environment_at = own.environment_at if own is not None else 0
        self._reapers = {1} | {
            pid
            for pid in ancestors(os.getpid() if own is not None else 0)
            if (found := proc.stat(pid)) is not None and found.session not in self._own_bands
        }
        self._last_number = b""
        self._found: list[int] = []

    def pids(self) -> list[int]:
        """Their numbers, and those of all processes below them (5 µs where no process has been started since the last call)."""
        last_number = proc.read(".", "loadavg").rpartition(b" ")[2]
        has_changed = not last_number or last_number != self._last_number or self._found or descendants()
        if self._own_bands and has_changed:
            self._last_number = last_number
            new = [pid for pid in proc.processes() if pid not in self._before]
            left = [pid for pid in new if self._is_left(pid)]
            self._found = left + [below for pid in left for below in descendants(pid)]
        return self._found

    def _is_left(self, pid: int) -> bool:
        found = proc.stat(pid)
        if found is None or found.has_ended or found.parent not in self._reapers:
            return False
        if found.environment_at == self._environment_at != 0:
            return True
        test = os.environ.get(_CURRENT_TEST)
        return _was_started_by(test, pid) if test else bool({found.session, found.group} & self._own_bands)


def _was_started_by(test: str, pid: int) -> bool:
    return f"{_CURRENT_TEST}={test}".encode() in proc.read(pid, "environ").split(b"\0")
