"""The protocol of a level: a launcher starts workers, a worker runs one call after the other and replies.

A level is one file that offers a `Launcher`. The driver knows these names and no more, so that a further level
(another machine, say) is one more file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from pytest_membudget.records.run import HostUse


class CannotStartError(Exception):
    """No worker can be had at this level; the message says why. Never caused by the user's function."""


class NoWorkerYetError(Exception):
    """All workers that a cluster has now are taken. More may join, so the level goes on."""


class Call(NamedTuple):
    """One attempt at a task. `sequence` is unique in the executor.

    `is_file`: the only argument is the path of a file that was there when the task was made. `exact`: the call's own peak
    is wanted, and not a bound of it. `limit_bytes` is the most that its tree may take.
    """

    sequence: int
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    charged_bytes: int = 0
    is_file: bool = False
    exact: bool = False
    limit_bytes: int | None = None


Stage = Literal["start", "initializer", "import"]
"""What keeps a worker from calling a function: its own start, the caller's initializer, or the function's module."""


class Delay(NamedTuple):
    """A worker has not come to the function of the call that is next: what it is at, and since when.

    `since_s` is on `time.monotonic`'s clock.
    """

    stage: Stage
    since_s: float


class Reading(NamedTuple):
    """What a driver reads of a worker at one moment. By default that of a worker in the coordinator, of which nothing is known."""

    #: when the function of the call was called, on `time.monotonic`'s clock; None before
    started_s: float | None = None
    #: what keeps the worker from that call; None where that is not known or it has begun
    delay: Delay | None = None
    #: resident above the ready worker, in it and in what its calls have started; 0 where it has no memory of its own
    held_bytes: int = 0
    #: the kernel has ended something of it at the limit of a call
    reached_limit: bool = False
    #: resident when it was ready, above a bare worker: what the initializer loaded; None until it is ready
    base_bytes: int | None = 0
    #: its process; None for the coordinator, or another machine's
    pid: int | None = None
    #: resident in its process when it was ready, and of no file; None until it is
    ready_anonymous_bytes: int | None = None


class HeapReading(NamedTuple):
    """Bytes of heap that a worker held after so many tasks."""

    tasks: int
    heap_bytes: int


class Figures(NamedTuple):
    """What one attempt took. `None` where this level cannot measure it; `kept_bytes` is what the worker did not give back.

    `peak_bytes` is proven; no more than `peak_upper_bytes` is possible, which is `None` where the two are the same.

    `heap` is what the worker held before it, where that was read.
    """

    duration_s: float = 0.0
    peak_bytes: int | None = None
    kept_bytes: int = 0
    result_bytes: int = 0
    coordinator_peak_bytes: int = 0  # where it ran in the coordinator: the most that was resident there
    heap: HeapReading | None = None
    peak_upper_bytes: int | None = None
    reached_limit: bool = False  # the kernel ended something of it at its limit


class Returned(NamedTuple):
    """The function returned."""

    value: Any
    figures: Figures = Figures()


class Raised(NamedTuple):
    """The function raised; the exception is the user's."""

    error: BaseException
    figures: Figures = Figures()


class RanOut(NamedTuple):
    """The function raised MemoryError."""

    error: MemoryError
    figures: Figures = Figures()


class Unpicklable(NamedTuple):
    """The arguments, the result or the exception cannot travel between processes."""

    error: Exception
    figures: Figures = Figures()


class Died(NamedTuple):
    """The worker ended. `attempted`: it had begun this call.

    `crashed`: it was an exit or a fault of its own rather than a lack of memory.
    `failed_to_start`: it ended by itself before it was ready. One that was killed then might have come up.
    `is_final`: no other worker of its level would come up either.
    `in_initializer`: it was killed, or exited, while the caller's initializer ran.
    """

    detail: str
    attempted: bool
    failed_to_start: bool = False
    figures: Figures = Figures()
    crashed: bool = False
    in_initializer: bool = False
    is_final: bool = False


class InitializerFailed(NamedTuple):
    """The caller's initializer raised; nothing can run here."""

    error: BaseException
    figures: Figures = Figures()


Attempt = Returned | Raised | RanOut | Unpicklable | Died
Reply = Attempt | InitializerFailed
Done = Callable[[Reply], None]


class Worker(Protocol):
    """Runs one call after the other. Only the driver calls it."""

    @property
    def pid(self) -> int | None:
        """The process that runs the calls; `None` for the coordinator's own."""

    def send(self, calls: Sequence[tuple[Call, Done]]) -> None:
        """Hands calls over, which run one after the other; several cost one message.

        Each one's `Done` gets its reply, once, from any thread. A worker that has ended replies `Died`.
        """

    def reading(self, sequence: int = 0) -> Reading:
        """What it holds now, and whether it has begun call number `sequence`, the next one that it has."""

    def kill(self) -> None:
        """Ends it at once, with whatever it runs, where that is possible."""

    def retire(self) -> None:
        """Takes no more calls and ends after those it has. Does not wait."""

    def join(self) -> None:
        """Waits until a retired or killed worker is gone."""

    def has_ended(self) -> bool:
        """Whether `join` would return at once."""


class Launcher(Protocol):
    """Starts the workers of one level."""

    def start(self) -> Worker:
        """A new worker; it may still be on its way up.

        Raises:
            CannotStartError: none can be had.
        """


class ClusterWorker(Worker, Protocol):
    """A worker on some machine of a cluster that others may use too: one budget of its own, one call at a time."""

    @property
    def host(self) -> str:
        """The name of its machine."""

    @property
    def capacity_bytes(self) -> int:
        """The most that one call may add there."""

    @property
    def has_nanny(self) -> bool:
        """Whether a nanny starts its process again when that ends."""

    def renew(self) -> None:
        """Restarts the idle process, because it keeps memory; not where nothing would start it again."""


class ClusterLauncher(Launcher, Protocol):
    """Offers the workers of a cluster."""

    def start(self) -> ClusterWorker:
        """A worker that is not taken yet.

        Raises:
            NoWorkerYetError: all that there are now are taken.
            CannotStartError: the cluster cannot be used, or not any more.
        """

    def close(self) -> None:
        """Leaves the cluster."""

    def hosts(self) -> tuple[HostUse, ...]:
        """What was used of each machine so far."""
