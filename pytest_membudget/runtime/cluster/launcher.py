"""A Dask cluster: each of its worker processes that offers `MEMORY` is lent to us as one worker.

The executor decides what runs where and when, by its own estimates. Dask carries the calls, watches its workers and
starts them anew: each message is a task pinned to one worker, which asks for its bytes of that worker's `MEMORY`, so
that other clients of the cluster are held off. `dask_link` holds the conversation, `dask_reception` meets the workers.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from pytest_membudget.records.run import HostUse, Level
from pytest_membudget.runtime.cluster import worker_side as cluster_side
from pytest_membudget.runtime.cluster.connection import (
    CLOSE_S,
    CONNECT_S,
    DaskLink,
    LoopThread,
    Offer,
    tells_of_a_loss,
)
from pytest_membudget.runtime.cluster.membership import Reception, Roster
from pytest_membudget.runtime.cluster.remote_worker import ENDING_S, LentWorker, Sent, is_gone
from pytest_membudget.runtime.workers.protocol import CannotStartError, NoWorkerYetError

_WATCH_S = 0.2
_REFRESH_S = 2.0
_LOOK_AFTER_S = 0.5
_LOOK_S_PER_WORKER = 0.005

_DEAF_S = 2.0
"""A worker whose loop does not end it within this time, since a call keeps it from running, is left to its nanny."""


class DaskLauncher:
    """Lends the workers of one Dask cluster. Connects when the first worker is asked for."""

    level: Level = "dask"
    own_memory = True

    def __init__(
        self,
        cluster: Any,
        *,
        tell: Callable[[str, str], None],
        budget_bytes: int | None = None,
        sent_bytes: int = 0,
        start_timeout_s: float | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        self._link = DaskLink(cluster)
        self._budget_bytes = budget_bytes
        self._sent_bytes = sent_bytes
        self._roster = Roster()
        self._reception = Reception(
            self._link,
            self._roster,
            lend=self._lend,
            tell=tell,
            initializer=initializer,
            initargs=initargs,
            start_timeout_s=start_timeout_s,
        )
        self._loop: LoopThread | None = None
        self._lost = ""
        self._changed = asyncio.Event()

    def start(self) -> LentWorker:
        """A worker that is not taken yet.

        Raises:
            NoWorkerYetError: all that there are now are taken.
            CannotStartError: no scheduler, no worker that can be used, or the scheduler is gone.
        """
        if self._loop is None and not self._lost:
            self._connect()
        if self._lost:
            raise CannotStartError(self._lost)
        worker = self._roster.take()
        if worker is not None:
            return worker
        if why := self._reception.why_nobody():
            raise CannotStartError(why)
        raise NoWorkerYetError

    def close(self) -> None:
        """Leaves the cluster; its workers stay."""
        if self._loop is not None:
            with contextlib.suppress(TimeoutError, OSError, asyncio.CancelledError):
                self._loop.wait_for(self._leave(), 2 * CLOSE_S)
            self._loop.stop()
            self._lost = self._lost or "the executor has left the cluster"
            self._loop = None

    def hosts(self) -> tuple[HostUse, ...]:
        """What was used of each host since the executor began."""
        return self._roster.hosts()

    def share_bytes(self, host: str) -> int | None:
        """The executor's own budget holds for each host: its workers there share it."""
        return None if self._budget_bytes is None else self._budget_bytes // self._roster.workers_on(host)

    def post(self, worker: LentWorker, message: list[Sent]) -> None:
        """Sends calls."""
        if self._loop is None:
            worker.refuse(message, RuntimeError("the executor has left the cluster"))
        else:
            self._loop.call(self._begin, worker, message)

    def end(self, worker: LentWorker) -> None:
        """Has a worker's process ended."""
        if (loop := self._loop) is not None:
            loop.call(lambda: loop.spawn(self._end(worker)))

    def ask(self, workers: Sequence[LentWorker], function: Callable[..., Any], *args: Any) -> None:
        """Has `function` called in those workers' processes, beside what they run, and waits for that.

        Raises:
            Exception: no answer in time, or the connection broke.
        """
        if self._loop is not None and workers:
            asked = self._link.ask([worker.address for worker in workers], CLOSE_S, function, *args)
            self._loop.wait_for(asked, 2 * CLOSE_S)

    def _connect(self) -> None:
        self._loop = LoopThread("membudget-dask")
        try:
            self._loop.wait_for(self._arrive(), 2 * CONNECT_S + CLOSE_S)
        except Exception as error:
            # The network, the scheduler, or a version of Dask that does not understand ours.
            self._loop.stop()
            self._loop = None
            self._lost = f"no Dask scheduler answers at {self._link}: {type(error).__name__}: {error}"

    # What follows runs in the loop.

    def _lend(self, address: str, who: cluster_side.Introduction, offer: Offer) -> LentWorker:
        return LentWorker(self, address, who, offer.memory_bytes, self._sent_bytes, has_nanny=offer.has_nanny)

    async def _arrive(self) -> None:
        assert self._loop is not None
        await self._link.arrive(self._hear)
        await self._reception.open()
        self._loop.spawn(self._watch())

    async def _leave(self) -> None:
        self._reception.close()
        if not self._link.is_broken and (addresses := list(self._roster.present)):
            with contextlib.suppress(Exception):  # a courtesy to workers that may be gone
                await self._link.ask(addresses, CLOSE_S, cluster_side.part, self._link.token)
        await self._link.leave()

    def _hear(self, action: str, address: str) -> None:
        if action == "remove-worker":
            self._reception.part_with(address)
        self._changed.set()

    async def _watch(self) -> None:
        """Looks for changes in the cluster until the scheduler is gone."""
        refreshed_s = looked_s = time.monotonic()
        while self._link.is_open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _WATCH_S)
            if self._link.is_broken:
                self._lost = f"the Dask scheduler at {self._link} is gone: the connection was lost"
                self._reception.part_with_all(self._lost)
                return
            now_s = time.monotonic()
            if self._link.is_open and (self._changed.is_set() or now_s - refreshed_s > _REFRESH_S):
                self._changed.clear()
                refreshed_s = now_s
                await self._reception.look_around()
            if now_s - looked_s > max(_LOOK_AFTER_S, _LOOK_S_PER_WORKER * len(self._roster.present)):
                looked_s = now_s
                await self._look()

    def _begin(self, worker: LentWorker, message: list[Sent]) -> None:
        if worker.expect(message) and self._loop is not None:
            self._loop.spawn(self._carry(worker, message))

    async def _carry(self, worker: LentWorker, message: list[Sent]) -> None:
        """Sends calls and takes in what comes of them. What a worker did not get to is sent once more."""
        while message and not worker.is_gone:
            charged_bytes = max(sent.charged_bytes for sent in message) + worker.who.base_bytes
            try:
                reports = await self._link.hand(
                    worker.address,
                    min(charged_bytes, worker.offered_bytes),
                    cluster_side.perform_together,
                    self._link.token,
                    [sent.order for sent in message],
                )
            except concurrent.futures.CancelledError:
                await self._cancelled(worker)
                return
            except Exception as error:
                if tells_of_a_loss(error):
                    self._reception.part_with(worker.address)
                    worker.gone(f"{worker} was killed or lost")
                else:
                    worker.refuse(message, error)
                return
            for sequence, report in reports:
                worker.answer(sequence, report)
            message = message[len(reports) :]

    async def _cancelled(self, worker: LentWorker) -> None:
        """The connection broke, or the worker is gone; which, the watch will tell."""
        while not worker.is_gone and self._link.is_open:
            self._changed.set()
            await asyncio.sleep(_WATCH_S)

    async def _look(self) -> None:
        """Asks the workers that have been busy for a while what they are at."""
        now_s = time.monotonic()
        busy = [
            worker.address
            for worker in self._roster.present.values()
            if worker.pending and now_s - worker.head_since_s > _LOOK_AFTER_S
        ]
        if not busy:
            return
        try:
            answers = await self._link.ask(busy, CONNECT_S, cluster_side.look, self._link.token)
        except Exception:  # one that does not answer is taken for busy
            return
        for address, seen in answers.items():
            if seen is not None and (worker := self._roster.present.get(address)) is not None:
                worker.take_in(cluster_side.Look(*seen))

    async def _end(self, worker: LentWorker) -> None:
        if self._link.is_open and not worker.is_gone:
            with contextlib.suppress(Exception):  # it may be gone by itself; we wait for that below
                await self._link.ask([worker.address], CLOSE_S, cluster_side.end_process)
            if not await is_gone(worker, _DEAF_S) and worker.has_nanny:
                with contextlib.suppress(Exception):  # likewise
                    await self._link.restart(worker.address)
        await is_gone(worker, ENDING_S)
        worker.gone(f"{worker} was ended")
        self._reception.part_with(worker.address)
