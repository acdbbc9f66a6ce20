"""How the executor behaves where the caller may choose: one frozen record."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Literal

import msgspec

from pytest_membudget.errors import UsageError, count_of, path_of, share_of, size_of
from pytest_membudget.runtime.prediction.files import DEFAULT_CLASSES, FileClasses
from pytest_membudget.units import Size

USUAL_TASKS_PER_CHILD = 50
"""After so many tasks a worker is replaced, unless the caller chose another number."""

USUAL_RETRIES = 2
"""How often a task is repeated after a loss, unless the caller chose another number."""


class ExecutorPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The executor's rules.

    Attributes:
        small_batch: `run` gives fewer inputs than this to threads, one each. 0 protects one input as well as a hundred.
        degraded_threads: threads at most, after processes could not be started.
        target_memory: share of the limit that all use together may reach when no budget is given.
        max_tasks_per_child: a worker process is replaced after so many tasks; `None` keeps it. While calls take less
            than 100 ms they count by their time: as one for every 100 ms; inputs of `run` only where it is the usual
            50. A worker that took long to load what its tasks need exceeds these until it has worked ten times as
            long.
        timeout_s: seconds a task may run. "category": files by their size, as `classes` has it, other calls without a
            limit; `None`: no limit.
        limit: the most that a task may take before it is ended with all that it started: a size, or a factor of what
            it is charged, such as 1.5. `None`: no limit.
        overrun: what follows where a task takes more than it is charged. "wait": nothing starts until it fits again.
            "end": the task is ended and repeated with a larger charge, as after a kill.
        profiles: a task may also start where its peak does not fit, but what it and the running ones will hold over their
            time does, by what finished calls of their functions held; see docs/admission.md. Not with `scope="host"`.
        max_worker_bytes: a worker that retains more after a task is replaced before its next one; `None` goes by the
            budget, of which each worker may retain its share.
        preload: modules that the fork server imports for all workers; nothing else of the program is.
        start_timeout_s: seconds that a worker may take to start, its initializer included, and then to import the
            function of a call. A worker that takes longer is ended; `None` waits for ever.
        retries: how often a task is repeated after its worker was killed or it ran out of memory. One that was killed
            while it ran alone is repeated only where this is more than the usual 2.
        oversize: what becomes of a task that is larger than the whole budget: "refuse" or "alone".
        dead_letters: file that failed inputs of `run` are added to, one JSON line each.
        recover_after: so many clean tasks in a row give back one step of lost concurrency.
        max_overtakes: how often a task that waits for memory may be overtaken by smaller ones.
        send_files_up_to: files up to this size travel to the workers of a cluster; larger ones must be found there
            under the same path. Nothing travels when not given.
        classes: where small, medium and large files begin, and their time limits.
    """

    small_batch: int = 0
    degraded_threads: int = 2
    target_memory: float = 0.70
    max_tasks_per_child: int | None = USUAL_TASKS_PER_CHILD
    timeout_s: float | Literal["category"] | None = "category"
    limit: Size | float | None = None
    overrun: Literal["wait", "end"] = "wait"
    profiles: bool = False
    max_worker_bytes: Size | None = None
    preload: tuple[str, ...] = ()
    start_timeout_s: float | None = 300.0
    retries: int = USUAL_RETRIES
    oversize: Literal["refuse", "alone"] = "refuse"
    dead_letters: str | os.PathLike[str] | None = None
    recover_after: int = 8
    max_overtakes: int = 32
    send_files_up_to: Size = 0
    classes: FileClasses = DEFAULT_CLASSES

    def __post_init__(self) -> None:
        count_of("small_batch", self.small_batch, least=0)
        count_of("degraded_threads", self.degraded_threads)
        share_of("target_memory", self.target_memory)
        count_of("retries", self.retries, least=0)
        count_of("recover_after", self.recover_after)
        count_of("max_overtakes", self.max_overtakes, least=0)
        size_of("send_files_up_to", self.send_files_up_to)
        if self.max_tasks_per_child is not None:
            count_of("max_tasks_per_child", self.max_tasks_per_child)
        if self.timeout_s != "category":
            check_time_limit("timeout_s", self.timeout_s)
        check_time_limit("start_timeout_s", self.start_timeout_s)
        limit_of("limit", self.limit)
        if self.max_worker_bytes is not None:
            size_of("max_worker_bytes", self.max_worker_bytes)
        if self.dead_letters is not None:
            path_of("dead_letters", self.dead_letters)
        preload: object = self.preload  # a text is a sequence of letters, each of them a text
        if isinstance(preload, str) or not all(isinstance(name, str) for name in self.preload):
            raise UsageError(f'preload is {self.preload!r}; give the names of modules, such as ("pandas",)')
        if self.overrun not in {"wait", "end"}:
            raise UsageError(f'overrun is {self.overrun!r}; give "wait" or "end"')
        if self.oversize not in {"refuse", "alone"}:
            raise UsageError(f'oversize is {self.oversize!r}; give "refuse" or "alone"')

    def time_limit_s(self, size_bytes: int | None) -> float | None:
        """Seconds that a task may run: for a file of `size_bytes`, or a call that has none; `None` for no limit."""
        if self.timeout_s != "category":
            return self.timeout_s
        return None if size_bytes is None else self.classes.timeout_s(self.classes.category(size_bytes))

    @property
    def most_worker_bytes(self) -> int:
        """What a worker may hold after a task, where that was given."""
        return size_of("max_worker_bytes", self.max_worker_bytes or 0)

    @property
    def task_limit(self) -> int | float | None:
        """The limit of a task in bytes, or as a `float` the factor of its charge."""
        return limit_of("limit", self.limit)

    @property
    def sent_bytes(self) -> int:
        """The largest file that travels."""
        return size_of("send_files_up_to", self.send_files_up_to)

    @property
    def dead_letters_path(self) -> Path | None:
        """Where failed inputs are written, if anywhere."""
        return None if self.dead_letters is None else path_of("dead_letters", self.dead_letters)


def check_time_limit(name: str, seconds: float | None) -> None:
    """Seconds above 0, or `None` for no limit; a `UsageError` that begins with `name` for anything else."""
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (is_number and 0 < seconds < math.inf):
        raise UsageError(f"{name} is {seconds!r}; give seconds above 0, or None")


def limit_of(name: str, limit: Size | float | None) -> int | float | None:
    """A limit in bytes, or as a `float` the factor of the charge; `None` for no limit.

    Raises:
        UsageError: no size, or a factor below 1.
    """
    if isinstance(limit, float):
        if not 1 <= limit < math.inf:
            raise UsageError(f"{name} is {limit!r}; give a size, or a factor of the charge of 1.0 or more")
        return limit
    return None if limit is None else size_of(name, limit)
