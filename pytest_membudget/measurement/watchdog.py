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
2. Otherwise this process is the runaway. A thread here (`Listener`) gets the message, notes what all threads are doing, and
   raises `WatchdogStop` in the thread that began the measurement; `except Exception` does not catch it. Afterwards
   `thread_stacks.forget_frames` clears the frames that hold the memory.
3. When the block has not ended `grace_s` later (it is inside a C call, say), `on_stuck` is called from that thread, where
   it can run; and the helper, for the case that it cannot, runs the command `last_words` with the facts as JSON on its
   standard input, then ends this process by SIGABRT, which makes faulthandler print the stacks.

RLIMIT_AS is not used: it counts address space, not memory, and fails whichever allocation comes next.
Without the helper (other systems, a hidden /proc) a thread reads this process's memory and its children's instead; it can
neither interrupt nor end a C call that holds the lock, and `KillRecord.source` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Literal, NamedTuple

import msgspec

from pytest_membudget.measurement import thread_stacks
from pytest_membudget.measurement.probe import Probe
from pytest_membudget.measurement.process import high_water
from pytest_membudget.measurement.thread_stacks import frames_of, stacks
from pytest_membudget.measurement.tree import sampler
from pytest_membudget.measurement.tree.helper.messages import Exceeded, Limits, decode
from pytest_membudget.measurement.tree.sampler import TreeSampler
from pytest_membudget.originals import _thread, contextlib, json, logging, os, select, sys, time
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.units import format_size

HELPER_WAITS_S = 2.0

_logger = logging.getLogger("pytest_membudget")
POLL_S = 0.2  # how long it listens at a time
INSIDE_POLL_S = 0.02  # between two readings of its own, where there is no helper
EXIT_STUCK = 70
"""The exit code of a process that the watchdog ended because a block would not (EX_SOFTWARE)."""


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
            thread_stacks.prepare()
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


class KillRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The watchdog stopped a block, or killed a child of it. Sizes are bytes.

    `peak_bytes` is what the block had added, `total_bytes` what the whole tree held; `limit_of` says which of the two
    was above `limit_bytes`. `stack` says what the threads were doing (see `stacks`).
    """

    kind: Literal["stopped", "child-killed"]
    label: str
    peak_bytes: int
    total_bytes: int
    limit_bytes: int
    limit_of: Literal["block", "tree"] = "block"
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
        took = f"{self.label or 'the block'} took {format_size(self.peak_bytes)} while it ran"
        holds = f"the whole tree holds {format_size(self.total_bytes)}"
        limit = format_size(self.limit_bytes)
        if self.limit_of == "block":
            return f"{took} ({holds}), more than the {limit} it may take: {what}"
        return f"{took}, and {holds}, more than the {limit} it may hold: {what}"


class Held(NamedTuple):
    """What the process tree holds above the block's start, and in all, in bytes."""

    peak_bytes: int
    total_bytes: int


class Rules(NamedTuple):
    """What a block may take and what happens when it does not stop.

    `limit_bytes` is the most that it may add above its start, `stop_total_bytes` what the whole tree must stay below;
    `None` for no limit. `grace_s` after the stop was raised `on_stuck` is called, and the process ends.
    """

    limit_bytes: int | None
    stop_total_bytes: int | None
    grace_s: float
    on_stuck: Callable[[KillRecord], None] | None

    def is_over(self, held: Held) -> bool:
        """Whether it took, or the whole tree holds, more than it may."""
        return self.took_too_much(held) or (
            self.stop_total_bytes is not None and held.total_bytes >= self.stop_total_bytes
        )

    def took_too_much(self, held: Held) -> bool:
        """Whether the block itself took more than it may."""
        return self.limit_bytes is not None and held.peak_bytes > self.limit_bytes


class Listener:
    """Watches over the thread that makes it, from `start()` to `stop()`.

    Args:
        label: what is watched.
        rules: what it may take.
        read: what the tree holds now; asked where there is no helper.
        helper_and_key: the helper, and the number that this measurement has there.
        led_here: the frames in which the block begins.
    """

    def __init__(
        self,
        label: str,
        rules: Rules,
        read: Callable[[], Held],
        *,
        helper_and_key: tuple[TreeSampler, int] | None,
        led_here: Sequence[FrameType],
    ) -> None:
        self._label = label
        self._rules = rules
        self._read = read
        self._helper = helper_and_key[0] if helper_and_key else None
        self._key = helper_and_key[1] if helper_and_key else None
        self._led_here = led_here
        self._target = _thread.get_ident()
        self._pid = os.getpid()
        self._done = False
        self._lock = _thread.allocate_lock()
        self._running = _thread.allocate_lock()
        self._raised_s: float | None = None
        self._kill_record: KillRecord | None = None
        self._buffer = b""
        self._wake = os.pipe()

    def start(self) -> None:
        """Begins to watch, in a thread of the system's: gevent makes its own of those of `threading`, and they would block."""
        self._running.acquire()
        _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        try:
            self.run()
        finally:
            self._running.release()

    def stop(self) -> None:
        """Ends the watch; no exception is raised after this returns."""
        with self._lock:
            self._done = True
            thread_stacks.take_back(self._target)
        os.write(self._wake[1], b"w")
        if os.getpid() == self._pid:  # a forked child of the block has no such thread
            self._running.acquire()

    def heard(self) -> KillRecord | None:
        """What was done, after everything that the helper has said of it; the last call."""
        while self._hear(0.0):
            pass
        for descriptor in self._wake:
            os.close(descriptor)
        return self._kill_record

    def run(self) -> None:
        """Until the block ends."""
        while not self._done:
            if self._helper is not None:
                self._hear(POLL_S)
            else:
                self._see()
            with self._lock:
                if not self._done:
                    thread_stacks.remind(self._target)
            if self._raised_s is not None and time.monotonic() - self._raised_s > self._rules.grace_s:
                self._end_process()

    def _hear(self, patience_s: float) -> bool:
        """Reads what the helper says within `patience_s` seconds; whether it said anything."""
        if self._helper is None:
            return False
        try:
            events = self._helper.events
            poll = select.poll()  # unlike select, at home with any number of descriptors
            for descriptor in (events, self._wake[0]):
                poll.register(descriptor, select.POLLIN)
            if events not in dict(poll.poll(patience_s * 1000)):
                return False
            received = os.read(events, 65536)
        except (OSError, ValueError):
            received = b""
        if not received:  # the helper is gone; from now on this thread reads by itself
            self._helper = None
            return False
        *lines, self._buffer = (self._buffer + received).split(b"\n")
        for line in lines:
            event = decode(line, json.loads)
            if isinstance(event, Exceeded) and event.key == self._key:
                self._act(event, "helper")
        return True

    def _see(self) -> None:
        time.sleep(INSIDE_POLL_S)
        held = self._read()
        if self._raised_s is None and self._rules.is_over(held):
            self._act(Exceeded(0, False, held.peak_bytes, held.total_bytes, os.getpid()), "inside")

    def _act(self, event: Exceeded, source: Literal["helper", "inside"]) -> None:
        is_child = event.killed
        of_block = self._rules.took_too_much(Held(event.peak_bytes, event.total_bytes))
        limit_bytes = self._rules.limit_bytes if of_block else self._rules.stop_total_bytes
        kill_record = KillRecord(
            kind="child-killed" if is_child else "stopped",
            label=self._label,
            peak_bytes=event.peak_bytes,
            total_bytes=event.total_bytes,
            limit_bytes=limit_bytes or 0,
            limit_of="block" if of_block else "tree",
            pid=event.pid,
            name=event.name,
            stack=stacks(self._target, self._led_here),
            source=source,
        )
        with self._lock:
            if self._done and not is_child:
                return  # too late to stop anything
            if self._kill_record is None or not is_child:
                self._kill_record = kill_record
            _logger.error("%s", kill_record)
            if not is_child and self._raised_s is None:
                self._raised_s = time.monotonic()
                thread_stacks.raise_in(self._target)

    def _end_process(self) -> None:
        with self._lock:
            if self._done or self._kill_record is None:
                return
        message = f"{self._kill_record}; it did not stop within {self._rules.grace_s:.0f} s, so the process ends now"
        _logger.critical("%s", message)
        if self._rules.on_stuck is not None:
            # Whatever the callback meets, the process has to end.
            with contextlib.suppress(Exception):
                self._rules.on_stuck(self._kill_record)
        with contextlib.suppress(OSError):
            os.write(2, f"\n{message}\n{self._kill_record.stack}".encode(errors="replace"))
        sampler.close_sampler()
        os._exit(EXIT_STUCK)  # noqa: SLF001 - an ordinary exit would wait for the thread that does not stop
