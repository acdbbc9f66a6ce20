"""Processes that were left behind: their parent has ended, and the reaper (pid 1, or a subreaper) has them now.

They are no descendants any more. One is known by what it has of this process: its session or its group; or, where it opened a session of
its own as daemons do, its environment, as it was forked with or as it is now.
"""

from __future__ import annotations

from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.process.children import ancestors, descendants
from pytest_membudget.originals import os, sys

_LINUX = sys.platform.startswith("linux")
_BY_SHELLS = (b"_=", b"OLDPWD=", b"PWD=", b"SHLVL=")
"""What a shell sets in the environment of what it starts."""


class LeftBehind:
    """Those that were started since this was made; without one that runs as another user or in another container."""

    def __init__(self) -> None:
        self._before = frozenset(proc.processes() if _LINUX else ())
        own = proc.stat(os.getpid()) if _LINUX else None
        self._own_bands = {own.session, own.group} if own is not None else set()
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
        return bool({found.session, found.group} & self._own_bands) or _has_our_environment(pid)


def _has_our_environment(pid: int) -> bool:
    theirs = _environment(proc.read(pid, "environ"))
    now = _environment(b"\0".join(b"%b=%b" % pair for pair in os.environb.items()))
    return bool(theirs) and (theirs >= now or theirs == _environment(proc.read("self", "environ")))


def _environment(text: bytes) -> frozenset[bytes]:
    return frozenset(entry for entry in text.split(b"\0") if entry and not entry.startswith(_BY_SHELLS))
