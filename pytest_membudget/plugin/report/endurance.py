"""What the end of a session needs and tests may have used up: descriptors, limits, and the process itself."""

from __future__ import annotations

import contextlib
import os
import sys

_DESCRIPTORS = 4
"""Enough to replace a file, with a module being imported meanwhile."""
_LIMITS = ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE")


class StartingConditions:
    """Remembers, at the start of a session, what its end is to have again.

    A few descriptors are held open in advance, because a suite that leaks descriptors leaves none to write a report with.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._soft_limits = {name: _limits(name)[0] for name in _LIMITS} if _has_limits() else {}
        self._held: list[tuple[int, os.stat_result]] = []
        with contextlib.suppress(OSError):
            for _ in range(_DESCRIPTORS):
                descriptor = os.open(os.devnull, os.O_RDONLY)
                self._held.append((descriptor, os.fstat(descriptor)))

    def is_same_process(self) -> bool:
        """Whether this is the process that began the session, and not a child that a test forked."""
        return os.getpid() == self._pid

    def restore(self) -> None:
        """Gives back the descriptors that were held, and soft limits that tests have lowered."""
        for descriptor, opened in self._held:
            with contextlib.suppress(OSError):
                # Code under test may have closed it, and the number may be another file's by now.
                if os.path.samestat(os.fstat(descriptor), opened):
                    os.close(descriptor)
        self._held = []
        for name, soft in self._soft_limits.items():
            _raise_soft_limit(name, soft)


def _has_limits() -> bool:
    return sys.platform != "win32"


def _limits(name: str) -> tuple[int, int]:
    import resource

    return resource.getrlimit(getattr(resource, name))


def _raise_soft_limit(name: str, soft: int) -> None:
    import resource

    now, hard = _limits(name)
    infinity = resource.RLIM_INFINITY
    wanted = hard if soft == infinity or (hard != infinity and soft > hard) else soft
    if now != infinity and (wanted == infinity or wanted > now):
        with contextlib.suppress(ValueError, OSError):  # forbidden: what can be done under the limit is done
            resource.setrlimit(getattr(resource, name), (wanted, hard))
