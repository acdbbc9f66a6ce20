"""A Dask cluster as a level: each of its worker processes that offers `MEMORY` is one worker of ours.

The executor decides what runs where and when, by its own estimates. Dask carries the calls, watches its workers and
restarts them: each message is a task pinned to one worker, which asks for its bytes of that worker's `MEMORY`, so
that other clients of the cluster are held off. `connection` speaks to the scheduler, `membership` says which workers can be used.

`HostPool` is for calls that need a host for themselves: where the executor fills every worker, it leaves the others of a host idle, so
that a call may start processes of its own and measure them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self

from pytest_membudget.records.run import HostUse
from pytest_membudget.runtime.cluster import worker_side
from pytest_membudget.runtime.cluster.connection import (
    CLOSE_S,
    CONNECT_S,
    DaskConnection,
    LoopThread,
    Offer,
    is_loss,
)
from pytest_membudget.runtime.cluster.membership import Membership, WorkerRegistry
from pytest_membudget.runtime.cluster.remote_worker import ENDING_S, RemoteWorker, Sent, is_gone
from pytest_membudget.runtime.workers.protocol import Call, CannotStartError, Died, NoWorkerYetError, Reply

_WATCH_S = 0.2
_REFRESH_S = 2.0
_ASK_AFTER_S = 0.5
_ASK_S_PER_WORKER = 0.005

_UNRESPONSIVE_S = 2.0
"""A worker whose loop does not end it within this time, since a call keeps it from running, is left to its nanny."""

_ATTEMPTS = 2
_POLL_S = 0.2
_STOP_S = 10.0


class DaskLauncher:
    """Hands out the workers of one Dask cluster. Connects when the first worker is asked for."""

    def __init__(
        self,
        cluster: Any,
        *,
        report: Callable[[str, str], None],
        budget_bytes: int | None = None,
        sent_bytes: int = 0,
        start_timeout_s: float | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        self._connection = DaskConnection(cluster)
        self._budget_bytes = budget_bytes
        self._sent_bytes = sent_bytes
        self._registry = WorkerRegistry()
        self._membership = Membership(
            self._connection,
            self._registry,
            make_worker=self._remote_worker,
            report=report,
            initializer=initializer,
            initargs=initargs,
            start_timeout_s=start_timeout_s,
        )
        self._loop: LoopThread | None = None
        self._lost = ""
        self._changed = asyncio.Event()

    def start(self) -> RemoteWorker:
        """A worker that is not taken yet.

        Raises:
            NoWorkerYetError: all that there are now are taken.
            CannotStartError: no scheduler, no worker that can be used, or the scheduler is gone.
        """
        if self._loop is None and not self._lost:
            self._connect()
        if self._lost:
            raise CannotStartError(self._lost)
        worker = self._registry.take()
        if worker is not None:
            return worker
        if why := self._membership.why_no_worker():
            raise CannotStartError(why)
        raise NoWorkerYetError

    def close(self) -> None:
        """Disconnects; the cluster's workers stay."""
        if self._loop is not None:
            with contextlib.suppress(TimeoutError, OSError, asyncio.CancelledError):
                self._loop.wait_for(self._leave(), 2 * CLOSE_S)
            self._loop.stop()
            self._lost = self._lost or "the executor has left the cluster"
            self._loop = None

    def hosts(self) -> tuple[HostUse, ...]:
        """What was used of each host since the executor started."""
        return self._registry.hosts()

    def share_bytes(self, host: str) -> int | None:
        """A worker's share of the executor's own budget, which holds for each host; `None` without one."""
        return None if self._budget_bytes is None else self._budget_bytes // self._registry.workers_on(host)

    def post(self, worker: RemoteWorker, message: list[Sent]) -> None:
        """Sends calls."""
        if self._loop is None:
            worker.refuse(message, RuntimeError("the executor has left the cluster"))
        else:
            self._loop.call(self._begin, worker, message)

    def end(self, worker: RemoteWorker) -> None:
        """Ends a worker's process."""
        if (loop := self._loop) is not None:
            loop.call(lambda: loop.spawn(self._end(worker)))

    def ask(self, workers: Sequence[RemoteWorker], function: Callable[..., Any], *args: Any) -> None:
        """Calls `function` in those workers' processes, beside what they run, and waits for that.

        Raises:
            Exception: no answer in time, or the connection broke.
        """
        if self._loop is not None and workers:
            asked = self._connection.ask([worker.address for worker in workers], CLOSE_S, function, *args)
            self._loop.wait_for(asked, 2 * CLOSE_S)

    def _connect(self) -> None:
        self._loop = LoopThread("membudget-dask")
        try:
            self._loop.wait_for(self._open(), 2 * CONNECT_S + CLOSE_S)
        except Exception as error:
            # The network, the scheduler, or a version of Dask that does not understand ours.
            self._loop.stop()
            self._loop = None
            self._lost = f"no Dask scheduler answers at {self._connection}: {type(error).__name__}: {error}"

    # What follows runs in the loop.

    def _remote_worker(self, address: str, who: worker_side.Hello, offer: Offer) -> RemoteWorker:
        return RemoteWorker(
            self, address, who, offer.memory_bytes, self._sent_bytes, has_nanny=offer.has_nanny
        )

    async def _open(self) -> None:
        assert self._loop is not None
        await self._connection.connect(self._on_change)
        await self._membership.open()
        self._loop.spawn(self._watch())

    async def _leave(self) -> None:
        self._membership.close()
        if not self._connection.is_broken and (addresses := list(self._registry.present)):
            with contextlib.suppress(Exception):  # a courtesy to workers that may be gone
                await self._connection.ask(addresses, CLOSE_S, worker_side.leave, self._connection.token)
        await self._connection.disconnect()

    def _on_change(self, action: str, address: str) -> None:
        if action == "remove-worker":
            self._membership.remove(address)
        self._changed.set()

    async def _watch(self) -> None:
        """Follows changes in the cluster until the scheduler is gone."""
        refreshed_s = asked_s = time.monotonic()
        while self._connection.is_open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _WATCH_S)
            if self._connection.is_broken:
                self._lost = f"the Dask scheduler at {self._connection} is gone: the connection was lost"
                self._membership.remove_all(self._lost)
                return
            now_s = time.monotonic()
            if self._connection.is_open and (self._changed.is_set() or now_s - refreshed_s > _REFRESH_S):
                self._changed.clear()
                refreshed_s = now_s
                await self._membership.refresh()
            if now_s - asked_s > max(_ASK_AFTER_S, _ASK_S_PER_WORKER * len(self._registry.present)):
                asked_s = now_s
                await self._ask_progress()

    def _begin(self, worker: RemoteWorker, message: list[Sent]) -> None:
        if worker.expect(message) and self._loop is not None:
            self._loop.spawn(self._carry(worker, message))

    async def _carry(self, worker: RemoteWorker, message: list[Sent]) -> None:
        """Sends calls and handles their reports. Calls that the worker did not get to are sent again."""
        while message and not worker.is_gone:
            charged_bytes = max(sent.charged_bytes for sent in message) + worker.who.base_bytes
            try:
                reports = await self._connection.run_on(
                    worker.address,
                    min(charged_bytes, worker.offered_bytes),
                    worker_side.perform_together,
                    self._connection.token,
                    [sent.order for sent in message],
                )
            except concurrent.futures.CancelledError:
                await self._cancelled(worker)
                return
            except Exception as error:
                if is_loss(error):
                    self._membership.remove(worker.address)
                    worker.gone(f"{worker} was killed or lost")
                else:
                    worker.refuse(message, error)
                return
            for sequence, report in reports:
                worker.answer(sequence, report)
            message = message[len(reports) :]

    async def _cancelled(self, worker: RemoteWorker) -> None:
        """Waits until `_watch` finds out whether the connection or the worker is gone."""
        while not worker.is_gone and self._connection.is_open:
            self._changed.set()
            await asyncio.sleep(_WATCH_S)

    async def _ask_progress(self) -> None:
        """Asks workers that have been busy for a while for their progress."""
        now_s = time.monotonic()
        busy = [
            worker.address
            for worker in self._registry.present.values()
            if worker.pending and now_s - worker.head_since_s > _ASK_AFTER_S
        ]
        if not busy:
            return
        try:
            answers = await self._connection.ask(
                busy, CONNECT_S, worker_side.progress, self._connection.token
            )
        except Exception:  # one that does not answer is taken for busy
            return
        for address, seen in answers.items():
            if seen is not None and (worker := self._registry.present.get(address)) is not None:
                worker.update(worker_side.Progress(*seen))

    async def _end(self, worker: RemoteWorker) -> None:
        if self._connection.is_open and not worker.is_gone:
            with contextlib.suppress(Exception):  # it may be gone by itself; we wait for that below
                await self._connection.ask([worker.address], CLOSE_S, worker_side.end_process)
            if not await is_gone(worker, _UNRESPONSIVE_S) and worker.has_nanny:
                with contextlib.suppress(Exception):  # likewise
                    await self._connection.restart(worker.address)
        await is_gone(worker, ENDING_S)
        worker.gone(f"{worker} was ended")
        self._membership.remove(worker.address)


class Answered(NamedTuple):
    """What came of one item, and on which host."""

    item: Any
    host: str
    reply: Reply


class _Sent(NamedTuple):
    item: Any
    worker: RemoteWorker
    attempt: int


class HostPool:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def spread(self, fn: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Answered]:
        """Calls `fn(item)` on the next host that is free, and yields what comes of each as soon as it is known.

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
        with contextlib.suppress(Exception):  # a worker that cannot be reached cannot be stopped either
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
