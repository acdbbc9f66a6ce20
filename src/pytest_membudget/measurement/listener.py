"""The watchdog's ear in the measured process: a thread that hears what the helper says of one block, and acts.

It interrupts the thread that began the measurement, or ends the process where that does not help. Where there is no helper
it looks at this process's memory itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from pytest_membudget.measurement import high_water, interruption, sampler
from pytest_membudget.units import format_size

if TYPE_CHECKING:
    from pytest_membudget.measurement.watchdog import GuardedProbe, Watchdog

_logger = logging.getLogger("pytest_membudget")

POLL_S = 0.2
INSIDE_POLL_S = 0.02
EXIT_STUCK = 70
"""The exit code of a process that the watchdog ended because a block would not (EX_SOFTWARE)."""


class Bite(msgspec.Struct, frozen=True, kw_only=True):
    """What the watchdog did and why. Sizes are bytes; `stack` is the dump of all threads, newest call last."""

    kind: Literal["stopped", "child-killed"]
    label: str
    peak_bytes: int
    total_bytes: int
    limit_bytes: int
    pid: int
    name: str = ""
    stack: str = ""
    source: Literal["helper", "inside"] = "helper"

    def __str__(self) -> str:
        what = (
            f"its child {self.name or 'process'} ({self.pid}) was killed"
            if self.kind == "child-killed"
            else "it was stopped"
        )
        return (
            f"{self.label or 'the block'} took {format_size(self.peak_bytes)} while it ran (the whole tree holds "
            f"{format_size(self.total_bytes)}), more than the {format_size(self.limit_bytes)} it may take: {what}"
        )


class Listener(threading.Thread):
    """Hears what the helper has to say about one block, or looks for itself where there is no helper."""

    def __init__(self, probe: GuardedProbe, dog: Watchdog, limit_bytes: int | None) -> None:
        super().__init__(name="membudget-watchdog", daemon=True)
        self._probe = probe
        self._dog = dog
        self._limit_bytes = limit_bytes
        self._helper = probe._helper if probe.key is not None else None  # noqa: SLF001 - one story in two classes
        self._key = probe.key
        self._target = threading.get_ident()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._raised_s: float | None = None
        self._bite: Bite | None = None
        self._buffer = b""
        self._wake = os.pipe()

    def stop(self) -> None:
        """Ends the watch; no exception is raised after this returns."""
        with self._lock:
            self._done.set()
            interruption.take_back(self._target)
        os.write(self._wake[1], b"w")
        self.join()

    def heard(self) -> Bite | None:
        """What was done, after everything that the helper has said of it; the last call."""
        while self._helper is not None and self._hear(self._helper.events, 0.0):
            pass
        for descriptor in self._wake:
            os.close(descriptor)
        return self._bite

    def run(self) -> None:
        """Until the block ends."""
        while not self._done.is_set():
            if self._helper is not None:
                self._hear(self._helper.events, POLL_S)
            else:
                self._look()
            with self._lock:
                if not self._done.is_set():
                    interruption.remind(self._target)
            if self._raised_s is not None and time.monotonic() - self._raised_s > self._dog.grace_s:
                self._end_process()

    def _hear(self, events: int, patience_s: float) -> bool:
        """Takes in what the helper says within that time; whether it said anything."""
        try:
            poll = select.poll()  # unlike select, at home with any number of descriptors
            for descriptor in (events, self._wake[0]):
                poll.register(descriptor, select.POLLIN)
            readable = events in dict(poll.poll(patience_s * 1000))
            received = os.read(events, 65536) if readable else b"-"
        except (OSError, ValueError):
            received = b""
        if not received:  # the helper is gone; from now on this thread looks for itself
            self._helper = None
        if received in {b"", b"-"}:
            return False
        *lines, self._buffer = (self._buffer + received).split(b"\n")
        for line in lines:
            facts = json.loads(line)
            if facts["id"] == self._key:
                self._act(facts, "helper")
        return True

    def _look(self) -> None:
        self._done.wait(INSIDE_POLL_S)
        inside = self._probe._inside  # noqa: SLF001 - likewise
        start_bytes = self._probe._start_bytes  # noqa: SLF001 - likewise
        own = high_water.resident_bytes()
        total = max(own, inside.latest_bytes if inside is not None else 0)
        peak = total - start_bytes
        facts = {"event": "over", "peak": peak, "total": total, "pid": os.getpid()}
        over = self._limit_bytes is not None and peak > self._limit_bytes
        stop_at = self._dog.stop_total_bytes
        if self._raised_s is None and (over or (stop_at is not None and total >= stop_at)):
            self._act(facts, "inside")

    def _act(self, facts: dict[str, Any], source: Literal["helper", "inside"]) -> None:
        child = facts["event"] == "child"
        over_peak = self._limit_bytes is not None and facts["peak"] > self._limit_bytes
        limit = self._limit_bytes if over_peak else self._dog.stop_total_bytes
        bite = Bite(
            kind="child-killed" if child else "stopped",
            label=self._probe.label,
            peak_bytes=facts["peak"],
            total_bytes=facts["total"],
            limit_bytes=limit or 0,
            pid=facts["pid"],
            name=facts.get("name", ""),
            stack=interruption.stacks(),
            source=source,
        )
        with self._lock:
            if self._done.is_set() and not child:
                return  # too late to stop anything
            self._bite = bite if self._bite is None or not child else self._bite
            _logger.error("%s", bite)
            if not child and self._raised_s is None:
                self._raised_s = time.monotonic()
                interruption.raise_in(self._target)

    def _end_process(self) -> None:
        with self._lock:
            if self._done.is_set() or self._bite is None:
                return
        message = f"{self._bite}; it did not stop within {self._dog.grace_s:.0f} s, so the process ends now"
        _logger.critical("%s", message)
        if self._dog.on_stuck is not None:
            # Whatever the callback meets, the process has to end.
            with contextlib.suppress(Exception):
                self._dog.on_stuck(self._bite)
        with contextlib.suppress(OSError):
            os.write(2, f"\n{message}\n{self._bite.stack}".encode(errors="replace"))
        sampler.close_sampler()
        os._exit(EXIT_STUCK)
