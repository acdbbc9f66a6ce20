"""How a process that we started ended, and the one wording of it."""

from __future__ import annotations

import signal
import sys
from typing import Literal

import msgspec

from pytest_membudget.units import format_duration, format_size

NOT_FOUND = 127
NOT_RUNNABLE = 126
SIGNALLED = 128

How = Literal[
    "exited", "signalled", "over-limit", "timeout", "cancelled", "not-found", "not-runnable", "lost"
]


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How one process ended. `str` is the end of a sentence about it: "was ended by SIGSEGV (signal 11)".

    *over-limit*, *timeout* and *cancelled*: we ended it, with all that it had started. *lost*: what watched it was killed.
    """

    how: How
    exit_code: int = 0
    """What a shell would say: 128 and the signal's number, 127 not found, 126 not runnable."""
    signal: int = 0
    """The number of the signal that ended it; 0 where none did."""
    duration_s: float = 0.0
    limit_bytes: int | None = None
    """For the whole tree; `None` where there was no limit."""
    reached_bytes: int = 0
    """What the tree was proven to hold when it broke its limit."""
    timeout_s: float | None = None

    @property
    def ended_by_us(self) -> bool:
        """Whether it was ended rather than ended by itself."""
        return self.how in {"over-limit", "timeout", "cancelled"}

    def __str__(self) -> str:
        if self.how == "exited":
            return f"ended with exit code {self.exit_code}"
        if self.how == "signalled":
            return f"was ended by {_signal_name(self.signal)} (signal {self.signal}){_hint(self.signal)}"
        if self.how == "over-limit":
            held, limit = format_size(self.reached_bytes), format_size(self.limit_bytes or 0)
            return f"held {held} with all that it had started, and was ended at its limit of {limit}"
        if self.how == "timeout":
            return f"was ended at its time limit of {format_duration(self.timeout_s or 0.0)}"
        return _WORDING[self.how]


_WORDING = {
    "cancelled": "was cancelled",
    "not-found": "was not found",
    "not-runnable": "may not be run",
    "lost": "was lost: the process that watched it was killed, so how it ended is not known",
}


def exit_code_of(returncode: int) -> int:
    """A shell's exit code of a process, from what `subprocess` calls its return code."""
    return SIGNALLED - returncode if returncode < 0 else returncode


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a real-time signal"


def _hint(number: int) -> str:
    killed = sys.platform != "win32" and number == signal.SIGKILL
    return "; the system may have run out of memory" if killed else ""
