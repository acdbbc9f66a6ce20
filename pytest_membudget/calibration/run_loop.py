"""Calibrates a function: runs it on files of several sizes, each run in a fresh interpreter, and fits what it took."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pytest_membudget.calibration.checkpoint import KeptRuns
from pytest_membudget.calibration.checks import checked_share
from pytest_membudget.calibration.function_reference import FunctionReference, refer_to, stop_if_loading
from pytest_membudget.calibration.job import Assignment
from pytest_membudget.calibration.model import Calibration
from pytest_membudget.calibration.places import Finished
from pytest_membudget.calibration.plan import PlannedRun, plan_own_files, plan_synthetic
from pytest_membudget.errors import CalibrationError
from pytest_membudget.units import Size, format_size


def calibrate(  # noqa: PLR0917 - published in this order
    fn: Callable[..., Any] | FunctionReference,
    kind: str = "csv",
    sizes: str | Sequence[Size] = ("1 MB", "2 MB", "4 MB", "8 MB"),
    repeats: int = 3,
    content: float | str = 0.95,
    confidence: float | str = 0.95,
    *,
    files: Sequence[str | os.PathLike[str]] = (),
    seed: int = 0,
    budget_seconds: float | None = None,
    state: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    dask: Any = None,
) -> Calibration:
    """Calibrates `fn(path)`: what one task adds to a worker that is warm, as γ, overhead and a bound.

    Args:
        fn: a function of a module or of the script being run; it takes the path of its input.
        kind: of the synthetic files; see `synthesize`.
        sizes: of the synthetic files: a sequence, or a range such as "1MB..16MB".
        repeats: runs of each size, with other content each time.
        content: the share of tasks that the bound is to cover.
        confidence: how sure that is to be.
        files: the user's own files instead of synthetic ones.
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
        OSError: no room for the files.
    """
    stop_if_loading()
    function = fn if isinstance(fn, FunctionReference) else refer_to(fn)
    plan = plan_own_files(files, repeats, seed) if files else plan_synthetic(sizes, repeats, kind, seed)
    assignment = Assignment(
        function=function,
        kind="own files" if files else kind,
        seed=seed,
        plan=plan,
        content=checked_share("content", content),
        confidence=checked_share("confidence", confidence),
        budget_seconds=budget_seconds,
        cluster=dask,
    )
    kept = KeptRuns(state, assignment.digest())
    try:
        failures = _run_all(assignment, kept, progress)
    except CalibrationError as error:
        error.partial = assignment.fit(kept.runs)
        raise
    fitted = assignment.judge(kept.runs, failures, assignment.fit(kept.runs))
    if len(kept.runs) == len(plan):
        kept.remove()
    return fitted


def _run_all(assignment: Assignment, kept: KeptRuns, progress: bool | None) -> list[str]:
    """Does the runs that are still to be done; what failed, in words."""
    failures: list[str] = []
    started_s = time.monotonic()
    todo = [run for run in assignment.plan if not kept.has(run)]
    with tempfile.TemporaryDirectory(prefix="membudget-calibrate-") as name, _bar(todo, progress) as bar:
        place = assignment.place(Path(name))
        left_s = partial(_left_s, assignment.budget_seconds, started_s)
        with contextlib.closing(place.finished(todo, left_s)) as runs:
            for finished in runs:
                bar.set_postfix_str(format_size(finished.run.size_bytes))
                bar.update(1)
                answer = finished.answer
                _stop_if_hopeless(assignment.function, finished)
                if not answer.failed_at:
                    kept.add(finished)
                elif left_s() == 0:
                    break
                else:
                    failures.append(
                        f"at {format_size(finished.size_bytes)}{_where(finished)}: {answer.error}"
                    )
    return failures


def _left_s(budget_seconds: float | None, started_s: float) -> float | None:
    return None if budget_seconds is None else max(0.0, budget_seconds - (time.monotonic() - started_s))


def _stop_if_hopeless(function: FunctionReference, finished: Finished) -> None:
    """Ends the calibration where every further run would fail alike.

    Raises:
        CalibrationError: the function or its input cannot be found, or it fails on a small file already.
    """
    answer, where = finished.answer, _where(finished)
    match answer.failed_at:
        case "input":
            raise CalibrationError(answer.error)
        case "import":
            raise CalibrationError(
                f"{function} cannot be imported by a fresh interpreter{where}: {answer.error}",
                not_importable=True,
            )
        case "warm-up":
            raise CalibrationError(
                f"{function} fails on a small file already{where}: {answer.error} (it is called with the path of "
                "its input, in an empty working directory)"
            )


def _where(finished: Finished) -> str:
    return f" on host {finished.machine.host}" if finished.machine else ""


@contextlib.contextmanager
def _bar(plan: Sequence[PlannedRun], progress: bool | None) -> Iterator[Any]:
    from tqdm import tqdm

    disable = None if progress is None else not progress
    with tqdm(total=len(plan), desc="calibrating", unit="run", disable=disable, leave=False) as bar:
        yield bar
