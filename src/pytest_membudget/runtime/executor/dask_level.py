"""A Dask cluster: each of its worker processes that offers `MEMORY` is lent to us as one worker.

The executor decides what runs where and when, by its own estimates. Dask carries the calls, watches its workers and
starts them anew: each message is a task pinned to one worker, which asks for its bytes of that worker's `MEMORY`, so
that other clients of the cluster are held off. This is the only file that knows Dask.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_membudget.errors import MissingExtraError, UsageError
from pytest_membudget.records.run import HostUse, Level
from pytest_membudget.runtime.executor import cluster_side
from pytest_membudget.runtime.executor.launcher import CannotStartError, NoWorkerYetError
from pytest_membudget.runtime.executor.lent_worker import LentWorker, Sent, ended
from pytest_membudget.runtime.executor.loop_thread import LoopThread
from pytest_membudget.runtime.executor.roster import Roster

CONNECT_S = 10.0
"""How long the scheduler may take to answer."""

JOIN_S = 30.0
"""How long a cluster may be without any worker that can be used."""

START_WITH = "membudget dask-worker SCHEDULER"

_WATCH_S = 0.2
_REFRESH_S = 2.0
_LOOK_AFTER_S = 0.5
_LOOK_S_PER_WORKER = 0.005
_CLOSE_S = 5.0


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
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        try:
            import cloudpickle
            import distributed  # noqa: F401 - whether it is there
        except ImportError as error:
            raise MissingExtraError("the level 'dask'", "distributed", "dask") from error
        self._target = _target(cluster)
        self._tell = tell
        self._budget_bytes = budget_bytes
        self._sent_bytes = sent_bytes
        self._packed_initializer: bytes = cloudpickle.dumps((initializer, initargs))
        self._token = uuid.uuid4().hex
        self._numbers = itertools.count()
        self._loop: LoopThread | None = None
        self._client: Any = None
        self._lost = ""
        self._roster = Roster()
        self._refused: dict[str, str] = {}
        self._meeting: set[str] = set()
        self._meetings: set[asyncio.Task[None]] = set()
        self._without_since_s = time.monotonic()
        self._changed: asyncio.Event = asyncio.Event()

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
        if not self._roster.present and not self._meeting:
            self._check_waiting()
        raise NoWorkerYetError

    def close(self) -> None:
        """Leaves the cluster; its workers stay."""
        if self._loop is not None:
            with contextlib.suppress(TimeoutError, OSError, asyncio.CancelledError):
                self._loop.wait_for(self._leave(), 2 * _CLOSE_S)
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

    def _connect(self) -> None:
        self._loop = LoopThread("membudget-dask")
        try:
            self._loop.wait_for(self._arrive(), 2 * CONNECT_S + _CLOSE_S)
        except (
            Exception
        ) as error:  # the network, the scheduler or a version of Dask that does not understand ours
            self._loop.stop()
            self._loop = None
            self._lost = f"no Dask scheduler answers at {self._shown}: {type(error).__name__}: {error}"

    def _check_waiting(self) -> None:
        """Says why no worker can be used, where that will not change by itself."""
        if self._refused:
            raise CannotStartError("; ".join(sorted(set(self._refused.values()))))
        if time.monotonic() - self._without_since_s > JOIN_S:
            raise CannotStartError(
                f"no worker joined the cluster at {self._shown} within {JOIN_S:g} s; start some with: {START_WITH}"
            )

    @property
    def _shown(self) -> str:
        return str(self._target.get("scheduler_file") or self._target.get("address"))

    # What follows runs in the loop.

    async def _arrive(self) -> None:
        from distributed import Client

        assert self._loop is not None
        self._client = await Client(  # type: ignore[no-untyped-call]
            **self._target, asynchronous=True, timeout=CONNECT_S, set_as_default=False, name="membudget"
        )
        self._client.subscribe_topic("all", self._note)
        await self._refresh()
        if (
            self._meetings
        ):  # who is there already is known before the first task is judged by the largest of them
            await asyncio.wait(self._meetings, timeout=CONNECT_S)
        self._without_since_s = time.monotonic()
        self._loop.spawn(self._watch())

    async def _leave(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        if client.status == "running" and (addresses := list(self._roster.present)):
            with contextlib.suppress(Exception):  # a courtesy to workers that may be gone
                await asyncio.wait_for(
                    client.run(cluster_side.part, self._token, workers=addresses, on_error="ignore"), _CLOSE_S
                )
        with contextlib.suppress(Exception):  # the scheduler may be gone as well
            client.unsubscribe_topic("all")
            await asyncio.wait_for(client.close(timeout=_CLOSE_S), _CLOSE_S)

    async def _note(self, event: tuple[float, Any]) -> None:
        """The scheduler tells of workers that come and go."""
        _, message = event
        if not isinstance(message, dict):
            return
        if message.get("action") == "remove-worker":
            self._remove(str(message.get("worker")))
        if str(message.get("action")).endswith("worker"):
            self._changed.set()

    async def _watch(self) -> None:
        """Looks for changes in the cluster until the scheduler is gone."""
        refreshed_s = looked_s = time.monotonic()
        while self._client is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _WATCH_S)
            if self._client is None:
                return
            if self._client.status != "running":
                self._lose(f"the Dask scheduler at {self._shown} is gone: the connection was lost")
                return
            now_s = time.monotonic()
            if self._changed.is_set() or now_s - refreshed_s > _REFRESH_S:
                self._changed.clear()
                refreshed_s = now_s
                await self._refresh()
            if now_s - looked_s > max(_LOOK_AFTER_S, _LOOK_S_PER_WORKER * len(self._roster.present)):
                looked_s = now_s
                await self._look()

    async def _refresh(self) -> None:
        """Meets workers that are new and parts with those that are gone."""
        try:
            identity = await asyncio.wait_for(self._client.scheduler.identity(), CONNECT_S)
        except (TimeoutError, OSError):
            return  # a slow link: the connection's own limit decides whether it is gone
        present = identity["workers"]
        for address in set(self._roster.present) - set(present):
            self._remove(address)
        for address in set(self._refused) - set(present):
            del self._refused[address]
        known = {*self._roster.present, *self._refused, *self._meeting}
        for address, facts in present.items():
            if address not in known:
                self._meeting.add(address)
                assert self._loop is not None
                meeting = self._loop.spawn(self._meet(address, facts))
                self._meetings.add(meeting)
                meeting.add_done_callback(self._meetings.discard)

    async def _meet(self, address: str, facts: dict[str, Any]) -> None:
        """Takes a worker in, or says why it cannot be used."""
        offered_bytes = int((facts.get("resources") or {}).get("MEMORY", 0))
        try:
            if not offered_bytes:
                self._refuse(
                    address,
                    f"worker {address} offers no MEMORY; start it with: {START_WITH.replace('SCHEDULER', self._shown)}",
                )
                return
            future = self._submit(address, 1, cluster_side.introduce, self._token, self._packed_initializer)
            try:
                who = cluster_side.Introduction(*await future)
            finally:
                future.release()
            if different := _differences(who):
                self._refuse(
                    address, f"worker {address} on host {who.host} differs from this client: {different}"
                )
                return
            worker = LentWorker(
                self, address, who, offered_bytes, self._sent_bytes, has_nanny=bool(facts.get("nanny"))
            )
            self._roster.add(worker)
        except concurrent.futures.CancelledError:
            pass  # it left meanwhile, or the scheduler did
        except Exception as error:  # whatever keeps our own code from running there
            self._refuse(
                address,
                f"worker {address} cannot run this package: {type(error).__name__}: {error}; "
                "install the same pytest-membudget there, with its extra dask",
            )
        finally:
            self._meeting.discard(address)
            if not self._roster.present:
                self._without_since_s = time.monotonic()

    def _refuse(self, address: str, why: str) -> None:
        self._refused[address] = why
        self._tell(why, "it is not used")

    def _remove(self, address: str) -> None:
        """The scheduler has lost a worker."""
        worker = self._roster.remove(address)
        if worker is None:
            return
        if not self._roster.present:
            self._without_since_s = time.monotonic()
        worker.gone(f"{worker} was killed or lost")

    def _lose(self, cause: str) -> None:
        """The scheduler is gone, and with it every worker: what they ran was not its own fault."""
        self._lost = cause
        for address, worker in list(self._roster.present.items()):
            self._roster.remove(address)
            worker.gone(cause, blameless=True)

    def _begin(self, worker: LentWorker, message: list[Sent]) -> None:
        if worker.expect(message) and self._loop is not None:
            self._loop.spawn(self._carry(worker, message))

    async def _carry(self, worker: LentWorker, message: list[Sent]) -> None:
        """Sends calls and takes in what comes of them. What a worker did not get to is sent once more."""
        while message and not worker.is_gone:
            charged_bytes = max(sent.charged_bytes for sent in message) + worker.who.base_bytes
            future = self._submit(
                worker.address,
                min(charged_bytes, worker.offered_bytes),
                cluster_side.perform_together,
                self._token,
                [sent.order for sent in message],
            )
            try:
                reports = await future
            except concurrent.futures.CancelledError:
                await self._cancelled(worker)
                return
            except Exception as error:
                if not _tells_of_a_loss(error):
                    worker.refuse(message, error)
                    return
                worker.gone(f"{worker} was killed or lost")
                self._remove(worker.address)
                return
            finally:
                future.release()
            for sequence, report in reports:
                worker.answer(sequence, report)
            message = message[len(reports) :]

    async def _cancelled(self, worker: LentWorker) -> None:
        """The connection broke, or the worker is gone; which, the watch will tell."""
        while not worker.is_gone and self._client is not None:
            self._changed.set()
            await asyncio.sleep(_WATCH_S)

    def _submit(self, address: str, memory_bytes: int, function: Callable[..., Any], *args: Any) -> Any:
        return self._client.submit(
            function,
            *args,
            workers=[address],
            allow_other_workers=False,
            resources={"MEMORY": memory_bytes},
            pure=False,
            retries=0,
            key=f"membudget-{self._token}-{next(self._numbers)}",
        )

    async def _look(self) -> None:
        """Asks the workers that have been busy for a while what they are at."""
        now_s = time.monotonic()
        busy = [
            worker
            for worker in self._roster.present.values()
            if worker.pending and now_s - worker.head_since_s > _LOOK_AFTER_S
        ]
        if not busy:
            return
        addresses = [worker.address for worker in busy]
        try:
            answers = await asyncio.wait_for(
                self._client.run(cluster_side.look, self._token, workers=addresses, on_error="ignore"),
                CONNECT_S,
            )
        except Exception:  # one that does not answer is taken for busy
            return
        for address, seen in answers.items():
            if seen is not None and (worker := self._roster.present.get(address)) is not None:
                worker.take_in(cluster_side.Look(*seen))

    async def _end(self, worker: LentWorker) -> None:
        if self._client is not None and not worker.is_gone:
            with contextlib.suppress(Exception):  # it may be gone by itself; we wait for that below
                if worker.has_nanny:
                    await self._client.restart_workers(
                        [worker.address], timeout=CONNECT_S, raise_for_error=False
                    )
                else:
                    await self._client.run(os._exit, 1, workers=[worker.address], wait=False)
        await ended(worker)
        self._remove(worker.address)


def _target(cluster: Any) -> dict[str, Any]:
    """How to reach the cluster that the caller named."""
    scheduler = getattr(cluster, "scheduler", None)
    if scheduler is not None and getattr(scheduler, "address", None):  # a Client
        return {"address": scheduler.address, "security": getattr(cluster, "security", None)}
    if isinstance(cluster, os.PathLike) or (isinstance(cluster, str) and Path(cluster).is_file()):
        return {"scheduler_file": os.fspath(cluster)}
    if isinstance(cluster, str) and cluster:
        return {"address": cluster}
    raise UsageError(
        f"dask is {cluster!r}; give the scheduler's address, a scheduler file or a distributed.Client"
    )


def _differences(who: cluster_side.Introduction) -> str:
    """What would keep calls from travelling between this client and that worker."""
    there = dict(who.versions)
    return ", ".join(
        f"{name} is {there.get(name, 'missing')} there and {version} here"
        for name, version in cluster_side.versions()
        if there.get(name) != version
    )


def _tells_of_a_loss(error: Exception) -> bool:
    """Whether a task failed because its worker ended or began anew, not by itself."""
    from distributed import KilledWorker

    return isinstance(error, KilledWorker | cluster_side.UnknownExecutorError)
