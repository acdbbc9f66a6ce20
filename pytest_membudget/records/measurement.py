"""What a measurement found: peaks as an interval, how they were obtained, who held them, and what makes them doubtful.

Two things have one wording here: how a process ended, and each kind of caveat. A caveat travels as data, a kind with its figures;
its sentence is made by `str`, where it is shown. To ask about one, ask for its `kind`.
"""

from __future__ import annotations

import signal
import sys
from typing import Generic, Literal, cast

import msgspec

from pytest_membudget.records import Bytes, Count, Result_co, Seconds, SignedBytes
from pytest_membudget.units import format_duration, format_size

NOT_FOUND = 127
NOT_RUNNABLE = 126
SIGNALLED = 128

_WORDING = {
    "cancelled": "was cancelled",
    "not-found": "was not found",
    "not-runnable": "may not be run",
    "lost": "was lost: the process that watched it was killed, so how it ended is not known",
}


Source = Literal["kernel", "sampled"]
How = Literal[
    "exited", "signalled", "over-limit", "timeout", "cancelled", "not-found", "not-runnable", "lost"
]


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How one process ended. `str` is the end of a sentence about it: "was ended by SIGSEGV (signal 11)".

    *over-limit*, *timeout* and *cancelled*: we ended it, with all that it had started. *lost*: what watched it was killed.
    """

    how: How
    exit_code: int = 0
    """What a shell would say: 128 and the signal's number, 127 not found, 126 not runnable."""
    signal: int = 0
    """The number of the signal that ended it; 0 where none did."""
    duration_s: float = 0.0
    limit_bytes: int | None = None
    """For the whole tree; `None` where there was no limit."""
    reached_bytes: int = 0
    """What the tree was proven to hold when it broke its limit."""
    timeout_s: float | None = None

    @property
    def ended_by_us(self) -> bool:
        """Whether it was ended rather than ended by itself."""
        return self.how in {"over-limit", "timeout", "cancelled"}

    def __str__(self) -> str:
        if self.how == "exited":
            return f"ended with exit code {self.exit_code}"
        if self.how == "signalled":
            return f"was ended by {signal_name(self.signal)} (signal {self.signal}){_hint(self.signal)}"
        if self.how == "over-limit":
            held, limit = format_size(self.reached_bytes), format_size(self.limit_bytes or 0)
            return f"held {held} with all that it had started, and was ended at its limit of {limit}"
        if self.how == "timeout":
            return f"was ended at its time limit of {format_duration(self.timeout_s or 0.0)}"
        return _WORDING[self.how]


def exit_code_of(returncode: int) -> int:
    """A shell's exit code of a process, from what `subprocess` calls its return code."""
    return SIGNALLED - returncode if returncode < 0 else returncode


def signal_name(number: int) -> str:
    """Such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a real-time signal"


def _hint(number: int) -> str:
    killed = sys.platform != "win32" and number == signal.SIGKILL
    return "; the system may have run out of memory" if killed else ""


class ProcessShare(msgspec.Struct, frozen=True):
    """One process of the measured tree and the most it held during the measurement, in bytes."""

    pid: Count
    name: str
    peak_bytes: Bytes


class TimelinePoint(msgspec.Struct, frozen=True, array_like=True):
    """Memory of the tree, in bytes above the start, `at_s` seconds after it."""

    at_s: Seconds
    tree_bytes: SignedBytes


class Measurement(msgspec.Struct, Generic[Result_co], frozen=True, kw_only=True):
    """The memory one block took, its whole process tree included.

    `peak_bytes` is proven: at least this much was added above the start. `peak_upper_bytes` cannot have been
    exceeded, and equals `peak_bytes` where the kernel gives the peak exactly. All sizes are bytes.
    """

    peak_bytes: int
    peak_upper_bytes: int
    total_peak_bytes: int
    start_bytes: int
    end_bytes: int
    duration_s: float
    processes: int
    source: Source
    interval_s: float | None = None
    shared_left_bytes: int = 0
    """What stays in shared memory and in files of tmpfs at the end, mapped or not, and was added since the start."""
    label: str = ""
    shares: tuple[ProcessShare, ...] = ()
    timeline: tuple[TimelinePoint, ...] = ()
    caveat_records: tuple[Caveat, ...] = ()
    value: Result_co = cast("Result_co", None)

    @property
    def caveats(self) -> tuple[str, ...]:
        """The doubts about the figures, as plain sentences."""
        return tuple(map(str, self.caveat_records))

    @property
    def retained_bytes(self) -> int:
        """What the tree holds at the end above the start; negative where it holds less."""
        return self.end_bytes - self.start_bytes

    @property
    def exact(self) -> bool:
        """Whether the proven figure and the upper figure are one."""
        return self.peak_bytes == self.peak_upper_bytes


class MemoryLimit(msgspec.Struct, frozen=True):
    """The least of all limits that bind this process, and which one it is."""

    bytes: int
    source: str


class MemoryReading(msgspec.Struct, frozen=True, kw_only=True):
    """The limit and what is free under it at one instant, in bytes; page cache does not count as used."""

    limit: MemoryLimit
    available_bytes: int

    @property
    def used_bytes(self) -> int:
        """What is in use under the limit, by anyone it binds."""
        return max(0, self.limit.bytes - self.available_bytes)


class CommandMeasurement(msgspec.Struct, frozen=True, kw_only=True):
    """A command's run: how it ended and the most its process tree held, in bytes.

    `exit_code` is what a shell would say: 128 and the signal's number where a signal ended it, 127 where the command was
    not found, 126 where it may not be run.
    """

    command: tuple[str, ...]
    exit_code: int
    duration_s: float
    peak_bytes: int
    peak_upper_bytes: int
    processes: int
    source: Source
    interval_s: float | None = None
    timed_out: bool = False
    ending: Ending | None = None
    shares: tuple[ProcessShare, ...] = ()
    timeline: tuple[TimelinePoint, ...] = ()
    caveats: tuple[str, ...] = ()


class CommandRun(msgspec.Struct, frozen=True, kw_only=True):
    """A command that ran inside a lease of the host's budget, as `membudget run --json` writes it."""

    measurement: CommandMeasurement
    reserved_bytes: Bytes
    #: for its whole tree; `None` where there was none
    limit_bytes: Bytes | None
    #: until the memory came free
    waited_s: float

    @property
    def exit_code(self) -> int:
        """What a shell would say."""
        return self.measurement.exit_code


CaveatKind = Literal[
    "mark-not-reset",
    "memory-not-readable",
    "process-missed",
    "sampled-from-inside",
    "helper-lost",
    "no-helper",
    "kept-small-blocks",
    "not-trimmed",
    "library-pool",
    "arrow-pool",
    "pool-at-end",
    "kept-by-threads",
    "shared-not-attributed",
    "swapped",
    "huge-pages-hidden",
    "children-not-seen",
    "children-not-readable",
    "thread-left-running",
    "result-not-sent",
    "result-pickled",
    "command-below-launcher",
    "command-not-watched",
    "benchmark-not-called",
    "collected-inside",
    "may-be-reused",
    "not-measured",
]


class Caveat(msgspec.Struct, frozen=True):
    """One doubt about a figure."""

    kind: CaveatKind
    size_bytes: int = 0
    """The size that the kind speaks of; 0 where it speaks of none."""
    detail: str = ""
    """What else the sentence needs: a reason, or the name of a library."""

    def __str__(self) -> str:
        return _CAVEATS[self.kind].format(size=format_size(self.size_bytes), detail=self.detail)


_CAVEATS: dict[CaveatKind, str] = {
    "mark-not-reset": (
        "this process's high-water mark cannot be reset here: a peak below the highest that it ever had lies between "
        "the two figures; measure_isolated sees it"
    ),
    "memory-not-readable": (
        "this process's memory could not be read (is /proc hidden, or is every descriptor in use?): the lower figure is "
        "what is proven all the same, the upper one comes from the highest that it ever had; children are in neither"
    ),
    "process-missed": (
        "a process ended before it could be read: its memory, at most {size}, is in the upper figure only"
    ),
    "sampled-from-inside": (
        "children were sampled from inside: what they held between two samples is in neither figure"
    ),
    "helper-lost": (
        "the helper process that watches children was lost: {detail}; children of this block were not seen"
    ),
    "no-helper": "{detail}",
    "kept-small-blocks": (
        "up to {size} of freed memory that Python kept before the start could be reused and is not in the peak; run it "
        "first or isolated to see that too"
    ),
    "not-trimmed": (
        "memory that was freed before the start could not be given back to the system (psutil.heap_trim is missing "
        "here), so the block may have reused it unseen"
    ),
    "library-pool": (
        "{detail} keeps freed memory for about a second: of up to {size} that it held at the start, in use or free, what "
        "was free could be reused and is not in the peak; run it isolated, or set "
        "_RJEM_MALLOC_CONF=dirty_decay_ms:0,muzzy_decay_ms:0"
    ),
    "arrow-pool": (
        "pyarrow's own threads keep memory that they freed: up to {size} that was kept at the start could be reused and is "
        "not in the peak; run it isolated"
    ),
    "pool-at-end": "up to {size} of what is resident at the end is memory that {detail} keeps, free or in use",
    "kept-by-threads": (
        "{size} of the peak may be memory that threads had freed and malloc kept for them: how much it keeps depends on "
        "what ran before; run it isolated to compare"
    ),
    "shared-not-attributed": (
        "up to {size} of shared memory or of files in tmpfs came meanwhile, and other programs run here: whose it is cannot "
        "be determined, so it is in the upper figure only"
    ),
    "swapped": (
        "the machine has swapped {size} out meanwhile: whose it is cannot be determined, so it is in the upper figure only"
    ),
    "huge-pages-hidden": (
        "how many huge pages the machine hands out cannot be read here (is /proc/vmstat hidden?): a spike of them between "
        "two samples may be above the upper figure"
    ),
    "children-not-seen": (
        "programs were started that could not be watched: by the kernel's account of their page faults they held at most "
        "{size}, which is in the upper figure; what they left running is not"
    ),
    "children-not-readable": (
        "programs run that could not be watched, and what they hold is not known: the peak is at least this much, and the "
        "upper figure is the memory limit"
    ),
    "thread-left-running": (
        "its interpreter was ended {detail} after the answer: a thread that the function left running kept it from ending"
    ),
    "result-pickled": (
        "it returned {size} as pickled: a worker process takes up to twice that beside its peak to send it; return less, or "
        "write it to a file"
    ),
    "result-not-sent": "the result cannot travel between processes and was left behind ({detail})",
    "command-below-launcher": (
        "the kernel's mark of a command shows nothing below the {size} of the process that started it: the lower figure is what "
        "was read every {detail}"
    ),
    "command-not-watched": (
        "the tree could not be watched ({detail}): the figure is the largest single process, by the kernel"
    ),
    "benchmark-not-called": "the test takes the fixture benchmark and did not call it, so that there was nothing to measure",
    "may-be-reused": (
        "what it reused of the {size} that its process held at the start is in the upper figure only: the default budget is "
        "several times as large, so what was free of that was not asked; mark the test with a budget of its own for that"
    ),
    "collected-inside": (
        "Python collected garbage inside the block that may have been there before: the block may have reused its memory, "
        "which is then not in the peak"
    ),
    "not-measured": (
        "this test could not be measured ({detail}): its peak is only known to be below the memory limit"
    ),
}
