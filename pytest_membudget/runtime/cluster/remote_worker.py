"""A worker of a cluster: calls are sent to it in messages, and each gets exactly one reply.

Everything but `send` and what the driver reads runs in the link's loop, so nothing is locked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from pytest_membudget.runtime.cluster.worker_side import Hello, Order, Progress
from pytest_membudget.runtime.workers.protocol import (
    Call,
    Delay,
    Died,
    Done,
    Raised,
    Reading,
    Reply,
    Unpicklable,
)
from pytest_membudget.runtime.workers.serialization import (
    Packed,
    Report,
    name_of,
    packed_for_elsewhere,
    unpacked,
    unpicklable,
)

UNSEEN_S = 5.0
"""A worker that did not say for so long what it does counts as busy with the first call that it was sent."""

ENDING_S = 30.0
"""How long a worker that was ended may take."""

_MIB = 1024 * 1024


class Sent(NamedTuple):
    """A call on its way."""

    order: Order
    name: str
    done: Done
    charged_bytes: int
    message: int  # the sequence of the first call that it travels with


class ClusterConnection(Protocol):
    """What a worker needs from the cluster's launcher."""

    def post(self, worker: RemoteWorker, message: list[Sent]) -> None:
        """Sends calls; from any thread."""

    def end(self, worker: RemoteWorker) -> None:
        """Ends the worker's process, which its nanny restarts if it has one; from any thread."""

    def share_bytes(self, host: str) -> int | None:
        """What each worker there may take of the executor's own budget, if it was given one."""


class RemoteWorker:
    """One worker process of a cluster."""

    pid = None

    def __init__(
        self,
        link: ClusterConnection,
        address: str,
        who: Hello,
        offered_bytes: int,
        sent_bytes: int,
        *,
        has_nanny: bool,
    ) -> None:
        self._connection = link
        self._sent_bytes = sent_bytes
        self._ended = threading.Event()
        self._is_ending = False
        self._progress: Progress | None = None
        self._progressed_s = 0.0
        self.address = address
        self.host = who.host
        self.who = who
        self.offered_bytes = offered_bytes
        self.has_nanny = has_nanny
        self.is_gone = False
        self.pending: OrderedDict[int, Sent] = OrderedDict()
        self.head_since_s = 0.0
        self.tasks = 0
        self.peak_bytes = who.base_bytes

    @property
    def capacity_bytes(self) -> int:
        """What it offers less its own base, in whole MiB; no more than its share of the executor's budget."""
        room_bytes = max(0, self.offered_bytes - self.who.base_bytes)
        share_bytes = self._connection.share_bytes(self.host)
        if share_bytes is not None:
            room_bytes = min(room_bytes, share_bytes)
        return room_bytes // _MIB * _MIB

    def send(self, calls: Sequence[tuple[Call, Done]]) -> None:
        """Packs the calls and hands them over."""
        message: list[Sent] = []
        for call, done in calls:
            try:
                order = self._packed(call)
            except Exception as error:  # whatever the caller's own objects raise while they are packed
                done(Unpicklable(unpicklable(f"the arguments of {name_of(call.fn)}", error)))
            else:
                message.append(Sent(order, name_of(call.fn), done, call.charged_bytes, calls[0][0].sequence))
        if message:
            self._connection.post(self, message)

    def reading(self, sequence: int = 0) -> Reading:
        """By its last progress; what it holds is nothing on this machine."""
        seen = self._progress
        if seen is None or seen.sequence != sequence:
            return Reading(self._silent_since_s(sequence))
        since_s = self._progressed_s - seen.running_s
        return Reading(since_s) if seen.is_called else Reading(delay=Delay("import", since_s))

    def _silent_since_s(self, sequence: int) -> float | None:
        """Since when it can have been running a call, where its progress has not been seen for long."""
        silent_s = time.monotonic() - max(self._progressed_s, self.head_since_s)
        if silent_s <= UNSEEN_S:
            return None
        with contextlib.suppress(RuntimeError):  # the loop has just changed what is pending
            return self.head_since_s if next(iter(self.pending), None) == sequence else None
        return None

    def kill(self) -> None:
        """Ends its process where it has calls of ours; the cluster's other workers are not ours to end."""
        if self.pending and not self._is_ending:
            self._end()

    def renew(self) -> None:
        """Has its nanny restart it, where it has one."""
        if self.has_nanny:
            self._end()

    def retire(self) -> None:
        """Nothing to do: it stays in the cluster."""

    def join(self) -> None:
        """Waits for a worker that was ended."""
        if self._is_ending:
            self._ended.wait(ENDING_S + 1)

    def has_ended(self) -> bool:
        """Whether it runs nothing for us."""
        return self._ended.is_set() or not self._is_ending

    # What follows runs in the link's loop.

    def expect(self, message: list[Sent]) -> bool:
        """Registers calls that are being sent; False where it is gone, and then they have their replies."""
        if self.is_gone:
            for sent in message:
                sent.done(Died(f"{self} is gone", attempted=False))
            return False
        if not self.pending:
            self.head_since_s = time.monotonic()
        self.pending.update((sent.order.sequence, sent) for sent in message)
        return True

    def update(self, seen: Progress) -> None:
        """Takes its progress; calls of a message that are ready get their replies before the others."""
        self._progress, self._progressed_s = seen, time.monotonic()
        self.peak_bytes = max(self.peak_bytes, seen.resident_bytes)
        for sequence, report in seen.ready:
            self.answer(sequence, report)

    def answer(self, sequence: int, report: Report) -> None:
        """Gives a call its reply, unless it has it."""
        sent = self.pending.pop(sequence, None)
        if sent is None:
            return
        self.head_since_s = time.monotonic()
        self.tasks += 1
        self.peak_bytes = max(self.peak_bytes, report.resident_peak_bytes)
        sent.done(self._reply(sent, report))

    def refuse(self, message: list[Sent], error: Exception) -> None:
        """Gives calls that could not be run the same reply."""
        for sent in message:
            if self.pending.pop(sent.order.sequence, None) is not None:
                sent.done(Unpicklable(unpicklable(f"the call of {sent.name}, on {self},", error)))

    def gone(self, detail: str, *, blameless: bool = False) -> None:
        """It ended. A call that was alone in its message had begun; of several it is not known which, so each is retried alone."""
        if self.is_gone:
            return
        self.is_gone = True
        self._ended.set()
        pending = list(self.pending.values())
        self.pending.clear()
        running = self._running(pending)
        for sent in pending:
            attempted = sent is running and not blameless
            sent.done(Died(detail, attempted=attempted))

    def __str__(self) -> str:
        return f"worker {self.address} on host {self.host}"

    def _end(self) -> None:
        self._is_ending = True
        self._connection.end(self)

    def _running(self, pending: list[Sent]) -> Sent | None:
        """The call that was being run: the only one of its message that has no reply yet."""
        candidates = [sent for sent in pending if sent.message == pending[0].message]
        return candidates[0] if len(candidates) == 1 else None

    def _packed(self, call: Call) -> Order:
        packed = Packed(packed_for_elsewhere((call.fn, call.args, call.kwargs)), is_by_value=True)
        if not call.is_file:
            return Order(call.sequence, packed)
        path = call.args[0]
        size_bytes = 0
        with contextlib.suppress(OSError):
            size_bytes = os.path.getsize(path)  # noqa: PTH202 - bytes are paths here as well
        body = Path(os.fsdecode(path)).read_bytes() if 0 < size_bytes <= self._sent_bytes else None
        return Order(call.sequence, packed, path, size_bytes, body)

    def _reply(self, sent: Sent, report: Report) -> Reply:
        try:
            reply = unpacked(report, sent.name, f"on {self}")
        except BaseException as error:
            return Unpicklable(unpicklable(f"what {sent.name} gave back from {self}", error))
        if isinstance(reply, Raised):
            reply.error.add_note(f"raised on {self}")
        return reply


async def is_gone(worker: RemoteWorker, within_s: float) -> bool:
    """Waits until the worker is known to be gone; whether it was in time."""
    end_s = time.monotonic() + within_s
    while not worker.is_gone and time.monotonic() < end_s:  # noqa: ASYNC110 - the event is for other threads
        await asyncio.sleep(0.02)
    return worker.is_gone
