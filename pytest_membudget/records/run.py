"""What is known of a file before it is processed, and what became of a batch.

A batch has one outcome per input; it says where the peak went, and which levels it ran on. Then limiters at one instant: of one
program, and of all programs of this host.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Literal, cast

import msgspec

from pytest_membudget.errors import text_of
from pytest_membudget.records import Bytes, Count, Result_co, Seconds
from pytest_membudget.records.judgement import Growth
from pytest_membudget.units import format_count, format_duration, format_size

MOST_LISTED = 5
"""Failed inputs, and events, that the summary of a batch lists; of more it says how many there are."""

MOST_EVENTS = 10


Level = Literal["dask", "process", "thread", "sequential"]
Cause = Literal[
    "ok",  # the function returned
    "error",  # the function raised
    "killed",  # its worker died under it, every time
    "out-of-memory",  # MemoryError in a worker, every time
    "timeout",  # longer than its time limit
    "oversize",  # larger than the whole budget
    "over-limit",  # it took more than its limit, and was ended
    "unpicklable",  # its arguments, result or exception cannot travel between processes
    "cancelled",
    "done",  # an earlier run had done it, says the file of `done=`
]


class FileCategory(enum.StrEnum):
    """Small, medium or large: decides a file's time limit and whether it runs alone in a worker."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class ResourceEstimate(msgspec.Struct, frozen=True):
    """What one file is expected to need: bytes of memory, seconds, and the pool it should run in."""

    size_bytes: int
    category: FileCategory
    memory_bytes: int
    timeout_s: float
    pool: Literal["shared", "isolated"]


class BatchPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch will ask for: files by category, the longest time limit, memory of its large files together."""

    small: int
    medium: int
    large: int
    timeout_s: float
    large_memory_bytes: int
    #: Files that could not be read.
    unclassified: int = 0

    @property
    def files(self) -> int:
        """All files of the batch."""
        return self.small + self.medium + self.large + self.unclassified


class SyntheticFile(msgspec.Struct, frozen=True):
    """A generated file of exactly `size_bytes` with `rows` records of its kind."""

    path: Path
    size_bytes: int
    rows: int
    kind: str

    def __fspath__(self) -> str:
        """Lets `open(file)` and `Path(file)` take the record itself."""
        return str(self.path)


class Feature(msgspec.Struct, frozen=True, array_like=True):
    """What an estimate depends on where that is not the size: the name of a predictor, and its value."""

    name: str
    value: float


class Outcome(msgspec.Struct, Generic[Result_co], frozen=True, kw_only=True):
    """What became of one input. `error` is the exception, `None` where `value` is the result.

    Attributes:
        size_bytes: of its file, its folder, or the files in it; `None` where it has none.
        features: the predictors that its estimate went by; none where that was its size.
        peak_bytes: what the task took: its worker above what it retained before, and all that it started. Proven.
        peak_upper_bytes: the most that it may have taken; `peak_bytes` where the kernel gives that exactly; `None` for one that
            was ended or killed, which was seen to hold `peak_bytes` and may have held more before its end.
        estimate_bytes: what it was expected to take when it was submitted.
        limit_bytes: the most that it might take before it was ended; `None` for no limit.
    """

    item: Any
    value: Result_co | None = None
    error: BaseException | None = None
    cause: Cause = "ok"
    attempts: int = 1
    level: Level = "process"
    size_bytes: int | None = None
    features: tuple[Feature, ...] = ()
    peak_bytes: int | None = None
    peak_upper_bytes: int | None = None
    estimate_bytes: int | None = None
    limit_bytes: int | None = None
    duration_s: float = 0.0
    host: str = ""
    caveats: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the function returned."""
        return self.error is None

    def __str__(self) -> str:
        attempts = "" if self.attempts == 1 else f" after {self.attempts} attempts"
        if self.error is not None:
            kind, text = type(self.error).__name__, " ".join(text_of(self.error).split())
            return f"{text_of(self.item)}: {self.cause}{attempts}: {kind}{f': {text}' if text else ''}"
        peak = "" if self.peak_bytes is None else f", peak {format_size(self.peak_bytes)}"
        return f"{text_of(self.item)}: {self.cause}{attempts} in {format_duration(self.duration_s)}{peak}"


class HostUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch used of one machine of a cluster.

    Attributes:
        host: its name.
        workers: worker processes that were used there.
        tasks: attempts that ended there.
        budget_bytes: what its workers offered together, their own base included.
        peak_upper_bytes: each worker's own highest resident memory, added up. Exact for one worker; for several at
            most this, as they need not have been at their highest at the same moment.
    """

    host: str
    workers: int
    tasks: int
    budget_bytes: Bytes
    peak_upper_bytes: Bytes

    def __str__(self) -> str:
        at_most = "at most " if self.workers > 1 else ""
        return (
            f"{self.host}: peak {at_most}{format_size(self.peak_upper_bytes)} of {format_size(self.budget_bytes)} "
            f"in {format_count(self.workers, 'worker')}, {format_count(self.tasks, 'task')}"
        )


class Breakdown(msgspec.Struct, frozen=True, kw_only=True):
    """Where the peak went, in bytes; the parts add up to `peak_bytes`."""

    peak_bytes: Bytes
    coordinator_bytes: Bytes  # the process that hands out the tasks
    workers_base_bytes: Bytes  # workers without their tasks: interpreter and libraries
    task_bytes: Bytes  # what tasks added to their workers
    waiting_results_bytes: Bytes  # results in the coordinator that are not read yet
    other_bytes: Bytes  # the fork server, what tasks started, and what was too brief to be attributed
    caveats: tuple[str, ...] = ()


EventKind = Literal[
    "fallback",
    "recovery",
    "worker-killed",
    "retry",
    "alone",
    "timeout",
    "overrun",
    "over-limit",
    "pressure",  # tasks stall for want of memory: nothing starts beside what runs
    "host",
]


class LevelEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One change of level or repeat of a task: what failed, why, and what comes next."""

    kind: EventKind
    level: Level
    cause: str
    next_step: str
    at_s: float

    def __str__(self) -> str:
        return f"{self.level}: {self.cause}; {self.next_step}"


def _the_first(items: Sequence[object], noun: str) -> list[str]:
    shown = [str(each) for each in items[:MOST_LISTED]]
    left_out = len(items) - MOST_LISTED
    return [*shown, f"and {format_count(left_out, f'more {noun}')}"] if left_out > 0 else shown


class BatchResult(msgspec.Struct, Generic[Result_co], frozen=True, kw_only=True):
    """A whole batch, outcomes in the order of the inputs. Its text is a summary of some lines.

    `growth` says whether its worker processes held more after each task, all of them together, `worker_growth` each
    by itself; `None` where no task ran in a worker process. `calls` are tasks there.
    """

    outcomes: tuple[Outcome[Result_co], ...]
    #: Of all processes on this machine together.
    peak_bytes: int
    duration_s: float
    #: The largest that its tasks had to share; the limit is what binds the whole program.
    budget_bytes: int
    limit_bytes: int
    #: The most that lived at once.
    workers: int
    max_in_flight: int
    breakdown: Breakdown | None = None
    events: tuple[LevelEvent, ...] = ()
    hosts: tuple[HostUse, ...] = ()
    dead_letters: tuple[Outcome[Result_co], ...] = ()
    dead_letters_path: str | None = None
    growth: Growth | None = None
    worker_growth: tuple[Growth, ...] = ()
    caveats: tuple[str, ...] = ()

    def __str__(self) -> str:
        failed = sum(not outcome.ok for outcome in self.outcomes)
        took = f"{format_duration(self.duration_s)} by {format_count(self.workers, 'worker')}"
        return "\n".join(
            [
                f"{format_count(len(self.outcomes), 'input')} in {took}, {failed or 'none'} failed",
                *self.failures,
                f"peak: {format_size(self.peak_bytes)}, budget {format_size(self.budget_bytes)}",
                *([] if self.growth is None else [f"growth in workers: {self.growth.in_words('task')}"]),
                *map(str, self.hosts),
                *_the_first(self.events, "event"),
                *(f"caveat: {caveat}" for caveat in self.caveats),
            ]
        )

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """In a notebook, where the last value of a cell is shown: the summary, not all outcomes."""
        printer.text(str(self))

    @property
    def failures(self) -> tuple[str, ...]:
        """The first inputs that failed and why, one line each, and where they are kept to be run again."""
        lines = _the_first([outcome for outcome in self.outcomes if not outcome.ok], "failed input")
        if self.dead_letters and self.dead_letters_path:
            lines.append(f"dead letters: {self.dead_letters_path}; `membudget retry` runs them again")
        return tuple(lines)

    @property
    def values(self) -> list[Result_co]:
        """The results in the order of the inputs.

        Raises:
            BaseException: the first input's that failed.
        """
        for outcome in self.outcomes:
            if outcome.error is not None:
                raise outcome.error
        return cast("list[Result_co]", [outcome.value for outcome in self.outcomes])


class SemaphoreStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A limiter at one instant: bytes granted and left, and who waits."""

    budget_bytes: int
    reserved_bytes: int
    #: Requests that were granted, and requests that wait.
    leases: int
    waiting: int
    #: How often the first in the queue was passed by a smaller request.
    overtaken: int = 0
    #: Whether a lease that runs alone is held.
    exclusive: bool = False
    #: Whether nothing is granted because tasks stall for want of memory.
    paused: bool = False
    scope: Literal["process", "host"] = "process"

    @property
    def free_bytes(self) -> int:
        """What is left to grant; zero while an overrun or an exclusive lease takes more than the budget."""
        return max(0, self.budget_bytes - self.reserved_bytes)


class HostRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request: granted, or waiting in the order of the list."""

    pid: int
    label: str
    #: what was asked for
    bytes: Bytes
    #: what it was last seen to hold; 0 where that is not known or not more than it asked for
    resident_bytes: Bytes
    granted: bool
    exclusive: bool
    #: since it was asked for
    age_s: float


class HostStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One budget of the host at one instant."""

    name: str
    #: what may be granted together now
    budget_bytes: Bytes
    #: the smallest budget among the programs that take part
    ceiling_bytes: Bytes
    reserved_bytes: Bytes
    #: programs that take part, whether they hold anything or not
    programs: int
    #: whether admission is closed because tasks stall for want of memory
    is_stalled: bool
    #: the pressure file that says so; empty where the kernel has none
    pressure_source: str
    requests: tuple[HostRequest, ...] = ()

    @property
    def holders(self) -> tuple[HostRequest, ...]:
        """Those that were granted."""
        return tuple(request for request in self.requests if request.granted)

    @property
    def waiters(self) -> tuple[HostRequest, ...]:
        """Those that wait, the first in the queue first."""
        return tuple(request for request in self.requests if not request.granted)


class MemoryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The machine's memory, what is available under the limit that binds, and how many workers that allows."""

    total_bytes: int
    available_bytes: int
    limit_bytes: int
    limit_source: str
    recommended_workers: int


class BatchSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch. `hosts` are those of a cluster; `events` the first that there were, in words.

    `failures` are the first inputs that failed, in words, and where they are kept to be run again. `peak_bytes` is
    that of this machine's processes; each host has its own.
    """

    title: str
    inputs: Count
    failed: Count
    repeated: Count
    duration_s: Seconds
    workers: Count
    peak_bytes: Bytes
    budget_bytes: Bytes
    limit_bytes: Bytes
    levels: tuple[Level, ...] = ()
    hosts: tuple[HostUse, ...] = ()
    growth: Growth | None = None
    failures: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()


def summarize_batch(batch: BatchResult, title: str) -> BatchSummary:
    """The figures of `batch` under a title of the caller's."""
    events = [str(event) for event in batch.events[:MOST_EVENTS]]
    if len(batch.events) > MOST_EVENTS:
        events.append(f"and {format_count(len(batch.events) - MOST_EVENTS, 'more event')}")
    return BatchSummary(
        title=title,
        inputs=len(batch.outcomes),
        failed=sum(not outcome.ok for outcome in batch.outcomes),
        repeated=sum(outcome.attempts > 1 for outcome in batch.outcomes),
        duration_s=batch.duration_s,
        workers=batch.workers,
        peak_bytes=batch.peak_bytes,
        budget_bytes=batch.budget_bytes,
        limit_bytes=batch.limit_bytes,
        levels=tuple(dict.fromkeys(outcome.level for outcome in batch.outcomes)),
        hosts=batch.hosts,
        growth=batch.growth,
        failures=batch.failures,
        events=tuple(events),
        caveats=batch.caveats,
    )
