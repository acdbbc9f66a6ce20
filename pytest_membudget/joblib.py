"""joblib and scikit-learn within a memory budget; importing this registers the backend.

```python
import joblib
import pytest_membudget.joblib

with joblib.parallel_config("membudget", budget="8 GB", n_jobs=-1):
    GridSearchCV(model, grid).fit(X, y)
```

1. joblib makes batches of calls and hands each to `MembudgetBackend.submit`.
2. A batch is pickled as loky does it: functions by cloudpickle, large arrays as files that workers map.
3. `FallbackExecutor` runs it in a worker process when the largest batch so far would fit the budget beside what runs.

Workers stay from one call of `Parallel` to the next while the settings are the same.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import pickle
import tempfile
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from pytest_membudget.errors import MissingExtraError, UsageError, size_of
from pytest_membudget.runtime.executor.executor import FallbackExecutor
from pytest_membudget.runtime.executor.policy import ExecutorPolicy, limit_of
from pytest_membudget.runtime.workers.serialization import PacksAnswer, by_name
from pytest_membudget.units import Size

try:
    from joblib import cpu_count, register_parallel_backend
    from joblib._memmapping_reducer import TemporaryResourcesManager, get_memmapping_reducers
    from joblib._parallel_backends import (
        AutoBatchingMixin,
        FallbackToBackend,
        ParallelBackendBase,
        SequentialBackend,
    )
    from joblib.externals.loky.backend import resource_tracker
    from joblib.externals.loky.backend.reduction import dumps
    from joblib.parallel import BatchedCalls
except ImportError as missing:
    raise MissingExtraError("the joblib backend", "joblib 1.4 or newer", "joblib") from missing

NAME = "membudget"

_POLICY = ExecutorPolicy(small_batch=0, timeout_s=None)


class MembudgetBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """joblib's backend on a `FallbackExecutor`.

    Args:
        budget: what all workers together may take, such as "8 GB"; without one what is really available, read again as it
            changes.
        memory: what a batch of calls takes, such as "300 MB"; without it the largest peak that one took so far.
        limit: the most that a batch may take before it is ended with all that it started: a size, or as a `float` a
            factor of what it is charged.
        policy: the executor's rules.
        max_nbytes: arrays of this size and more are written to a file once and mapped by workers; `None` for none.
        temp_folder: where those files go; JOBLIB_TEMP_FOLDER or the system's folder for temporary files by default, not
            shared memory, which would be outside the budget.
        mmap_mode: how workers see them; "r" is read-only.
        nesting_level, inner_max_num_threads: set by joblib.

    Raises:
        UsageError: an argument makes no sense, or is not one of these.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    supports_return_generator = True
    supports_timeout = True

    def __init__(
        self,
        budget: Size | None = None,
        *,
        memory: Size | None = None,
        limit: Size | float | None = None,
        policy: ExecutorPolicy = _POLICY,
        max_nbytes: int | str | None = "1M",
        temp_folder: str | os.PathLike[str] | None = None,
        mmap_mode: str = "r",
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **unknown: Any,
    ) -> None:
        _refuse(unknown)
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._settings = _Settings(budget, memory, limit, policy).checked()
        self._of_call = self._settings
        self._arguments: dict[str, Any] = {}
        self._files = _ArrayFiles(max_nbytes, temp_folder, mmap_mode)
        self._executor: FallbackExecutor | None = None
        self._submitted = 0

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Workers that `n_jobs` asks for, as everywhere in joblib; how many run at once is the budget's decision."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or multiprocessing.current_process().daemon:
            return 1
        return n_jobs if n_jobs > 0 else max(1, int(cpu_count()) + 1 + n_jobs)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        **arguments: Any,
    ) -> int:
        """Gets workers ready for one call of `Parallel`, which hands its own arguments on, and returns their number.

        Raises:
            UsageError: an argument makes no sense, or is neither joblib's nor this backend's.
        """
        _refuse(arguments.keys() - _OF_JOBLIB - {*_Settings._fields})
        given = {name: arguments[name] for name in _Settings._fields if name in arguments}
        self._of_call = self._settings._replace(**given).checked()
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel, self._arguments, self._submitted = parallel, arguments, 0
        self._files.open(parallel._id, arguments)  # noqa: SLF001 - as joblib's own backends do
        threads = self._prepare_worker_env(n_jobs=n_jobs)
        self._executor = _reused(
            _Key(n_jobs, self._of_call.budget, self._of_call.policy, tuple(sorted(threads.items())))
        )
        return n_jobs

    def submit(
        self, func: BatchedCalls, callback: Callable[[Any], Any] | None = None
    ) -> concurrent.futures.Future[Any]:
        """Queues a batch of calls; joblib's `callback` gets the future when it is done."""
        assert self._executor is not None
        calls = self._executor.options(memory=self._of_call.memory, limit=self._of_call.limit)
        first, self._submitted = self._submitted + 1, self._submitted + len(func.items)
        future = calls.submit(_Batch(_names_of(func), first, self._submitted), self._files.pickled(func))
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit

    def retrieve_result_callback(self, out: concurrent.futures.Future[Any]) -> Any:
        """The results of a batch; raises what its function raised, or why its worker was lost."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Drops what has not started yet, after a call failed; what runs is not waited for."""
        if self._executor is not None:
            _discard(self._executor)
            self._executor = None
        self._files.close()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel, **self._arguments)

    def terminate(self) -> None:
        """Ends one call of `Parallel`: its files are removed, the workers stay for the next."""
        self._executor = None
        self._files.close()
        self.reset_batch_stats()


class _Settings(NamedTuple):
    """What may be given to the backend, and to one call of `Parallel` instead."""

    budget: Size | None
    memory: Size | None
    limit: Size | float | None
    policy: ExecutorPolicy

    def checked(self) -> _Settings:
        """The same with sizes in bytes."""
        return self._replace(
            budget=None if self.budget is None else size_of("budget", self.budget),
            memory=None if self.memory is None else size_of("memory", self.memory),
            limit=limit_of("limit", self.limit),
        )


_OF_JOBLIB = {"context", "max_nbytes", "mmap_mode", "temp_folder", "verbose"}
"""What `Parallel` hands on to any backend."""


def _refuse(unknown: Collection[str]) -> None:
    if unknown:
        raise UsageError(
            f"the backend {NAME!r} has no {', '.join(sorted(unknown))}; it takes budget, memory, limit, policy, max_nbytes, "
            "temp_folder and mmap_mode"
        )


class _ArrayFiles:
    """The files by which one call of `Parallel` shares large arrays with its workers."""

    def __init__(
        self, max_nbytes: int | str | None, folder: str | os.PathLike[str] | None, mmap_mode: str
    ) -> None:
        self._settings = {"max_nbytes": max_nbytes, "mmap_mode": mmap_mode}
        self._folder = folder
        self._context = ""
        self._manager: Any = None
        self._reducers: Any = None

    def open(self, context: str, arguments: Mapping[str, Any]) -> None:
        """`arguments` are what `Parallel` was given for this."""
        settings = {name: arguments.get(name, value) for name, value in self._settings.items()}
        if isinstance(settings["max_nbytes"], str):
            from joblib.disk import memstr_to_bytes

            settings["max_nbytes"] = memstr_to_bytes(settings["max_nbytes"])
        folder = arguments.get("temp_folder") or self._folder or os.environ.get("JOBLIB_TEMP_FOLDER")
        self._manager = TemporaryResourcesManager(os.fspath(folder or tempfile.gettempdir()), context)
        self._context = context
        self._reducers, _ = get_memmapping_reducers(
            unlink_on_gc_collect=False,
            temp_folder_resolver=self._manager.resolve_temp_folder_name,
            **settings,
        )

    def pickled(self, func: Callable[[], Any]) -> bytes:
        """`func` as bytes; its large arrays are written to files."""
        self._manager.set_current_context(self._context)
        return bytes(dumps(func, reducers=self._reducers))

    def close(self) -> None:
        """Removes the files; workers that still map one keep it until they let go."""
        if self._manager is not None:
            self._manager._clean_temporary_resources(  # noqa: SLF001 - as joblib's own backends do
                context_id=self._context, force=True
            )
            self._forget_folders_never_made()
            self._manager = None

    def _forget_folders_never_made(self) -> None:
        """Joblib would keep their names to the program's end: two more for each call, and a warning for each then."""
        folders = self._manager._cached_temp_folders  # noqa: SLF001 - as joblib's own backends do
        for context, cleanup in list(self._manager._finalizers.items()):  # noqa: SLF001 - likewise
            if not os.path.exists(folders[context]):  # noqa: PTH110 - a text of joblib's
                atexit.unregister(cleanup)
                resource_tracker.unregister(folders[context], "folder")


class _Key(NamedTuple):
    """Settings with which workers may be used again."""

    n_jobs: int
    budget: Size | None
    policy: ExecutorPolicy
    threads: tuple[tuple[str, str], ...]


_kept: dict[_Key, FallbackExecutor] = {}
"""One executor at most, with the settings that it was made for."""


def _reused(key: _Key) -> FallbackExecutor:
    if key not in _kept:
        while _kept:
            _, other = _kept.popitem()
            other.shutdown(wait=False)
        _kept[key] = FallbackExecutor(
            key.n_jobs,
            budget=key.budget,
            policy=key.policy,
            levels=("process", "thread"),
            initializer=_limit_threads,
            initargs=(dict(key.threads),),
        )
    return _kept[key]


def _discard(executor: FallbackExecutor) -> None:
    for key, kept in list(_kept.items()):
        if kept is executor:
            del _kept[key]
    executor.shutdown(wait=False, cancel_futures=True)


@atexit.register
def shut_down_workers() -> None:
    """Ends the workers that are kept for the next call; the interpreter's end does that too."""
    while _kept:
        _, executor = _kept.popitem()
        with contextlib.suppress(Exception):
            executor.shutdown(wait=False, cancel_futures=True)


def _limit_threads(variables: dict[str, str]) -> None:
    """In each worker, before numpy is imported: as many threads for its libraries as joblib says."""
    os.environ.update(variables)


class _Batch(PacksAnswer):
    """Runs a batch in a worker, and names it in messages: its functions, and which calls of `Parallel` they are."""

    def __init__(self, functions: str, first: int, last: int) -> None:
        calls = f"call {first}" if first == last else f"calls {first} to {last}"
        self.call_name = f"{functions} ({calls} of Parallel)"

    def __repr__(self) -> str:
        return self.call_name

    def __call__(self, batch: bytes) -> Any:
        """The bytes are this program's own."""
        return pickle.loads(batch)()  # noqa: S301 - written by this program, sent over its own pipe

    def pack_answer(self, answer: Any) -> bytes:
        """Packed as the batch was where there is no other way: a script's classes came by value, and go back as the script's own."""
        try:
            return by_name(answer)
        except (pickle.PicklingError, AttributeError, TypeError):
            return bytes(dumps(answer))


def _names_of(batch: BatchedCalls) -> str:
    names = []
    for function, _, _ in batch.items:
        while isinstance(function, functools.partial):
            function = function.func  # noqa: PLW2901 - unwrapped
        names.append(getattr(function, "__qualname__", None) or type(function).__qualname__)
    return ", ".join(dict.fromkeys(names))


register_parallel_backend(NAME, MembudgetBackend)
