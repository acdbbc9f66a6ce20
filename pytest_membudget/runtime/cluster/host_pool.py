"""Calls that need a host of a cluster for themselves: one at a time on each host.

Where the executor fills every worker, this leaves the others of a host idle, so that a call may start processes of its
own and measure them.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pytest_membudget.runtime.closing import Closing
from pytest_membudget.runtime.cluster.launcher import DaskLauncher
from pytest_membudget.runtime.cluster.remote_worker import RemoteWorker
from pytest_membudget.runtime.workers.protocol import Call, Died, NoWorkerYetError, Reply

_ATTEMPTS = 2
_POLL_S = 0.2
_STOP_S = 10.0


class Answered(NamedTuple):
    """What came of one item, and on which host."""

    item: Any
    host: str
    reply: Reply


class _Sent(NamedTuple):
    item: Any
    worker: RemoteWorker
    attempt: int


class HostPool(Closing):
    """The hosts of a Dask cluster, for as long as the `with` block lasts.

    Args:
        cluster: the scheduler's address, a scheduler file or a `distributed.Client`.
        report: gets each reason why a worker is not used, and what happens instead.
    """

    def __init__(self, cluster: Any, report: Callable[[str, str], None]) -> None:
        self._launcher = DaskLauncher(cluster, report=report)
        self._workers: list[RemoteWorker] = []
        self._sent: dict[int, _Sent] = {}
        self._replies: queue.SimpleQueue[tuple[int, Reply]] = queue.SimpleQueue()
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """Leaves the cluster."""
        self._launcher.close()

    def spread(self, fn: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Answered]:
        """Calls `fn(item)` on whichever host is free, and yields what comes of each as soon as it is known.

        Items are drawn when a host is free for them. One whose worker is lost is sent once more.

        Raises:
            CannotStartError: the cluster cannot be used, or not any more.
        """
        waiting: deque[tuple[Any, int]] = deque()  # drawn or given back: an item and how often it was tried

        def draw() -> bool:
            if not waiting:
                waiting.extend((item, 0) for item in itertools.islice(items, 1))
            return bool(waiting)

        while True:
            self._add_workers()
            for worker in self._idle():
                if draw():
                    item, attempts = waiting.popleft()
                    self._send(fn, _Sent(item, worker, attempts + 1))
            if not self._sent and not draw():
                return
            for sent, reply in self._replies_soon():
                if isinstance(reply, Died) and sent.attempt < _ATTEMPTS:
                    waiting.append((sent.item, sent.attempt))
                else:
                    yield Answered(sent.item, sent.worker.host, reply)

    def cancel(self, stop: Callable[[str], object], token: str) -> None:
        """Calls `stop(token)` beside what runs on each worker, and waits a while for its end."""
        with contextlib.suppress(Exception):  # who cannot be reached any more cannot be stopped either
            self._launcher.ask([sent.worker for sent in self._sent.values()], stop, token)
        for _ in range(round(_STOP_S / _POLL_S)):
            if not self._sent:
                return
            list(self._replies_soon())

    def _add_workers(self) -> None:
        with contextlib.suppress(NoWorkerYetError):
            while True:
                self._workers.append(self._launcher.start())
        self._workers = [worker for worker in self._workers if not worker.is_gone]

    def _idle(self) -> list[RemoteWorker]:
        """The largest worker of each host where nothing of ours runs."""
        busy = {sent.worker.host for sent in self._sent.values()}
        by_size = sorted(self._workers, key=lambda worker: worker.capacity_bytes)
        return list({worker.host: worker for worker in by_size if worker.host not in busy}.values())

    def _send(self, fn: Callable[[Any], Any], sent: _Sent) -> None:
        number = next(self._numbers)
        self._sent[number] = sent
        call = Call(number, fn, (sent.item,), {}, charged_bytes=sent.worker.capacity_bytes)
        sent.worker.send([(call, lambda reply: self._replies.put((number, reply)))])

    def _replies_soon(self) -> Iterator[tuple[_Sent, Reply]]:
        """The next reply, where one comes within `_POLL_S`."""
        with contextlib.suppress(queue.Empty):
            number, reply = self._replies.get(timeout=_POLL_S)
            yield self._sent.pop(number), reply
