"""The watchdog: ends a test that outgrows its limit while it still runs.

```text
dog = Watchdog(stop_total_bytes=share_of_the_limit, grace_s=10.0, last_words=argv)
probe = dog.guard("tests/test_a.py::test_b", limit_bytes=budget, settle=True)   # instead of Probe(...)
probe.begin()
try:
    run()                      # may be interrupted by WatchdogStop, at the next bytecode
finally:
    measurement = probe.finish()
bite = probe.bite              # None, or what the watchdog did: kind, pid, name, peak_bytes, limit_bytes, stack
```

The helper process watches (`tree_helper.watch`), because it is not stopped by C code that holds the interpreter's lock:

1. A child that holds most of what was taken is killed at once, and named.
2. Otherwise this process is the runaway: a thread here gets the message, dumps all stacks and raises `WatchdogStop` in the
   thread that began the measurement. `except Exception` does not catch it. `interruption.forget_frames` then clears the frames that
   hold the memory.
3. When the block has not ended `grace_s` later (it is inside a C call, say), `on_stuck` is called from that thread, where
   it can run; and the helper, for the case that it cannot, runs the command `last_words` with the facts as JSON on its
   standard input, then ends this process by SIGABRT, which makes faulthandler print the stacks.

RLIMIT_AS is not used: it counts address space, not memory, and fails the allocation of whoever comes next.
Without the helper (other systems, a hidden /proc) a thread reads this process's memory and its children's instead; it can
neither interrupt nor end a C call that holds the lock, and `Bite.source` says so.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from pytest_membudget.measurement import high_water, interruption, sampler
from pytest_membudget.measurement.probe import Probe
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.units import format_size

_logger = logging.getLogger("pytest_membudget")

POLL_S = 0.2
INSIDE_POLL_S = 0.02
HELPER_WAITS_S = 2.0


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


class Watchdog:
    """What a session's watchdog does; `guard` makes the probe of one test.

    Args:
        stop_total_bytes: the whole tree may not reach this (a share of `memory_limit()`).
        grace_s: how long a block may go on after it was told to stop.
        last_words: a command that saves the record when this process cannot; it gets JSON on its standard input.
        on_stuck: is called when the grace is over, from another thread, before the process ends.
    """

    def __init__(
        self,
        *,
        stop_total_bytes: int | None = None,
        grace_s: float = 10.0,
        last_words: Sequence[str] | None = None,
        on_stuck: Callable[[Bite], None] | None = None,
    ) -> None:
        self.stop_total_bytes = stop_total_bytes
        self.grace_s = grace_s
        self.last_words = None if last_words is None else list(last_words)
        self.on_stuck = on_stuck

    def orders(self) -> dict[str, Any]:
        """What the helper has to know to act in this process's place; it waits a little longer."""
        orders: dict[str, Any] = {"grace_s": self.grace_s + HELPER_WAITS_S}
        if self.last_words is not None:
            directory = os.getcwd()  # noqa: PTH109 - text for a command
            orders |= {"last_words": self.last_words, "directory": directory, "environment": dict(os.environ)}
        return orders

    def guard(
        self,
        label: str,
        *,
        limit_bytes: int | None = None,
        interval_s: float | None = None,
        settle: bool = False,
    ) -> GuardedProbe:
        """The probe of a block that may add `limit_bytes` at most; `None` leaves the session's limit alone."""
        return GuardedProbe(self, label, limit_bytes, interval_s=interval_s, settle=settle)


class GuardedProbe(Probe):
    """A probe whose block is interrupted when it outgrows its limit. `bite` tells whether it was."""

    def __init__(
        self, dog: Watchdog, label: str, limit_bytes: int | None, *, interval_s: float | None, settle: bool
    ) -> None:
        super().__init__(
            label,
            interval_s=interval_s,
            settle=settle,
            limit_bytes=limit_bytes,
            total_limit_bytes=dog.stop_total_bytes,
            orders=dog.orders(),
        )
        self.bite: Bite | None = None
        self._dog = dog
        self._limit_bytes = limit_bytes
        self._listener: _Listener | None = None

    def begin(self) -> None:
        """Starts the measurement and the watch over it."""
        super().begin()
        if self._watched:
            interruption.prepare()
            self._listener = _Listener(self, self._dog, self._limit_bytes)
            self._listener.start()

    def finish(self, value: Any = None) -> Measurement:
        """Ends both. A stop that was raised too late to interrupt the block is taken back."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()
        measurement = super().finish(value)
        if listener is not None:
            # The helper speaks of a child that it killed before it answers the end of the measurement.
            self.bite = listener.heard()
        return measurement


class _Listener(threading.Thread):
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


EXIT_STUCK = 70
"""The exit code of a process that the watchdog ended because a block would not (EX_SOFTWARE)."""
