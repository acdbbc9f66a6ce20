"""Messages between the coordinator and its workers, over connections of `multiprocessing`, and the thread that reads them.

A message is a tuple whose last item is bytes. Small ones are one frame; large bytes follow in a frame of their own, so
that they are not copied to be packed. The worker's end blocks, the coordinator's never does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import selectors
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

_logger = logging.getLogger("pytest_membudget.runtime")

_SEPARATE_BYTES = 64 * 1024
"""Larger contents travel as a message of their own: they are not copied once more to be packed."""

_LENGTH = struct.Struct("!i")
"""What stands before each frame of less than 2 GiB, as in `multiprocessing.connection`."""

_READ_BYTES = 1 << 20

TICK_S = 0.5
"""Seconds between two checks of all workers, beside what wakes the thread that reads from them."""

_DIRECT_BYTES = 32 * 1024 if sys.platform == "linux" else 4 * 1024
"""So much may be on its way to a worker without a thread to write it: the system buffers it at once, whatever it is."""

_MESSAGE_BYTES = 1024
"""What a message takes of the system's buffer beside its contents."""


class Message(NamedTuple):
    """One message to a worker: the sequence of its call (0 for none), what is small, and what may be large."""

    sequence: int
    head: tuple[Any, ...]
    body: bytes


def send(channel: Connection, head: tuple[Any, ...], body: bytes) -> None:
    """Sends one message: what is small, and what may be large."""
    if len(body) < _SEPARATE_BYTES:
        channel.send_bytes(pickle.dumps((*head, body)))
        return
    channel.send_bytes(pickle.dumps((*head, None)))
    channel.send_bytes(body)


def _send_together(channel: Connection, messages: Sequence[Message]) -> None:
    """Sends small messages with one system call: each would let go of the interpreter's lock, and wait to get it back."""
    frames = [pickle.dumps((*message.head, message.body)) for message in messages]
    unsent = memoryview(b"".join(part for frame in frames for part in (_LENGTH.pack(len(frame)), frame)))
    while unsent:
        unsent = unsent[os.write(channel.fileno(), unsent) :]


def receive(channel: Connection) -> tuple[Any, ...]:
    """The next message, in the worker: what it was sent with.

    Raises:
        EOFError: the coordinator has closed the connection.
    """
    head: tuple[Any, ...] = pickle.loads(channel.recv_bytes())  # noqa: S301 - from our own coordinator
    return head if head[-1] is not None else (*head[:-1], channel.recv_bytes())


class Outbox:
    """Messages on their way to one worker, written in their order. Never blocks the one who puts them in."""

    def __init__(self, channel: Connection) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._waiting: deque[Sequence[Message]] = deque()
        self._is_writing = False
        #: of what was put together: the last sequence, and the bytes that the worker may not have read yet
        self._unread: deque[tuple[int, int]] = deque()
        self._unread_bytes = 0
        self._is_closed = False

    def put(self, messages: Sequence[Message]) -> None:
        """Writes messages, or has a thread do it where the worker would have to read others first.

        Raises:
            RuntimeError: no thread can be started.
        """
        with self._lock:
            if self._is_closed:
                return
            size = sum(len(message.body) + _MESSAGE_BYTES for message in messages)
            is_direct = not self._is_writing and self._unread_bytes + size <= _DIRECT_BYTES
            self._unread.append((messages[-1].sequence, size))
            self._unread_bytes += size
            if is_direct:
                self._write(messages)
                return
            self._waiting.append(messages)
            if not self._is_writing:
                self._is_writing = True
                try:
                    threading.Thread(target=self._run, name="membudget-writer", daemon=True).start()
                except RuntimeError:
                    self._is_writing = False
                    self._waiting.pop()
                    raise

    def was_read(self, sequence: int) -> None:
        """The worker has replied to that call, and so has read all messages until then."""
        with self._lock:
            while self._unread and self._unread[0][0] <= sequence:
                self._unread_bytes -= self._unread.popleft()[1]

    def close(self) -> None:
        """Drops what waits, and closes the connection."""
        with self._lock:
            self._is_closed = True
            self._waiting.clear()
            if not self._is_writing:
                self._channel.close()

    def _write(self, messages: Sequence[Message]) -> None:
        with contextlib.suppress(OSError):  # it has ended, which is noticed elsewhere
            are_small = all(len(message.body) < _SEPARATE_BYTES for message in messages)
            if are_small and sys.platform != "win32":
                _send_together(self._channel, messages)
            else:
                for message in messages:
                    send(self._channel, message.head, message.body)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_writing = False
                    if self._is_closed:
                        self._channel.close()
                    return
                messages = self._waiting.popleft()
            self._write(messages)
            del messages


class Inbox:
    """Messages from one worker, put together from what there is to read: a large one delays no other worker.

    The form is that of `multiprocessing.connection`: a length of four bytes, or -1 and a length of eight.
    """

    def __init__(self, channel: Connection) -> None:
        self._channel = channel
        self._buffer = bytearray()
        self._head: tuple[Any, ...] | None = None  # of a message whose large part has not come yet
        self.at_end_s = 0.0
        """When the other end was found to be closed, on `time.monotonic`'s clock."""

    def read(self) -> Iterator[tuple[Any, ...]]:
        """Reads once; the messages that are complete now."""
        for part in self._parts():
            if self._head is not None:
                head, self._head = self._head, None
                yield (*head, part)
                continue
            *head, body = pickle.loads(part)  # noqa: S301 - from our own worker
            if body is None:
                self._head = tuple(head)
            else:
                yield (*head, body)

    def _parts(self) -> Iterator[bytes]:
        if sys.platform == "win32":
            try:
                yield self._channel.recv_bytes()
            except (EOFError, OSError):
                self.at_end_s = time.monotonic()
            return
        try:
            received = os.read(self._channel.fileno(), _READ_BYTES)
        except OSError:  # it ended with calls that it had not read
            received = b""
        if not received:
            self.at_end_s = time.monotonic()
        self._buffer += received
        while (part := self._taken()) is not None:
            yield part

    def _taken(self) -> bytes | None:
        buffer, start = self._buffer, 4
        if len(buffer) < start:
            return None
        (size,) = struct.unpack_from("!i", buffer)
        if size == -1:
            start = 12
            if len(buffer) < start:
                return None
            (size,) = struct.unpack_from("!Q", buffer, 4)
        if len(buffer) < start + size:
            return None
        with memoryview(buffer) as view:
            part = bytes(view[start : start + size])
        del buffer[: start + size]
        return part


class ReplyingWorker(Protocol):
    """A worker as the thread that reads from all of them sees it."""

    @property
    def channel(self) -> Connection:
        """The connection to it."""

    @property
    def sentinel(self) -> int:
        """A descriptor that is readable when there is something to learn of its process."""

    @property
    def pid(self) -> int | None:
        """Its process."""

    def receive(self) -> bool:
        """Reads what it has sent; False where it sends no more."""

    def check_end(self) -> bool:
        """Whether its process has ended."""

    def give_up(self) -> None:
        """Gives the calls that are left their replies."""

    def close(self) -> None:
        """Closes what was open for it."""


class Replies:
    """One thread that reads what the workers of a launcher send, and notices their ends. It runs while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: set[ReplyingWorker] = set()
        self._selector: selectors.BaseSelector | None = None
        self._is_running = False

    def add(self, worker: ReplyingWorker) -> None:
        """Takes care of a worker until it has ended.

        Raises:
            RuntimeError: no thread can be started.
        """
        with self._lock:
            if not self._is_running:
                self._selector = selectors.DefaultSelector() if sys.platform != "win32" else None
                threading.Thread(target=self._run, name="membudget-replies", daemon=True).start()
                self._is_running = True
            self._workers.add(worker)
            if self._selector is not None:
                # What is registered while the other thread waits is waited for at once (epoll, kqueue).
                self._selector.register(worker.channel, selectors.EVENT_READ, worker)
                self._selector.register(worker.sentinel, selectors.EVENT_READ, worker)

    def _run(self) -> None:
        checked_s = time.monotonic()
        while True:
            changed: set[ReplyingWorker] = set()
            for each, ready in self._ready():
                if ready is each.channel:
                    self._receive(each)
                else:
                    changed.add(each)
            if time.monotonic() - checked_s > TICK_S:
                checked_s = time.monotonic()
                with self._lock:  # one that `add` has not registered yet is not to be checked
                    changed = set(self._workers)
            for each in changed:
                self._check_end(each)
            with self._lock:
                if not self._workers:
                    self._is_running = False
                    if self._selector is not None:
                        self._selector.close()
                    return

    def _check_end(self, worker: ReplyingWorker) -> None:
        sentinel = worker.sentinel
        try:
            has_ended = worker.check_end()
        except Exception:  # a defect of ours must not leave the others without replies
            _logger.exception("worker process %s is given up", worker.pid)
            worker.give_up()
            has_ended = True
        if has_ended:
            self._drop(worker, sentinel)
        elif self._selector is not None:
            # The number may stand for another file now, which stands for the same process.
            self._selector.unregister(sentinel)
            self._selector.register(worker.sentinel, selectors.EVENT_READ, worker)

    def _ready(self) -> Iterator[tuple[ReplyingWorker, Any]]:
        """The workers of which there is something to read, each with its connection or its sentinel."""
        if self._selector is not None:
            for key, _ in self._selector.select(TICK_S):
                yield key.data, key.fileobj
            return
        with self._lock:
            owners = {each: worker for worker in self._workers for each in (worker.channel, worker.sentinel)}
        for ready in connection.wait(list(owners), TICK_S):
            yield owners[ready], ready  # type: ignore[index]

    def _receive(self, worker: ReplyingWorker) -> None:
        if not worker.receive() and self._selector is not None:
            self._selector.unregister(worker.channel)  # at its end, it would be ready for ever

    def _drop(self, worker: ReplyingWorker, sentinel: int) -> None:
        with self._lock:
            self._workers.discard(worker)
        if self._selector is not None:
            for each in (worker.channel, sentinel):
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(each)
        worker.close()
