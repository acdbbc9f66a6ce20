"""The watchdog: ends a test that outgrows its limit while it still runs.

```text
dog = Watchdog(stop_total_bytes=share_of_the_limit, grace_s=10.0, last_words=argv)
probe = dog.guard("tests/test_a.py::test_b", limit_bytes=budget, settle=True)   # instead of Probe(...)
probe.begin()
try:
    run()                      # may be interrupted by WatchdogStop, at the next bytecode
finally:
    measurement = probe.finish()
record = probe.kill_record       # None, or what the watchdog did: kind, pid, name, peak_bytes, limit_bytes, stack
```

The helper process watches (`tree.helper.main.Watch`), because it is not stopped by C code that holds the interpreter's lock:

1. Where children hold most of what was taken, the largest of them is killed at once, and named.
2. Otherwise this process is the runaway. A thread here (`listener`) gets the message, notes what all threads are doing, and
   raises `WatchdogStop` in the thread that began the measurement; `except Exception` does not catch it. Afterwards
   `threads.forget_frames` clears the frames that hold the memory.
3. When the block has not ended `grace_s` later (it is inside a C call, say), `on_stuck` is called from that thread, where
   it can run; and the helper, for the case that it cannot, runs the command `last_words` with the facts as JSON on its
   standard input, then ends this process by SIGABRT, which makes faulthandler print the stacks.

RLIMIT_AS is not used: it counts address space, not memory, and fails whichever allocation comes next.
Without the helper (other systems, a hidden /proc) a thread reads this process's memory and its children's instead; it can
neither interrupt nor end a C call that holds the lock, and `KillRecord.source` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pytest_membudget.measurement.probe import Probe
from pytest_membudget.measurement.process import high_water
from pytest_membudget.measurement.tree.helper.messages import Limits
from pytest_membudget.measurement.watchdog import threads
from pytest_membudget.measurement.watchdog.listener import Held, KillRecord, Listener, Rules
from pytest_membudget.measurement.watchdog.threads import frames_of
from pytest_membudget.originals import os, sys
from pytest_membudget.records.measurement import Measurement

HELPER_WAITS_S = 2.0


class Watchdog:
    """What a session's watchdog does; `guard` makes the probe of one test.

    Args:
        stop_total_bytes: the whole tree may not reach this (a share of `memory_limit()`).
        grace_s: how long a block may go on after the stop was raised.
        last_words: a command that saves the record when this process cannot; it gets JSON on its standard input.
        on_stuck: is called when the grace is over, from another thread, before the process ends.
    """

    def __init__(
        self,
        *,
        stop_total_bytes: int | None = None,
        grace_s: float = 10.0,
        last_words: Sequence[str] | None = None,
        on_stuck: Callable[[KillRecord], None] | None = None,
    ) -> None:
        self.stop_total_bytes = stop_total_bytes
        self.grace_s = grace_s
        self.last_words = None if last_words is None else list(last_words)
        self.on_stuck = on_stuck

    def limits(self, block_bytes: int | None) -> Limits | None:
        """What the helper keeps, and needs to act in this process's place; it waits a little longer. `None`: no limit."""
        if block_bytes is None and self.stop_total_bytes is None:
            return None
        limits = Limits(block_bytes, self.stop_total_bytes, self.grace_s + HELPER_WAITS_S)
        if self.last_words is None:
            return limits
        directory = os.getcwd()
        return limits._replace(last_words=self.last_words, directory=directory, environment=dict(os.environ))

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
    """A probe whose block is interrupted when it outgrows its limit. `kill_record` says whether it was."""

    def __init__(
        self, dog: Watchdog, label: str, limit_bytes: int | None, *, interval_s: float | None, settle: bool
    ) -> None:
        super().__init__(
            label,
            interval_s=interval_s,
            settle=settle,
            limits=dog.limits(limit_bytes),
        )
        self.kill_record: KillRecord | None = None
        self._rules = Rules(limit_bytes, dog.stop_total_bytes, dog.grace_s, dog.on_stuck)
        self._listener: Listener | None = None

    def begin(self) -> None:
        """Starts the measurement and the watch over it."""
        super().begin()
        if self._limits is not None:
            threads.prepare()
            self._listener = Listener(
                self.label,
                self._rules,
                self._held,
                helper_and_key=(self._helper, self.key) if self._helper and self.key is not None else None,
                led_here=frames_of(sys._getframe(1)),  # noqa: SLF001 - the documented way to one's caller
            )
            self._listener.start()

    def finish(self, value: Any = None) -> Measurement:
        """Ends both. A stop that was raised too late to interrupt the block is taken back."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()
        measurement = super().finish(value)
        if listener is not None:
            # The helper speaks of a child that it killed before it answers the end of the measurement.
            self.kill_record = listener.heard()
        return measurement

    def _held(self) -> Held:
        """What is held now, as far as it can be seen from inside."""
        total_bytes = max(high_water.resident_bytes(), self._inside.latest_bytes if self._inside else 0)
        return Held(total_bytes - self._start_bytes, total_bytes)
