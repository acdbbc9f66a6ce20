"""`FallbackExecutor`: processes, else threads, else one by one, within a memory budget."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Any, Literal, get_args

from pytest_membudget.errors import UsageError, count_of, size_of
from pytest_membudget.measurement.system.machine import usable_cores
from pytest_membudget.module_origins import refuse_in_unguarded_main
from pytest_membudget.records.judgement import Growth
from pytest_membudget.records.run import Level, LevelEvent
from pytest_membudget.runtime.admission.host_scope import DEFAULT_NAME
from pytest_membudget.runtime.executor.calls import Calls
from pytest_membudget.runtime.executor.charges import Memory, SizeOf
from pytest_membudget.runtime.executor.engine import CallOptions, Settings, engine_for
from pytest_membudget.runtime.executor.policy import ExecutorPolicy, check_time_limit, limit_of
from pytest_membudget.runtime.prediction.estimator import MemoryEstimator
from pytest_membudget.units import Size

_DEFAULT_POLICY = ExecutorPolicy()
_DEFAULT_LEVELS: tuple[Level, ...] = ("process", "thread", "sequential")


class FallbackExecutor(Calls, concurrent.futures.Executor):
    """A `concurrent.futures.Executor` that starts a task when its memory fits, and finishes whatever happens.

    Args:
        max_workers: tasks that run at once; as many as there are cores, where memory allows, when not given.
        max_in_flight: how many calls may be with workers at a time; for `map` and `run`, unread results
            count as well.
        budget: what all tasks together may add to their workers, such as "4 GB"; when not given, what is really
            available, read again as it changes.
        estimator: predicts files and learns from them; when not given, the preset "dataframe" for each function and
            kind of file (`.csv`, `.csv.gz`), which learns from these alone.
        policy: time limits, retries and other rules; see `ExecutorPolicy`.
        levels: where tasks may run, best first.
        mp_context: how worker processes start; see docs/running.md for the default.
        initializer: called in each worker before its first task.
        initargs: its arguments.
        dask: the cluster of the level "dask": its scheduler's address, a scheduler file or a `distributed.Client`.
            With it, "dask" comes before the default levels.
        scope: "host" leases what tasks take from the budget that programs of this host share, so that two that run at the
            same time do not count on the same memory; `membudget host` shows it. Not for the sequential level.
        name: which budget of the host.

    Raises:
        ValueError: an argument makes no sense; the message names it.
    """

    def __init__(  # noqa: PLR0917 - the public face, in the order of the standard library's
        self,
        max_workers: int | None = None,
        max_in_flight: int | None = None,
        budget: Size | None = None,
        estimator: MemoryEstimator | None = None,
        policy: ExecutorPolicy = _DEFAULT_POLICY,
        levels: Sequence[Level] = _DEFAULT_LEVELS,
        mp_context: BaseContext | str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        dask: Any = None,
        scope: Literal["process", "host"] = "process",
        name: str | None = None,
    ) -> None:
        if not isinstance(policy, ExecutorPolicy):
            raise UsageError(
                f"policy is {policy!r}; give an ExecutorPolicy, such as ExecutorPolicy(retries=0)"
            )
        if estimator is not None and not hasattr(estimator, "estimate_file_memory"):
            raise UsageError(
                f"estimator is {estimator!r}; give a MemoryEstimator, or the estimator of a calibration"
            )
        if scope not in {"process", "host"}:
            raise UsageError(f'scope is {scope!r}; choose "process" or "host"')
        if scope == "process" and name is not None:
            raise UsageError(f'name is {name!r}, but this budget is shared with no program; add scope="host"')
        if scope == "host" and policy.profiles:
            raise UsageError(
                'profiles=True goes with scope="process": of a budget that programs share each holds what it leased, '
                "which is the peaks of its tasks"
            )
        if max_workers is not None and max_workers <= 0:
            raise UsageError("max_workers must be greater than 0")
        if max_in_flight is not None:
            count_of("max_in_flight", max_in_flight)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        refuse_in_unguarded_main("a FallbackExecutor")
        settings = Settings(
            max_workers=usable_cores() if max_workers is None else max_workers,
            most_in_cluster=max_workers,
            max_in_flight=max_in_flight,
            budget_bytes=None if budget is None else size_of("budget", budget),
            estimator=estimator if estimator is not None else MemoryEstimator.preset("dataframe"),
            learns_by_kind=estimator is None,
            policy=policy,
            levels=_checked_levels(levels, dask),
            context=multiprocessing.get_context(mp_context) if isinstance(mp_context, str) else mp_context,
            initializer=initializer,
            initargs=initargs,
            dask=dask,
            host_name=(name or DEFAULT_NAME) if scope == "host" else None,
        )
        super().__init__(engine_for(self, settings), CallOptions())

    @property
    def events(self) -> tuple[LevelEvent, ...]:
        """Changes of level, lost workers and repeats, each with its cause, oldest first."""
        return self._engine.journal.events

    @property
    def level(self) -> Level:
        """Where tasks run now."""
        return self._engine.level

    @property
    def max_workers(self) -> int:
        """How many tasks may run at once."""
        return self._engine.most_workers

    @property
    def growth(self) -> Growth | None:
        """Whether the latest worker processes held more after each of all their tasks; `None` where there were none."""
        from pytest_membudget.runtime.executor.journal import growth_in_workers

        return growth_in_workers(self._engine.driver.heap_log.since({})).together

    def options(
        self,
        *,
        memory: Memory | None = None,
        size_bytes: SizeOf | None = None,
        limit: Size | float | None = None,
        timeout_s: float | Literal["policy"] | None = "policy",
    ) -> Calls:
        """The same executor for calls with options: its `submit`, `map`, `run` and `stream`.

        Args:
            memory: what a call takes: a size, a function of its argument (of the tuple of them where there are several),
                or an estimator.
            size_bytes: the size that the estimator goes by: a size or such a function.
            limit: the most that a call may take before it is ended with all that it started: a size, or as a `float` a
                factor of what it is charged, 1.0 or more.
            timeout_s: seconds that a call may run; `None` for no limit.

        Raises:
            UsageError: an option makes no sense; the message names it.
        """
        if timeout_s != "policy":
            check_time_limit("timeout_s", timeout_s)
        return Calls(self._engine, CallOptions(memory, size_bytes, limit_of("limit", limit), timeout_s))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As in `concurrent.futures`."""
        self._engine.close(wait=wait, cancel=cancel_futures)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        """Waits for what was submitted; after Ctrl-C it ends everything at once."""
        interrupted = exc_type is not None and issubclass(exc_type, KeyboardInterrupt)
        self._engine.close(wait=True, cancel=interrupted, kill=interrupted)
        return None


def _checked_levels(levels: Sequence[Level], dask: object) -> tuple[Level, ...]:
    known = get_args(Level)
    if dask is not None and levels is _DEFAULT_LEVELS:
        return ("dask", *_DEFAULT_LEVELS)
    chosen = tuple(levels) if not isinstance(levels, str) else (levels,)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= {*known}:
        raise UsageError(f"levels is {levels!r}; give some of {', '.join(map(repr, known))}, each once")
    if "dask" in chosen[1:]:
        raise UsageError(
            f"levels is {levels!r}; a cluster comes before the levels of this machine: put 'dask' first"
        )
    if "dask" not in chosen and dask is not None:
        raise UsageError(
            f"dask is given, but levels is {levels!r}; put 'dask' first in levels, or leave levels out"
        )
    if "dask" in chosen and dask is None:
        raise UsageError(
            "the level 'dask' needs to know its cluster; give dask=<address of the scheduler, scheduler file or Client>"
        )
    return chosen  # type: ignore[return-value]
