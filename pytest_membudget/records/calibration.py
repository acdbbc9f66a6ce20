"""What a calibration measured, as it is kept in a file, what it says of its own quality, and what tasks took since."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import msgspec

from pytest_membudget.records import Bytes, Count, Seconds
from pytest_membudget.records.measurement import Caveat
from pytest_membudget.records.report import Environment
from pytest_membudget.units import format_share


class CalibrationPoint(NamedTuple):
    """One measured task: its input's size and what it added at its peak, in bytes."""

    size_bytes: Bytes
    peak_bytes: Bytes


class CalibrationQuality(msgspec.Struct, frozen=True, kw_only=True):
    """How well each size (or each input, where predictors are given) is predicted from the others alone.

    `error` is the mean of |estimate − peak| / peak; `under_predicted` of the `judged` points lay above
    their bound, a rate that the interval from `under_low` to `under_high` holds with 95% confidence. Of these
    `under_extrapolated` lay beyond 1.25 times the largest of the others, where a bound promises nothing.
    `over_allocation` is Σ bound / Σ peak − 1.
    """

    error: float
    judged: int
    under_predicted: int
    under_low: float
    under_high: float
    over_allocation: float
    under_extrapolated: int = 0


class CalibrationFile(msgspec.Struct, frozen=True, kw_only=True):
    """A saved calibration: what was measured, how it is to be read, and where it was taken.

    The fit follows from `points`, `content` and `confidence`, and from `predictors`, `values` and `terms` where these
    are given; `gamma`, `overhead_bytes` and `curved` repeat it for readers of the file. `source_digest` is the SHA-256
    of the module that defines `function`. Version 2 has predictors, which a reader of version 1 would not see.
    """

    points: tuple[CalibrationPoint, ...]
    content: float
    confidence: float
    format: Literal["membudget-calibration"] = "membudget-calibration"
    version: Literal[1, 2] = 1
    #: Names of what the peak may follow, in order; none: the size in bytes alone.
    predictors: tuple[str, ...] = ()
    #: The predictors of each point.
    values: tuple[tuple[float, ...], ...] = ()
    #: The law: for each of its products the power of every predictor; all zeros are the constant.
    terms: tuple[tuple[int, ...], ...] = ()
    #: "module:name" of each predictor's function, for readers; nothing is imported by it.
    predictor_functions: dict[str, str] = {}
    #: Whether peaks are what a task adds to a warm worker, or those of whole jobs with all that they load.
    peak_of: Literal["task", "job"] = "task"
    function: str = ""
    source_digest: str = ""
    kind: str = ""
    base_bytes: Bytes = 0
    #: What the first call in a process takes beyond the estimate of a warm one: imports and caches of the function's own.
    first_call_bytes: Bytes = 0
    gamma: float = 0.0
    overhead_bytes: Bytes = 0
    curved: bool = False
    durations_s: tuple[Seconds, ...] = ()
    environment: Environment = Environment()
    created: str = ""
    caveats: tuple[str, ...] = ()


class CalibrationRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run: its place in the plan (size, repeat and, for one's own files, path), and what it found or where it failed.

    Sizes are bytes. `environment` and `bare_bytes`, the resident memory of a bare interpreter, are of the host where it
    ran, where that was not the machine that fits.
    """

    #: The size in the plan, which a synthetic file has exactly; `size_bytes` is that of the input that was run.
    asked_bytes: int = 0
    repeat: int = 0
    path: str = ""
    #: Which of the given inputs, and its predictors; of synthetic files 0 and none.
    index: int = 0
    values: tuple[float, ...] = ()
    size_bytes: int = 0
    #: Where it failed; such a run has no figures, and is not kept in a file.
    failed_at: Literal["", "input", "import", "warm-up", "run"] = ""
    error: str = ""
    peak_bytes: int = 0
    #: Resident memory of the worker after the first call.
    warm_bytes: int = 0
    #: The peak of the first call, on the smallest input: what it loads and caches is in it.
    first_peak_bytes: int = 0
    duration_s: float = 0.0
    #: By system calls; `None` where the system does not count them.
    read_bytes: int | None = None
    source_digest: str = ""
    doubts: tuple[Caveat, ...] = ()
    caveats: tuple[str, ...] = ()
    environment: Environment | None = None
    bare_bytes: int = 0

    @property
    def host(self) -> str:
        """The name of the host where it ran; empty for the machine that fits."""
        return self.environment.hosts[0] if self.environment else ""


class CalibrationState(msgspec.Struct, frozen=True, kw_only=True):
    """A calibration that was stopped: what it was to be, and the runs that are done."""

    plan: str
    runs: tuple[CalibrationRun, ...]
    format: Literal["membudget-calibration-state"] = "membudget-calibration-state"
    version: Literal[1] = 1


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of tasks in which more took more than was estimated than chance explains, the promise kept."""

    tasks: Count
    exceeded: Count
    #: The number of its last task, where it was found, among all that were counted.
    last: Count

    def __str__(self) -> str:
        return f"{self.exceeded} of the {self.tasks} up to task {self.last}"


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks that were estimated and then seen, and those that took more, by more than two runs of one input may differ.

    The true rate lies between `low` and `high` with 99% confidence at all times at once: the interval may be read after
    every task.
    """

    tasks: Count
    exceeded: Count
    low: float
    high: float
    #: The largest share that may exceed its estimate; `None` where nothing is promised.
    promised: float | None = None
    #: Where the promise was first found broken; kept promises are called broken with a probability of 1% at most, ever.
    breach: Breach | None = None

    @property
    def is_broken(self) -> bool:
        """Whether more tasks exceeded their estimates than was promised, beyond chance, at any time so far."""
        return self.promised is not None and self.breach is not None

    def __str__(self) -> str:
        counted = (
            f"{self.exceeded} of {self.tasks} tasks took more than was estimated "
            f"(true rate {format_share(self.low)} to {format_share(self.high)})"
        )
        if self.promised is None:
            return counted
        promised = f"where at most {format_share(self.promised)} are promised"
        if not self.is_broken:
            return f"{counted}, {promised}"
        return f"{counted}, {self.breach}, {promised}; calibrate again on inputs like these"


System = Literal["slurm", "kubernetes", "nextflow", "snakemake", "dask"]
SYSTEMS: tuple[str, ...] = get_args(System)


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Memory for one job: a whole process with one input at a time."""

    #: What it is for: the largest of the inputs, in words.
    largest: str
    inputs: Count
    aim: Literal["safe", "cheap"]
    #: The share of jobs that the first attempt covers, and how sure that is; `None` where nothing is promised.
    content: float | None
    confidence: float
    #: Of the first attempt, and of each that follows one that ran out; rising.
    attempts_bytes: tuple[Bytes, ...]
    #: What is in each of them beside the task: the interpreter and what it has loaded.
    idle_bytes: Bytes
    caveats: tuple[str, ...] = ()


class RecordedJob(msgspec.Struct, frozen=True, kw_only=True):
    """One finished job: what kind of job it was, and what it took."""

    #: The process, rule or job name: jobs of one kind are predicted together.
    kind: str
    #: The highest resident memory that the system saw.
    peak_bytes: Bytes
    #: Of its input, or what it read; `None` where the record does not say.
    size_bytes: Bytes | None = None
    duration_s: Seconds | None = None


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one file, and what to know of its figures."""

    jobs: tuple[RecordedJob, ...]
    #: Rows that are no finished job with a peak: failed, cached, without a figure.
    skipped: int = 0
    #: Rows that say the same as one before.
    repeated: int = 0
    caveats: tuple[str, ...] = ()
