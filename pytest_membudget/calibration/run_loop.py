"""Calibrates a function: runs it on files of several sizes, each run in a fresh interpreter, and fits what it took."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec

from pytest_membudget.calibration.law import LEAST_POINTS, checked_share
from pytest_membudget.calibration.model import Calibration
from pytest_membudget.calibration.plan import (
    WARM_UP_BYTES,
    Checkpoint,
    PlannedRun,
    RunExecutor,
    differing_hosts,
    environment_of,
    plan_inputs,
    plan_synthetic,
    progress_bar,
    smallest,
)
from pytest_membudget.calibration.run_executors import (
    DaskRunExecutor,
    LocalRunExecutor,
    bare_interpreter_bytes,
)
from pytest_membudget.calibration.store import complete
from pytest_membudget.calibration.worker import FunctionReference, refer_to, stop_if_loading
from pytest_membudget.errors import CalibrationError, UsageError, text_of
from pytest_membudget.records.calibration import CalibrationFile, CalibrationPoint, CalibrationRun
from pytest_membudget.records.measurement import Caveat
from pytest_membudget.records.storage import working_folder
from pytest_membudget.runtime.prediction.predictors import Predictor, Predictors
from pytest_membudget.units import Size, format_as_written, format_duration, format_size


def calibrate(  # noqa: PLR0917 - published in this order
    fn: Callable[..., Any] | FunctionReference,
    kind: str = "csv",
    sizes: str | Sequence[Size] = ("1 MB", "2 MB", "4 MB", "8 MB"),
    repeats: int = 3,
    content: float | str = 0.95,
    confidence: float | str = 0.95,
    *,
    files: Sequence[str | os.PathLike[str] | tuple[Any, ...]] = (),
    inputs: Sequence[Any] = (),
    predictors: Mapping[str, Predictor | None] | None = None,
    seed: int = 0,
    budget_seconds: float | None = None,
    state: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    dask: Any = None,
) -> Calibration:
    """Calibrates `fn(item)`: what one task adds to a worker that is warm, as γ, overhead and a bound.

    Args:
        fn: a function of a module or of the script being run, a partial of one, or a method; it takes the path of its
            input, or whatever `inputs` are.
        kind: of the synthetic files; see `synthesize`.
        sizes: of the synthetic files: a sequence, or a range such as "1MB..16MB".
        repeats: runs of each size, with other content each time.
        content: the share of tasks that the bound is to cover.
        confidence: how sure that is to be.
        files: the user's own files instead of synthetic ones; `fn` gets their paths as text. Folders and tuples with
            paths in them are taken as `inputs` are.
        inputs: any items instead: paths, folders, tuples with paths in them, numbers. `fn` gets them as they are, with
            relative paths made absolute.
        predictors: up to three named functions of the item that its memory may follow, such as
            ``{"bytes": os.path.getsize, "pages": count_pages}``. They are called here, once for each input. Those that
            do not help are left out, and named. By default the size in bytes alone; ``"bytes": None`` stands for it.
        seed: of the order of runs and of the files' content.
        budget_seconds: no run starts or goes on after this; what was measured by then is fitted.
        state: a file that keeps finished runs, so that a calibration that was stopped goes on from there. It is
            removed at the end.
        progress: a progress bar; by default where standard error is a terminal.
        dask: a cluster on whose hosts the runs are made and measured: its scheduler's address, a scheduler file or a
            `distributed.Client`. Synthetic files are made there; own files up to 1 MB are sent, larger ones must be
            found there under the same path.

    Raises:
        UsageError: `fn` cannot be found by a fresh interpreter, or the sizes make no sense.
        CalibrationError: `fn` fails, does not read its input, the cluster cannot be used, or too few runs were done;
            its `partial` is what the runs before gave, where that is enough for a fit.
        OSError: a file is missing, or there is no room for synthetic ones.
    """
    stop_if_loading()
    function = fn if isinstance(fn, FunctionReference) else refer_to(fn)
    named = Predictors(predictors) if predictors else None
    if inputs and files:
        raise UsageError("give files or inputs, not both")
    if named and not (inputs or files):
        raise UsageError("predictors need inputs that differ in them; give some with inputs=[...]")
    if inputs or files:
        plan = plan_inputs(inputs or list(map(_own_file, files)), repeats, seed, named)
    else:
        plan = plan_synthetic(sizes, repeats, kind, seed)
    job = CalibrationJob(
        function=function,
        kind="own inputs" if inputs else "own files" if files else kind,
        predictors=dict(predictors or {}),
        seed=seed,
        plan=plan,
        content=checked_share("content", content),
        confidence=checked_share("confidence", confidence),
        budget_seconds=budget_seconds,
        cluster=dask,
    )
    try:
        checkpoint = Checkpoint(state, job.digest())
        failures = _run_all(job, checkpoint, progress)
    except CalibrationError as error:
        error.partial = job.fit(checkpoint.runs)
        raise
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{error.object!a} is not UTF-8 and cannot be handed to a fresh process; rename that file or folder"
        ) from None
    fitted = job.judge(checkpoint.runs, failures, job.fit(checkpoint.runs))
    if len(checkpoint.runs) == len(plan):
        checkpoint.remove()
    return fitted


def _own_file(item: str | os.PathLike[str] | tuple[Any, ...]) -> Any:
    """A path as text; a tuple as it is.

    Raises:
        OSError: there is no file at that path.
    """
    if isinstance(item, tuple):
        return item
    Path(item).stat()
    return os.fspath(item)


def _run_all(job: CalibrationJob, checkpoint: Checkpoint, progress: bool | None) -> list[str]:
    """Does the runs that are still to be done; what failed, in words."""
    failures: list[str] = []
    started_s = time.monotonic()
    todo = [run for run in job.plan if not checkpoint.has(run)]
    shown = progress_bar(len(todo), "calibrating", "run", progress)
    with working_folder("calibration") as folder, shown as bar:
        executor = job.executor(folder)
        left_s = partial(_left_s, job.budget_seconds, started_s)
        with contextlib.closing(executor.finished(todo, left_s)) as runs:
            for finished in runs:
                bar.set_postfix_str(format_size(finished.asked_bytes))
                bar.update(1)
                _stop_if_hopeless(job.function, finished)
                if not finished.failed_at:
                    checkpoint.add(finished)
                elif left_s() == 0:
                    break
                else:
                    failures.append(f"{_which(finished)}{_where(finished)}: {finished.error}")
    return failures


def _left_s(budget_seconds: float | None, started_s: float) -> float | None:
    return None if budget_seconds is None else max(0.0, budget_seconds - (time.monotonic() - started_s))


def _stop_if_hopeless(function: FunctionReference, finished: CalibrationRun) -> None:
    """Ends the calibration where every further run would fail alike.

    Raises:
        CalibrationError: the function or its input cannot be found, or it fails on a small file already.
    """
    where = _where(finished)
    match finished.failed_at:
        case "input":
            raise CalibrationError(finished.error)
        case "import":
            raise CalibrationError(
                f"{function} cannot be imported by a fresh interpreter{where}: {finished.error}",
                not_importable=True,
            )
        case "warm-up":
            raise CalibrationError(
                f"{function} fails on a small file already{where}: {finished.error} (it is called with the path of "
                "its input, in an empty working directory)"
            )


def _which(finished: CalibrationRun) -> str:
    """The input of the run: the user's own file by its name."""
    size = format_as_written(finished.size_bytes)
    return f"on {text_of(Path(finished.path).name)} ({size})" if finished.path else f"at {size}"


def _where(finished: CalibrationRun) -> str:
    return f" on host {finished.host}" if finished.host else ""


_FIRST_CALL_MARGIN = 0.05
"""First calls are measured on the smallest input, and a larger one touches more of a library's code: polars took 2% more."""

_UNREAD_BYTES = 4096
_UNTOUCHED_BYTES = 256 * 1024
"""Fewer bytes read by system calls, and less memory taken (as for a mapped file), mean that an input was not read."""


class CalibrationJob(NamedTuple):
    """A function, the runs that are planned of it, and what its bound is to promise."""

    function: FunctionReference
    kind: str
    predictors: dict[str, Predictor | None]
    seed: int
    plan: list[PlannedRun]
    content: float
    confidence: float
    budget_seconds: float | None
    cluster: Any

    def __str__(self) -> str:
        return f"{self.function} on {self.kind}"

    def digest(self) -> str:
        """The same text for the same plan."""
        where = [] if self.cluster is None else ["on a cluster"]
        text = msgspec.json.encode(
            [
                str(self.function),
                self.function.script,
                self.function.pickled,
                self.kind,
                list(self.predictors),
                self.seed,
                self.plan,
                *where,
            ]
        )
        return hashlib.sha256(text).hexdigest()

    def fit(self, runs: Sequence[CalibrationRun]) -> Calibration | None:
        """The calibration of these runs, `None` where they are too few."""
        if len(runs) < LEAST_POINTS:
            return None
        here_bytes = bare_interpreter_bytes()
        base_bytes = round(median(run.warm_bytes - (run.bare_bytes or here_bytes) for run in runs))
        found = complete(
            CalibrationFile(
                version=2 if self.predictors else 1,
                predictors=tuple(self.predictors),
                values=tuple(run.values for run in runs) if self.predictors else (),
                predictor_functions={
                    name: f"{fn.__module__}:{getattr(fn, '__qualname__', '')}"
                    for name, fn in self.predictors.items()
                    if fn is not None
                },
                points=tuple(CalibrationPoint(run.size_bytes, run.peak_bytes) for run in runs),
                durations_s=tuple(run.duration_s for run in runs),
                content=self.content,
                confidence=self.confidence,
                function=str(self.function),
                source_digest=runs[-1].source_digest,
                kind=self.kind,
                base_bytes=max(0, base_bytes),
                environment=environment_of(runs),
                created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                caveats=self._caveats(runs),
            ),
            self.predictors,
        )
        tiny = smallest(self.plan)
        size_bytes = tiny.size_bytes if tiny.input else WARM_UP_BYTES
        expected_bytes = found.expect(
            dict(zip(self.predictors, tiny.values, strict=True)) if self.predictors else size_bytes
        )
        beyond_bytes = max(0, max(run.first_peak_bytes for run in runs) - expected_bytes)
        first_call_bytes = round((1 + _FIRST_CALL_MARGIN) * beyond_bytes)
        return complete(
            msgspec.structs.replace(found.file, first_call_bytes=first_call_bytes), self.predictors
        )

    def _caveats(self, runs: Sequence[CalibrationRun]) -> tuple[str, ...]:
        # Each run has figures of its own: of one doubt the largest is said.
        doubts: dict[tuple[str, str], Caveat] = {}
        for doubt in sorted(
            (doubt for run in runs for doubt in run.doubts), key=lambda each: each.size_bytes
        ):
            doubts[doubt.kind, doubt.detail] = doubt
        caveats = dict.fromkeys([*map(str, doubts.values()), *(each for run in runs for each in run.caveats)])
        if len(runs) < len(self.plan):
            caveats[f"only {len(runs)} of {len(self.plan)} planned runs were measured"] = None
        return (*caveats, *differing_hosts(runs))

    def executor(self, folder: Path) -> RunExecutor:
        """Where the runs are done."""
        if self.cluster is None:
            return LocalRunExecutor(self.function, self.plan, self.kind, self.seed, folder)
        return DaskRunExecutor(self.cluster, self.function, self.plan, self.kind, self.seed)

    def judge(
        self, runs: Sequence[CalibrationRun], failures: Sequence[str], fitted: Calibration | None
    ) -> Calibration:
        """The calibration, if nothing stands in the way of one of the whole plan.

        Raises:
            CalibrationError: something does.
        """
        measured = f"{len(runs)} of {len(self.plan)} runs were measured"
        if failures:
            others = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
            raise CalibrationError(
                f"{self} fails {failures[0]}{others}; {measured}; fix it, or calibrate on inputs that it can read",
                fitted,
            )
        if fitted is None:
            raise CalibrationError(
                f"{self}: {measured} in {format_duration(self.budget_seconds or 0.0)}, and a fit needs "
                f"{LEAST_POINTS}; give it more time or smaller sizes"
            )
        if all(_left_unread(run) for run in runs):
            most = max(runs, key=lambda run: run.size_bytes)
            raise CalibrationError(
                f"{self} does not read its input: {format_size(most.read_bytes or 0)} of "
                f"{format_size(most.size_bytes)} were read and {format_size(most.peak_bytes)} taken; "
                "give a function that takes the path and does the whole work",
                fitted,
            )
        return fitted


def _left_unread(run: CalibrationRun) -> bool:
    return (
        run.read_bytes is not None
        and run.read_bytes < min(_UNREAD_BYTES, run.size_bytes)
        and run.peak_bytes < _UNTOUCHED_BYTES
    )
