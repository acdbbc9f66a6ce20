"""The watchdog's arm outside: kills a runaway child, and ends a measured process that cannot end itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess

from .messages import Exceeded, Limits, encode
from .records import Interval, Reading
from .session import Session

LAST_WORDS_S = 20.0


class Watch:
    """Reports when a session's limit is proven to be exceeded, and ends it where the measured process does not answer."""

    def __init__(self, events: int) -> None:
        self._events = events

    def check(
        self,
        key: int,
        session: Session,
        limits: Limits,
        *,
        at_s: float,
        interval: Interval,
        readings: list[Reading],
        names: dict[int, str],
    ) -> None:
        """Called every round for each session that has limits."""
        if session.warned_s is None:
            over = session.still_over(interval) if session.killed else session.over_limit()
            if over and not self._kill_child(key, session, interval, readings, names):
                session.warned_s = at_s
                self._tell(Exceeded(key, False, session.peak_low, interval.low, session.root))
        elif at_s - session.warned_s > limits.grace_s:
            self._end(session, limits)

    def _kill_child(
        self, key: int, session: Session, interval: Interval, readings: list[Reading], names: dict[int, str]
    ) -> bool:
        """Kills the largest child where children hold most of what was taken, and tells once; whether it is so."""
        children = [reading for reading in readings if reading.pid != session.root and reading.resident]
        grown = {child.pid: session.grown(child) for child in children}
        largest = max(children, key=lambda child: grown[child.pid], default=None)
        own = (
            sum(reading.resident for reading in readings if reading.pid == session.root) - session.root_start
        )
        if largest is None or sum(grown.values()) <= own:
            return False
        if largest.pid not in session.killed:  # else it is on its way out
            session.killed.add(largest.pid)
            # Said before it is done: the reason is there when the child's end is seen.
            name = names.get(largest.pid, "")
            self._tell(Exceeded(key, True, session.peak_low, interval.low, largest.pid, name))
            with contextlib.suppress(OSError):
                os.kill(largest.pid, signal.SIGKILL)
        return True

    def _tell(self, event: Exceeded) -> None:
        with contextlib.suppress(OSError):
            os.write(self._events, encode(event))

    def _end(self, session: Session, limits: Limits) -> None:
        """The block was not ended within its grace: the last words are spoken, then the process is ended."""
        facts = {"peak_bytes": session.peak_low, "total_bytes": session.total_low, "pid": session.root}
        if limits.last_words:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(
                    limits.last_words,
                    input=json.dumps(facts).encode(),
                    timeout=LAST_WORDS_S,
                    check=False,
                    cwd=limits.directory or None,
                    env=limits.environment or None,
                )
        with contextlib.suppress(OSError):
            os.kill(session.root, signal.SIGABRT)
        session.warned_s = float("inf")
