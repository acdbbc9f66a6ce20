"""The helper's loop: commands in, scans as often as they are worth their cost, answers out; and the watchdog's arm (`Watch`).

A scan takes place every 10 ms at rest and every 2 ms after a change, slowly back; never more often than its cost allows.
While the root is alone new processes are searched for every 20 ms, and the root is read every 100 ms. Between commands the
`note` is read every 10 ms.
Proportional sizes are sampled only when they could raise a proven figure, from an account that fills at a fixed rate.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from typing import NamedTuple

from .messages import (
    Begin,
    Begun,
    End,
    Exceeded,
    Limits,
    Message,
    Notepad,
    Ready,
    Start,
    Unknown,
    decode,
    encode,
)
from .proc_reader import has_memory, huge_pages_are_hidden
from .records import Interval, Reading
from .scan import RootGoneError, Scans
from .session import Session
from .shared_memory import SharedGrowth, SharedReader, SharedReading

REST_S = 0.010
ALONE_REST_S = 0.020
QUICK_S = 0.002
SLOWER = 1.15
ALONE_S = 0.1
NOTE_S = 0.010
IDLE_S = 1.0
ROUND_SHARE = 0.035
BURST_S = 0.25
"""Scans may cost in advance what this much rest has saved: those that find new children are expensive, and the next is wanted soon."""

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
        """Called in every scan for each session that has limits."""
        if session.warned_s is None:
            over = session.still_over(interval) if session.killed else session.over_limit()
            if over and not self._kill_child(key, session, interval, readings, names):
                session.warned_s = at_s
                self._send(Exceeded(key, False, session.peak_low, interval.low, session.root))
        elif at_s - session.warned_s > limits.grace_s:
            self._end(session, limits)

    def _kill_child(
        self, key: int, session: Session, interval: Interval, readings: list[Reading], names: dict[int, str]
    ) -> bool:
        """Kills the largest child where children hold most of what was taken, and reports that once; whether it is so."""
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
            self._send(Exceeded(key, True, session.peak_low, interval.low, largest.pid, name))
            with contextlib.suppress(OSError):
                os.kill(largest.pid, signal.SIGKILL)
        return True

    def _send(self, event: Exceeded) -> None:
        with contextlib.suppress(OSError):
            os.write(self._events, encode(event))

    def _end(self, session: Session, limits: Limits) -> None:
        """The block was not ended within its grace: the emergency report is written, then the process is ended."""
        facts = {"peak_bytes": session.peak_low, "total_bytes": session.total_low, "pid": session.root}
        if limits.last_words:
            import subprocess  # here, since almost no helper comes to this: it is a sixth of the start

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


class Descriptors(NamedTuple):
    """Pipes: commands in, answers out, events out. And the file of the note, -1 where there is none."""

    commands: int
    answers: int
    events: int
    note: int


class Loop:
    """Everything between the first command and the last."""

    def __init__(self, root: int, descriptors: Descriptors, group: str = "") -> None:
        self._commands, self._answers, events, note = descriptors
        self._root = root
        self._scans = Scans(root, self._update_sessions)
        self._watch = Watch(events)
        self._notepad = Notepad(note)
        self._shared = SharedReader(group)
        self._shared_before = SharedReading()
        self._noted = 0
        self._sessions: dict[int, Session] = {}
        self._limits: dict[int, Limits] = {}
        self._buffer = b""
        self._interval_s = self._rest_s = REST_S
        self._next_s = self._paid_until_s = time.monotonic()
        self._alive = True

    def run(self) -> None:
        """Runs until the measured process is gone or says so."""
        poll = select.poll()
        poll.register(self._commands, select.POLLIN)
        self._answer(Ready(os.getpid(), self._scans.count, huge_pages_are_hidden()))
        with contextlib.suppress(RootGoneError):
            while self._alive:
                wait_s = max(0.0, self._next_s - time.monotonic()) if self._sessions else NOTE_S
                if poll.poll(wait_s * 1000):
                    self._receive()
                    continue
                self._read_note()
                if self._sessions:
                    self._paced_scan()
                elif time.monotonic() >= self._next_s:
                    self._next_s = time.monotonic() + IDLE_S
                    self._alive = has_memory(self._root)

    def _receive(self) -> None:
        received = os.read(self._commands, 65536)
        if not received:
            self._alive = False
            return
        self._read_note()
        *lines, self._buffer = (self._buffer + received).split(b"\n")
        for line in lines:
            command = decode(line)
            if isinstance(command, Begin):
                self._begin(command)
            elif isinstance(command, End):
                self._end(command)
            else:
                self._alive = False

    def _read_note(self) -> None:
        """Opens the session of the block that the note names, and ends that of the block that it no longer names."""
        note = self._notepad.read()
        if (note.key if note else 0) == self._noted:
            return
        self._sessions.pop(self._noted, None)
        self._noted = note.key if note else 0
        if note:
            self._sessions.clear()  # a note is written where no other block is open: those here have ended
            self._begin_alone(note.key, Session(note.start_ns / 1e9, self._root), note.start)
            self._pace(REST_S)

    def _begin(self, command: Begin) -> None:
        limits = command.limits or Limits()
        session = Session(time.monotonic(), self._root, limits.block_bytes, limits.total_bytes)
        if command.limits is not None:
            self._limits[command.key] = limits
        if command.alone is not None:
            self._begin_alone(command.key, session, command.alone)
        else:
            self._begin_among(command.key, session, command.shared or SharedReading())
        self._pace(command.interval_s or REST_S)
        if command.answer:
            self._answer(Begun(self._scans.count))

    def _begin_alone(self, key: int, session: Session, start: Start) -> None:
        """Opens the session of a block that began a moment ago: what joined or died since is counted as its own."""
        scans = self._scans
        if self._sessions:
            scans.take()
            interval = scans.interval
        else:
            interval = scans.restart_alone(start)
        assert interval is not None
        session.begin_alone(interval, scans.readings, start.resident_bytes)
        session.shared = SharedGrowth(start.shared, start.mapped_bytes, start.mapped_bytes)
        session.marks.begin(scans.readings, scans.faulted_since(start.own_faults), start.reaped_faults)
        if self._sessions:
            session.missed_before(scans.readings[0], start)
        self._sessions[key] = session
        scans.take()

    def _begin_among(self, key: int, session: Session, shared: SharedReading) -> None:
        """Opens the session of a block that begins now, with the processes that live then."""
        scans = self._scans
        if self._sessions:
            scans.take()
        else:
            scans.restart()
        if scans.count > 1:
            scans.sample()
        assert scans.interval is not None
        root = scans.readings[0]
        if scans.count > 1:
            session.begin_among(scans.interval, scans.readings)
        else:
            session.begin_alone(scans.interval, scans.readings, root.resident)
        session.marks.begin(scans.readings, 0, root.reaped_faults)
        session.begin_shared(shared, scans.readings)
        self._sessions[key] = session

    def _pace(self, rest_s: float) -> None:
        self._rest_s = rest_s
        self._interval_s = min(rest_s, QUICK_S)
        self._next_s = time.monotonic() + self._interval_s

    def _end(self, command: End) -> None:
        session = self._sessions.get(command.key)
        self._limits.pop(command.key, None)
        if session is None:
            if command.answer:
                self._answer(Unknown(command.key))
            return
        if command.answer:
            scans = self._scans
            scans.take()
            scans.sample()
            self._count_files(force=True)
            if scans.count > 1:
                scans.take()  # a sample counts one scan later
            self._answer(
                session.summary()._replace(
                    names=[(pid, scans.table.names.get(pid, "")) for pid in session.seen],
                    members=scans.count,
                    interval_s=self._rest_s,
                )
            )
        del self._sessions[command.key]

    def _paced_scan(self) -> None:
        if self._may_rest():
            self._next_s = time.monotonic() + ALONE_REST_S
            return
        began_s = time.thread_time()
        changed = self._scans.take()
        cost_s = time.thread_time() - began_s
        self._scans.sample(self._could_rise)
        self._count_files()
        quick_s = min(QUICK_S, self._rest_s)
        self._interval_s = quick_s if changed else min(self._rest_s, self._interval_s * SLOWER)
        now_s = time.monotonic()
        rest_s = cost_s / ROUND_SHARE
        self._paid_until_s = max(self._paid_until_s, now_s - BURST_S) + rest_s
        self._next_s = max(now_s + self._interval_s, min(self._paid_until_s, now_s + rest_s))

    def _may_rest(self) -> bool:
        """A root alone has the kernel's own mark: all there is to do is to notice the first child."""
        scans = self._scans
        if scans.count > 1 or self._limits or self._rest_s != REST_S:
            return False
        # Shared memory that was added may be mapped by now: its figure is of use beside a new reading only.
        if self._shared.read() != self._shared_before:
            return False
        return not scans.members.refresh() and time.monotonic() - scans.read_s < ALONE_S

    def _count_files(self, *, force: bool = False) -> None:
        interval = self._scans.interval
        if interval and any(session.files_blur(interval) for session in self._sessions.values()):
            self._scans.count_files(force=force)

    def _could_rise(self, interval: Interval) -> bool:
        return any(session.could_rise(interval) for session in self._sessions.values())

    def _update_sessions(self, at_s: float, interval: Interval, readings: list[Reading]) -> None:
        self._shared_before = shared = self._shared.read()
        for key, session in self._sessions.items():
            session.update(at_s, interval, readings)
            session.update_shared(shared, readings)
            if key in self._limits:
                self._watch.check(
                    key,
                    session,
                    self._limits[key],
                    at_s=at_s,
                    interval=interval,
                    readings=readings,
                    names=self._scans.table.names,
                )

    def _answer(self, message: Message) -> None:
        try:
            os.write(self._answers, encode(message))
        except OSError:
            self._alive = False


def main(starter: int, arguments: list[str]) -> None:
    """Runs the loop, once the process that started this one has ended: no descendant of the caller's any more."""
    root, descriptors = int(arguments[0]), Descriptors(*map(int, arguments[1:5]))
    while os.getppid() == starter:
        time.sleep(0.0005)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where no session of its own could be had
    try:
        loop = Loop(root, descriptors, *arguments[5:])
    except (
        OSError,
        ValueError,
        IndexError,
    ) as error:  # /proc is hidden, or its files have an unknown form
        os.write(
            descriptors.answers,
            encode(Ready(failure=f"/proc cannot be read as needed: {error}")),
        )
        return
    with contextlib.suppress(KeyboardInterrupt):
        loop.run()
