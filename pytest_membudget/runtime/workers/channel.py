"""Messages between the coordinator and one worker, over a connection of `multiprocessing`.

A message is a tuple whose last item is bytes. Small ones are one frame; large bytes follow in a frame of their own, so
that they are not copied to be packed. The worker's end blocks, the coordinator's never does.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

_SEPARATE_BYTES = 64 * 1024
"""Larger contents travel as a message of their own: they are not copied once more to be packed."""

_LENGTH = struct.Struct("!i")
"""What stands before each frame of less than 2 GiB, as in `multiprocessing.connection`."""

_READ_BYTES = 1 << 20

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
