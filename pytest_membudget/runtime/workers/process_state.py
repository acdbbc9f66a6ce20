"""What a worker takes over from the coordinator, and what each task begins with, whatever the one before has changed."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

_LIMITS = ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE")


class Environment(NamedTuple):
    """What a worker takes over from the coordinator as it is now: a fork server may be older than that.

    Environment variables, and resource limits by their number in `resource`: soft and hard, each in its own unit.
    """

    variables: Mapping[str, str]
    limits: Mapping[int, tuple[int, int]]

    @classmethod
    def of_now(cls) -> Self:
        """This process's."""
        return cls(dict(os.environ), _limits())

    def take_over(self) -> None:
        """Makes them this process's own."""
        if dict(os.environ) != dict(self.variables):
            os.environ.clear()
            os.environ.update(self.variables)
        with contextlib.suppress(ValueError, OSError):  # raising one may need a privilege
            _set_limits(self.limits)


class ProcessState(NamedTuple):
    """What a task may change in its process and the next one would find: each task begins as the initializer left it (9 µs).

    Signal handlers stay, as libraries install theirs in a first call; but where SIGCHLD is ignored, programs seem to have ended well.
    """

    folder: str | None
    limits: Mapping[int, tuple[int, int]]
    umask: int
    blocked: frozenset[int]
    has_timer: bool
    at_child_end: Any

    @classmethod
    def of_now(cls) -> Self:
        """This process's."""
        return cls(_folder(), _limits(), _umask(), _blocked(), _has_timer(), _at_child_end())

    def restore(self) -> bool:
        """Sets back what has changed; whether all of it could be."""
        now = self.of_now()
        if now == self:
            return True
        try:
            if self.folder is not None and now.folder != self.folder:
                os.chdir(self.folder)
            os.umask(self.umask)
            if now.limits != self.limits:
                _set_limits(self.limits)
            if now.blocked != self.blocked:
                signal.pthread_sigmask(signal.SIG_SETMASK, self.blocked)
            if now.has_timer and not self.has_timer:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if now.at_child_end is signal.SIG_IGN and self.at_child_end is not None:
                signal.signal(signal.SIGCHLD, self.at_child_end)
        except (OSError, ValueError):  # the folder is gone, or a limit was lowered for good
            return False
        return True


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - as text it takes a third of the time
    except OSError:  # it was removed
        return None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _blocked() -> frozenset[int]:
    return (
        frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        if hasattr(signal, "pthread_sigmask")
        else frozenset()
    )


def _has_timer() -> bool:
    return hasattr(signal, "getitimer") and signal.getitimer(signal.ITIMER_REAL)[0] > 0


def _at_child_end() -> Any:
    return signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None


def _set_limits(wanted: Mapping[int, tuple[int, int]]) -> None:
    """Sets the limits that differ.

    Raises:
        OSError, ValueError: raising one of them takes a privilege; the others are set.
    """
    if not wanted:
        return
    import resource

    refused: Exception | None = None
    for which, limits in wanted.items():
        if resource.getrlimit(which) != limits:
            try:
                resource.setrlimit(which, limits)
            except (OSError, ValueError) as error:
                refused = error
    if refused is not None:
        raise refused


def _limits() -> dict[int, tuple[int, int]]:
    if sys.platform == "win32":
        return {}
    import resource

    return {each: resource.getrlimit(each) for each in _limit_numbers()}


@functools.cache
def _limit_numbers() -> tuple[int, ...]:
    import resource

    return tuple(getattr(resource, name) for name in _LIMITS if hasattr(resource, name))
