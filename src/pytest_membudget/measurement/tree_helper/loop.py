"""The helper's loop: commands in, rounds of readings as often as they are worth, answers out.

A round takes place every 10 ms at rest and every 2 ms after a change, slowly back; never more often than its cost allows.
While the root is alone new processes are looked for every 20 ms, and the root is read every 100 ms. Between commands the
`note` is looked at every 10 ms.
Closer `looks` are taken only when they could raise a proven figure, from an account that fills at a fixed rate.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from typing import Any

from .bounds import Bounds
from .figures import Interval, Proportional, Reading
from .looks import Looks, blurred, look
from .members import Members
from .note import Note, Notepad
from .readings import huge_pages, shared_outside
from .sessions import Session
from .table import Table
from .watch import Watch

REST_S = 0.010
ALONE_REST_S = 0.020
QUICK_S = 0.002
SLOWER = 1.15
ALONE_S = 0.1
NOTE_S = 0.010
IDLE_S = 1.0
ROUND_SHARE = 0.035
CHANGE_BYTES = 64 * 1024


class Loop:
    """Everything between the first command and the last."""

    def __init__(self, root: int, commands: int, answers: int, events: int, note: int) -> None:
        self._commands = commands
        self._answers = answers
        self._members = Members(root, os.getpid(), os.getppid())
        self._table = Table(self._members)
        self._shared_outside = shared_outside(root)
        self._bounds = Bounds(shared_outside=self._shared_outside)
        self._watch = Watch(events)
        self._notepad = Notepad(note)
        self._noted = 0
        self._sessions: dict[int, Session] = {}
        self._orders: dict[int, dict[str, Any]] = {}
        self._buffer = b""
        self._interval_s = self._rest_s = REST_S
        self._next_s = time.monotonic()
        self._huge_pages = huge_pages()
        self._looks = Looks()
        self._read_s = 0.0
        self._readings: list[Reading] = []
        self._interval: Interval | None = None
        self._alive = True

    def run(self) -> None:
        """Runs until the measured process is gone or says so."""
        poll = select.poll()
        poll.register(self._commands, select.POLLIN)
        self._answer({"ready": os.getpid(), "members": self._count()})
        while self._alive:
            wait_s = max(0.0, self._next_s - time.monotonic()) if self._sessions else NOTE_S
            if poll.poll(wait_s * 1000):
                self._obey()
                continue
            self._look_at_note()
            if self._sessions:
                self._paced_round()
            elif time.monotonic() >= self._next_s:
                self._next_s = time.monotonic() + IDLE_S
                self._alive = _lives(self._members.root)

    def _obey(self) -> None:
        received = os.read(self._commands, 65536)
        if not received:
            self._alive = False
            return
        self._look_at_note()
        *lines, self._buffer = (self._buffer + received).split(b"\n")
        for line in lines:
            command = json.loads(line)
            getattr(self, f"_do_{command['do']}")(command)

    def _look_at_note(self) -> None:
        """Takes up the block that is noted, and leaves the one that no longer is."""
        note = self._notepad.read()
        if (note.key if note else 0) == self._noted:
            return
        self._sessions.pop(self._noted, None)
        self._noted = note.key if note else 0
        if note:
            self._begin_noted(note)

    def _begin_noted(self, note: Note) -> None:
        """Opens the session of a block that began a moment ago: what joined or died since is counted as its own."""
        self._bounds = Bounds(shared_outside=self._shared_outside)
        self._looks.forget()
        self._members.refresh()
        readings, *_ = self._table.read()
        root = next((reading for reading in readings if reading.pid == self._members.root), None)
        if root is None:
            self._alive = False
            return
        root.reaped_faults = note.reaped_faults
        self._readings = [root]
        self._interval = self._bounds.update([root])
        self._sessions[note.key] = session = Session(note.start_ns / 1e9, root.pid)
        session.begin_alone(self._interval, [root], note.start_bytes)
        self._pace(REST_S)
        self._round()

    def _pace(self, rest_s: float) -> None:
        self._rest_s = rest_s
        self._interval_s = min(rest_s, QUICK_S)
        self._next_s = time.monotonic() + self._interval_s

    def _do_begin(self, command: dict[str, Any]) -> None:
        session = Session(
            time.monotonic(), self._members.root, command.get("limit"), command.get("total_limit")
        )
        if self._sessions:
            self._round()
        else:
            self._restart()
        interval = self._interval
        if interval is None:
            return
        start = command.get("alone")
        if start is None and self._count() > 1:
            self._look_closer(force=True)
            session.begin_among(self._interval or interval, self._readings)
        else:
            # Whoever joined since the block began is no part of its start.
            session.begin_alone(interval, self._readings, start or self._readings[0].resident)
        self._sessions[command["id"]] = session
        if command.get("limit") is not None or command.get("total_limit") is not None:
            self._orders[command["id"]] = command
        self._pace(command.get("interval_s") or REST_S)
        if command.get("answer"):
            self._answer({"members": self._count()})

    def _do_end(self, command: dict[str, Any]) -> None:
        session = self._sessions.get(command["id"])
        if session is None:
            if command.get("answer"):
                self._answer({"unknown": command["id"]})
            return
        if command.get("answer"):
            self._round()
            self._look_closer(force=True)
            if self._count() > 1:
                self._round()  # a look is believed one round later
            summary = session.summary()
            summary["names"] = {pid: self._table.names.get(pid, "") for pid in session.seen}
            summary["members"] = self._count()
            summary["interval_s"] = self._rest_s
            self._answer(summary)
        del self._sessions[command["id"]]
        self._orders.pop(command["id"], None)

    def _do_quit(self, command: dict[str, Any]) -> None:
        self._alive = False

    def _paced_round(self) -> None:
        if self._may_rest():
            self._next_s = time.monotonic() + ALONE_REST_S
            return
        began_s = time.thread_time()
        changed = self._round()
        cost_s = time.thread_time() - began_s
        self._look_closer()
        quick_s = min(QUICK_S, self._rest_s)
        self._interval_s = quick_s if changed else min(self._rest_s, self._interval_s * SLOWER)
        self._next_s = time.monotonic() + max(self._interval_s, cost_s / ROUND_SHARE)

    def _may_rest(self) -> bool:
        """A root alone has the kernel's own mark: all there is to do is to notice the first child."""
        if len(self._members.processes) > 1 or self._orders or self._rest_s != REST_S:
            return False
        return not self._members.refresh() and time.monotonic() - self._read_s < ALONE_S

    def _restart(self) -> None:
        """Two rounds after a pause: the first one only tells where the second starts from."""
        self._bounds = Bounds(shared_outside=self._shared_outside)
        self._looks.forget()
        self._round()
        self._round()

    def _round(self, proportional: Proportional | None = None) -> bool:
        """Reads everybody once and tells every session; whether anything changed."""
        changed = self._members.refresh()
        readings, file_limit, shmem_limit = self._table.read()
        if not readings or readings[0].pid != self._members.root:
            self._alive = False
            return False
        before = {reading.pid: reading for reading in self._readings}
        changed |= len(readings) != len(before) or any(
            reading.pid not in before or abs(reading.anon - before[reading.pid].anon) > CHANGE_BYTES
            for reading in readings
        )
        pages = huge_pages() if changed or len(readings) > 1 else self._huge_pages
        self._interval = self._bounds.update(
            readings,
            huge_pages=max(0, pages - self._huge_pages),
            proportional=proportional,
            file_limit=file_limit,
            shmem_limit=shmem_limit,
        )
        self._huge_pages = pages
        self._readings = readings
        self._read_s = now_s = time.monotonic()
        for key, session in self._sessions.items():
            session.update(now_s, self._interval, readings)
            if key in self._orders:
                self._watch.look(
                    key,
                    session,
                    self._orders[key],
                    at_s=now_s,
                    interval=self._interval,
                    readings=readings,
                    names=self._table.names,
                )
        return changed

    def _look_closer(self, *, force: bool = False) -> None:
        """Reads proportional sizes where they tell more and are worth their cost."""
        interval = self._interval
        if interval is None:
            return
        could_rise = any(session.could_rise(interval) for session in self._sessions.values())
        if not (
            blurred(interval, self._readings)
            if force
            else self._looks.worthwhile(interval, self._readings, could_rise=could_rise)
        ):
            return
        with self._looks.charged(self._readings) as may_tell:
            proportional = look(self._readings, self._members.processes) if may_tell else None
            if proportional:
                self._round(proportional)
                self._looks.taken(proportional, self._interval, self._readings)

    def _count(self) -> int:
        return len(self._members.processes)

    def _answer(self, value: dict[str, Any]) -> None:
        try:
            os.write(self._answers, json.dumps(value).encode() + b"\n")
        except OSError:
            self._alive = False


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/stat", "rb") as stream:  # noqa: PTH123
        return stream.read(1024).rsplit(b")", 1)[1].split()[0] not in {b"Z", b"X"}
    return False


def main(arguments: list[str]) -> None:
    """Leaves the caller's family, so that its `wait` never sees the helper, then runs the loop."""
    root, *descriptors = (int(word) for word in arguments)
    intermediate = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == intermediate:
        time.sleep(0.0005)
    try:
        loop = Loop(root, *descriptors)
    except (
        OSError,
        ValueError,
        IndexError,
    ) as error:  # /proc is hidden, or its files look like nothing known
        os.write(
            descriptors[1],
            json.dumps({"failed": f"/proc cannot be read as needed: {error}"}).encode() + b"\n",
        )
        return
    with contextlib.suppress(KeyboardInterrupt):
        loop.run()
