"""The connection to one Dask scheduler: connect, follow who joins and leaves, run tasks on chosen workers, disconnect.

This is the only file that knows Dask. Everything but the constructor runs in the loop of the one who uses it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import os
import threading
import uuid
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pytest_membudget.errors import MissingExtraError, UsageError
from pytest_membudget.runtime.cluster.worker_side import UnknownExecutorError

CONNECT_S = 10.0
"""How long the scheduler may take to answer."""

CLOSE_S = 5.0
"""How long disconnecting may take."""


_CLOSE_BROKEN_S = 0.5  # the scheduler is gone


class Offer(NamedTuple):
    """What the scheduler knows about a worker."""

    memory_bytes: int  # of its resource `MEMORY`; 0 where it offers none
    has_nanny: bool


class DaskConnection:
    """A client of the cluster that the caller named: an address, a scheduler file, or a client whose cluster it is."""

    def __init__(self, cluster: Any) -> None:
        try:
            import distributed  # noqa: F401 - whether it is there
        except ImportError as error:
            raise MissingExtraError("the level 'dask'", "distributed", "dask") from error
        self._target = _target(cluster)
        self._client: Any = None
        self._numbers = itertools.count()
        self.token = uuid.uuid4().hex

    def __str__(self) -> str:
        return str(self._target.get("scheduler_file") or self._target.get("address"))

    @property
    def is_open(self) -> bool:
        """Whether it is connected."""
        return self._client is not None

    @property
    def is_broken(self) -> bool:
        """Whether the connection was lost."""
        return self._client is not None and self._client.status != "running"

    async def connect(self, on_change: Callable[[str, str], None]) -> None:
        """Connects; `on_change` is called with the scheduler's word for each change of a worker and its address.

        Raises:
            Exception: whatever the network, the scheduler, or a version of Dask that does not understand ours raised.
        """
        from distributed import Client

        async def handle(event: tuple[float, Any]) -> None:
            _, message = event
            if isinstance(message, dict) and str(message.get("action")).endswith("worker"):
                on_change(str(message["action"]), str(message.get("worker")))

        self._client = await Client(  # type: ignore[no-untyped-call]
            **self._target, asynchronous=True, timeout=CONNECT_S, set_as_default=False, name="membudget"
        )
        self._client.subscribe_topic("all", handle)

    async def disconnect(self) -> None:
        """Closes the connection; the scheduler may be gone already."""
        client, self._client = self._client, None
        if client is None:
            return
        timeout_s = CLOSE_S if client.status == "running" else _CLOSE_BROKEN_S
        with contextlib.suppress(Exception):
            client.unsubscribe_topic("all")
            await asyncio.wait_for(client.close(timeout=timeout_s), timeout_s)

    async def workers(self) -> dict[str, Offer] | None:
        """The present workers by address; `None` where the scheduler does not answer in time."""
        try:
            identity = await asyncio.wait_for(self._client.scheduler.identity(), CONNECT_S)
        except (TimeoutError, OSError):
            return None  # a slow link: the connection's own limit decides whether it is gone
        return {
            address: Offer(int((facts.get("resources") or {}).get("MEMORY", 0)), bool(facts.get("nanny")))
            for address, facts in identity["workers"].items()
        }

    async def run_on(self, address: str, memory_bytes: int, function: Callable[..., Any], *args: Any) -> Any:
        """Runs a task on that worker and no other, with that much of its `MEMORY` reserved; what it returned.

        Raises:
            concurrent.futures.CancelledError: the worker left, or the connection broke.
            Exception: whatever the task raised, or kept it from running.
        """
        future = self._client.submit(
            function,
            *args,
            workers=[address],
            allow_other_workers=False,
            resources={"MEMORY": memory_bytes},
            pure=False,
            retries=0,
            key=f"membudget-{self.token}-{next(self._numbers)}",
        )
        try:
            return await future
        finally:
            future.release()

    async def ask(
        self, addresses: Sequence[str], timeout_s: float, function: Callable[..., Any], *args: Any
    ) -> dict[str, Any]:
        """What `function` returns on each of those workers, beside their tasks; those that are gone are left out.

        Raises:
            Exception: no answer in time, or the connection broke.
        """
        asked = self._client.run(function, *args, workers=list(addresses), on_error="ignore")
        answers: dict[str, Any] = await asyncio.wait_for(asked, timeout_s)
        return answers

    async def restart(self, address: str) -> None:
        """Has a worker's nanny restart it; the nanny waits some seconds before it kills.

        Raises:
            Exception: it cannot be reached; it may have ended by itself.
        """
        await self._client.restart_workers([address], timeout=CONNECT_S, raise_for_error=False)


def is_loss(error: Exception) -> bool:
    """Whether a task failed because its worker ended or was restarted."""
    from distributed import KilledWorker

    return isinstance(error, KilledWorker | UnknownExecutorError)


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


T = TypeVar("T")


class LoopThread:
    """Runs coroutines until it is stopped."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread.start()

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Schedules `function` in the loop; does nothing once the thread has stopped."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    def wait_for(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None) -> T:
        """Runs `coroutine` in the loop and waits for its result; `TimeoutError` after `timeout_s`."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_s)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Starts `coroutine` as a task. Only called in the loop's thread."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def stop(self) -> None:
        """Cancels the tasks, ends the thread and waits for it."""
        self.call(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            for task in (left := asyncio.all_tasks(self._loop)):
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
